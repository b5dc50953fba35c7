"""Real hosts: where they are, how their networks are built, and how several live in one process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import torch

from tests.hosts.published import HERE, package
from tests.processes import environment_with

#: stands in for what this Python lacks and the hosts import
SHIMS = [] if importlib.util.find_spec("pkg_resources") else [str(HERE / "shims")]
DRAGGAN = "draggan"

#: top-level modules that every host brings under the same names
CLASHING = ("dnnlib", "torch_utils", "training", "legacy", "metrics", "pg_modules", "generate")
CLASHING += ("model", "op", "stylegan2", "basicsr", "gfpgan", "stylegan2_pytorch")
CLASHING += ("pkg_resources",) if SHIMS else ()  # others would take the stand-in for the whole


@contextlib.contextmanager
def on_path(folders: Iterable[str]) -> Iterator[None]:
    """Let modules be imported from these folders, ahead of all others."""
    paths = list(folders)
    sys.path[:0] = paths
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)


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
    family: str = "nvidia"

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make this host's modules the importable ones; those of other hosts are set aside."""
        outer = take_clashing()
        sys.modules.update(self.modules)
        try:
            with on_path([str(self.folder), *SHIMS]):
                yield
        finally:
            self.modules = take_clashing()
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

    def sized(self, resolution: int, channel_base: int, layers: int) -> Any:
        """A generator of the papers' sizes."""
        return self.generator(resolution, w_dim=512, layers=layers, channel_base=channel_base, channel_max=512)

    def latents(self, G: Any, n: int = 3, seed: int = 2) -> Tuple[torch.Tensor, torch.Tensor]:
        """(z [n, z_dim], c [n, c_dim] one-hot)."""
        random = torch.Generator().manual_seed(seed)
        c = torch.zeros(n, G.c_dim)
        if G.c_dim:
            c[torch.arange(n), torch.arange(n) % G.c_dim] = 1
        return torch.randn(n, G.z_dim, generator=random), c

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor, noise: str = "const", truncation: float = 1) -> Any:
        """Images [n, 3, R, R]; ``noise`` is "const" (the stored one), "none" or "random"."""
        return G(z, c, noise_mode=noise, truncation_psi=truncation)

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Images by every way of calling a generator of this family; random ones by torch's random numbers."""
        settings: Dict[str, Dict[str, Any]] = {
            "stored noise": {"noise_mode": "const"},
            "no noise, truncation": {"noise_mode": "none", "truncation_psi": 0.5},
            "truncation of some layers": {"noise_mode": "const", "truncation_psi": 0.7, "truncation_cutoff": 3},
            "random noise": {"noise_mode": "random"},
        }
        return {name: G(z, c, **setting) for name, setting in settings.items()}

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Any:
        """(styles, images made of them), as path length regularisation wants them."""
        ws = G.mapping(z, c)
        return ws, G.synthesis(ws, noise_mode="const")

    def discriminator(self, resolution: int = 32, c_dim: int = 0, img_channels: int = 3, **kwargs: Any) -> Any:
        sizes = {"channel_base": 512, "channel_max": 32, **(self.discriminator_kwargs or {}), **kwargs}
        if "decoder_res" in sizes:
            sizes["decoder_res"] = min(sizes["decoder_res"], resolution)
        return importlib.import_module(self.networks).Discriminator(
            c_dim=c_dim, img_resolution=resolution, img_channels=img_channels, **{"num_fp16_res": 0, **sizes}
        )

    def environment(self) -> Dict[str, str]:
        """For a process of the host's own, without squeeze_patch on the path."""
        return environment_with(self.folder, *SHIMS)


def take_clashing() -> Dict[str, ModuleType]:
    names = [name for name in sys.modules if name.split(".")[0] in CLASHING]
    return {name: sys.modules.pop(name) for name in names}


def draggan() -> Host:
    """NVIDIA's networks as draggan ships them."""
    return Host("draggan", package(DRAGGAN) / "draggan" / "stylegan2", "training.networks", flat=False)


def checkouts() -> List[Host]:
    """The hosts that are present in the folder named by SQUEEZE_HOSTS."""
    root = _checkouts_folder()
    known = [
        Host("ada", root / "stylegan2-ada-pytorch", "training.networks", False, "generate.py"),
        Host("ggdr", root / "GGDR", "training.networks_ggdr", False, "generate.py", {"decoder_res": 32}),
        Host("stylegan3", root / "stylegan3", "training.networks_stylegan2", True, "gen_images.py"),
        Host("projected-gan", root / "projected-gan", "pg_modules.networks_stylegan2", True, "gen_images.py", None),
        Host("eg3d", root / "eg3d" / "eg3d", "training.networks_stylegan2", True),
    ]
    return [host for host in known if (host.folder / "torch_utils").is_dir()]


def forks() -> List[Host]:
    """Forks of those that are present there, too; their networks go through the contract suite."""
    root = _checkouts_folder()
    known = [
        Host("insgen", root / "insgen", "training.networks", False),
        Host("stylegan3-fun", root / "stylegan3-fun", "training.networks_stylegan2", True),
        Host("diffusion-stylegan2", root / "Diffusion-GAN" / "diffusion-stylegan2", "training.networks", False),
        Host("dvschultz", root / "dvschultz-stylegan2-ada-pytorch", "training.networks", False),
        Host("eps696", root / "eps696-stylegan2ada" / "src", "training.networks", False),
    ]
    return [host for host in known if (host.folder / "torch_utils").is_dir()]


def _checkouts_folder() -> Path:
    return Path(os.environ.get("SQUEEZE_HOSTS") or HERE / "none").resolve()


def nvidia_hosts() -> List[Host]:
    return [draggan(), *checkouts()]
