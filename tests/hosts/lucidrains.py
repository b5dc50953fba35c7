"""lucidrains' stylegan2-pytorch: a generator that takes styles and one noise image, its mapping network beside it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Dict, Iterator, Tuple

import torch

from tests.hosts import Host, on_path, package

LUCIDRAINS = "stylegan2_pytorch"
#: what its networks compute with; they depend on nothing else that is not installed
NEEDED = ("kornia", "einops")
#: what these import for training, data sets, files and logging, none of which the tests use
UNUSED = {
    "aim": (),
    "fire": (),
    "kornia_rs": (),
    "tqdm": ("tqdm",),
    "torchvision": ("transforms",),
    "vector_quantize_pytorch": ("VectorQuantize",),
}


@dataclass
class LucidrainsHost(Host):
    """Generators are ``ModuleDict({"S": mapping network, "G": generator})``."""

    flat: bool = True
    family: str = "lucidrains"

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """With the packages it computes with on the path, and importable on machines without CUDA."""
        with on_path(str(package(project)) for project in NEEDED), super().active():
            if self.networks not in sys.modules:
                _import_without_cuda(self.networks)
            yield

    def generator(
        self,
        resolution: int = 32,
        c_dim: int = 0,
        w_dim: int = 32,
        layers: int = 2,
        channel_base: int = 512,
        channel_max: int = 32,
        **kwargs: Any,
    ) -> Any:
        """min(channel_max, channel_base / resolution) channels in the last block, twice as many in each before."""
        if c_dim:
            raise ValueError("this host has no classes: c_dim has to be 0")
        module = importlib.import_module(self.networks)
        capacity = channel_base // (2 * resolution)
        G = module.Generator(resolution, w_dim, network_capacity=capacity, fmap_max=channel_max, **kwargs)
        return torch.nn.ModuleDict({"S": module.StyleVectorizer(w_dim, layers, lr_mul=0.1), "G": G})

    def wrapper(self, resolution: int = 32, **kwargs: Any) -> Any:
        """The training wrapper StyleGAN2, small, on the CPU."""
        module = importlib.import_module(self.networks)
        settings = {"latent_dim": 32, "style_depth": 2, "network_capacity": 4, **kwargs}
        cuda = torch.nn.Module.cuda
        torch.nn.Module.cuda = lambda self, device=None: self  # type: ignore[assignment,method-assign]
        try:
            return module.StyleGAN2(resolution, **settings)
        finally:
            torch.nn.Module.cuda = cuda  # type: ignore[method-assign]

    def latents(self, G: Any, n: int = 3, seed: int = 2) -> Tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(n, G["G"].latent_dim, generator=torch.Generator().manual_seed(seed)), torch.zeros(n, 0)

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor, noise: str = "const", truncation: float = 1) -> Any:
        """``noise`` "none" is the mean of the uniform numbers."""
        return G["G"](self.styles(G, z) * truncation, self.noise(G, len(z), noise))

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        calls = {kind: self.images(G, z, c, kind) for kind in ("const", "none", "random")}
        mixed = self.styles(G, z) * torch.linspace(0.5, 1, G["G"].num_layers)[:, None]
        return {**calls, "styles of their own for every layer": G["G"](mixed, self.noise(G, len(z)))}

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Any:
        ws = self.styles(G, z)
        return ws, G["G"](ws, self.noise(G, len(z)))

    def styles(self, G: Any, z: torch.Tensor) -> torch.Tensor:
        """[n, layers, w_dim]."""
        return G["S"](z)[:, None].repeat(1, G["G"].num_layers, 1)

    def noise(self, G: Any, n: int, kind: str = "const") -> torch.Tensor:
        size = [n, G["G"].image_size, G["G"].image_size, 1]
        if kind == "none":
            return torch.full(size, 0.5)
        return torch.rand(size, generator=torch.Generator().manual_seed(4) if kind == "const" else None)


def _import_without_cuda(name: str) -> None:
    """Its module asserts that there is CUDA, which its networks do not need."""
    stand_ins: Dict[str, ModuleType] = {}
    for package_name, attributes in UNUSED.items():
        stand_ins[package_name] = ModuleType(package_name)
        for attribute in attributes:
            setattr(stand_ins[package_name], attribute, None)
    before = {package_name: sys.modules.get(package_name) for package_name in stand_ins}
    available = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    sys.modules.update(stand_ins)
    try:
        importlib.import_module(name)
    finally:
        torch.cuda.is_available = available
        for package_name, module in before.items():
            if module is None:
                del sys.modules[package_name]
            else:
                sys.modules[package_name] = module


def lucidrains() -> LucidrainsHost:
    return LucidrainsHost("lucidrains", package(LUCIDRAINS), "stylegan2_pytorch.stylegan2_pytorch")
