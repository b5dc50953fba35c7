"""Real hosts: where they are, how their networks are built, and how several live in one process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Optional

HERE = Path(__file__).parent
#: stands in for what this Python lacks and the hosts import
SHIMS = [] if importlib.util.find_spec("pkg_resources") else [str(HERE / "shims")]
PACKAGES = HERE / "packages"
DRAGGAN = "draggan==1.1.6"

#: top-level modules that every host brings under the same names
CLASHING = ("dnnlib", "torch_utils", "training", "legacy", "metrics", "pg_modules", "generate")


@dataclass
class Host:
    """One host: ``folder`` goes on sys.path, ``networks`` is the module of its Generator.

    ``flat`` hosts take synthesis arguments as keywords of the Generator, the others as ``synthesis_kwargs``.
    """

    name: str
    folder: Path
    networks: str
    flat: bool
    script: str = ""
    discriminator_kwargs: Optional[Dict[str, Any]] = field(default_factory=dict)  # None: it is in no module of its own
    modules: Dict[str, ModuleType] = field(default_factory=dict, repr=False)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make this host's modules the importable ones; those of other hosts are set aside."""
        outer = _take_clashing()
        sys.modules.update(self.modules)
        paths = [str(self.folder), *SHIMS]
        sys.path[:0] = paths
        importlib.invalidate_caches()
        try:
            yield
        finally:
            for path in paths:
                sys.path.remove(path)
            self.modules = _take_clashing()
            sys.modules.update(outer)

    def generator(
        self,
        resolution: int = 32,
        c_dim: int = 0,
        w_dim: int = 32,
        layers: int = 2,
        img_channels: int = 3,
        **synthesis: Any,
    ) -> Any:
        """A generator of the host, active; small unless arguments say otherwise."""
        kwargs = {"channel_base": 512, "channel_max": 32, "num_fp16_res": 0, "conv_clamp": None, **synthesis}
        extra = kwargs if self.flat else {"synthesis_kwargs": kwargs}
        return importlib.import_module(self.networks).Generator(
            z_dim=w_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            img_resolution=resolution,
            img_channels=img_channels,
            mapping_kwargs={"num_layers": layers},
            **extra,
        )

    def discriminator(self, resolution: int = 32, c_dim: int = 0, img_channels: int = 3, **kwargs: Any) -> Any:
        sizes = {"channel_base": 512, "channel_max": 32, **(self.discriminator_kwargs or {}), **kwargs}
        return importlib.import_module(self.networks).Discriminator(
            c_dim=c_dim, img_resolution=resolution, img_channels=img_channels, num_fp16_res=0, **sizes
        )

    def environment(self) -> Dict[str, str]:
        """For a process of the host's own, without squeeze_patch on the path."""
        paths = [str(self.folder), *SHIMS]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


def _take_clashing() -> Dict[str, ModuleType]:
    names = [name for name in sys.modules if name.split(".")[0] in CLASHING]
    return {name: sys.modules.pop(name) for name in names}


def draggan() -> Host:
    """NVIDIA's networks as draggan ships them, fetched from PyPI once."""
    folder = PACKAGES / DRAGGAN.replace("==", "-")
    if not (folder / "draggan").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        command += ["--disable-pip-version-check", "--target", str(folder), DRAGGAN]
        subprocess.run(command, check=True)
    return Host("draggan", folder / "draggan" / "stylegan2", "training.networks", flat=False)


def checkouts() -> List[Host]:
    """The hosts that are present in the folder named by SQUEEZE_HOSTS."""
    root = Path(os.environ.get("SQUEEZE_HOSTS") or HERE / "none").resolve()
    known = [
        Host("ada", root / "stylegan2-ada-pytorch", "training.networks", False, "generate.py"),
        Host("ggdr", root / "GGDR", "training.networks_ggdr", False, "generate.py", {"decoder_res": 32}),
        Host("stylegan3", root / "stylegan3", "training.networks_stylegan2", True, "gen_images.py"),
        Host("projected-gan", root / "projected-gan", "pg_modules.networks_stylegan2", True, "gen_images.py", None),
        Host("eg3d", root / "eg3d" / "eg3d", "training.networks_stylegan2", True),
    ]
    return [host for host in known if (host.folder / "torch_utils").is_dir()]


def all_hosts() -> List[Host]:
    return [draggan(), *checkouts()]
