"""Hosts of the rosinality family: one flat generator, called with a list of latents, answering (image, latents)."""

from __future__ import annotations

import contextlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Tuple

import torch
import torch.utils.cpp_extension

from tests.hosts import DRAGGAN, HERE, Host, package

BASICSR = "basicsr"
GFPGAN = "gfpgan"


@dataclass
class FlatHost(Host):
    """``networks`` is the module of ``generator_class`` and, except in gfpgan, of ``discriminator_class``."""

    flat: bool = True
    family: str = "rosinality"
    generator_class: str = "Generator"
    discriminator_class: str = "Discriminator"

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Without the compilation of CUDA operations that importing these hosts begins."""
        compile_operation = torch.utils.cpp_extension.load
        torch.utils.cpp_extension.load = lambda *_args, **_kwargs: None  # type: ignore[assignment]
        try:
            with super().active():
                yield
        finally:
            torch.utils.cpp_extension.load = compile_operation

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
        """min(channel_max, channel_base / resolution) channels, which the host itself does not offer."""
        if c_dim:
            raise ValueError("these hosts have no classes: c_dim has to be 0")
        host_class = getattr(importlib.import_module(self.networks), self.generator_class)

        class Narrow(host_class):  # type: ignore[misc,valid-type]
            def __setattr__(self, name: str, value: Any) -> None:
                if name == "channels":
                    value = {int(r): min(channel_max, channel_base // int(r)) for r in value}
                super().__setattr__(name, value)

        G = Narrow(resolution, w_dim, layers, **kwargs)
        G.__class__ = host_class
        return G

    def sized(self, resolution: int, channel_base: int, layers: int) -> Any:
        host_class = getattr(importlib.import_module(self.networks), self.generator_class)
        return host_class(resolution, 512, layers, channel_multiplier=channel_base // 16384)

    def latents(self, G: Any, n: int = 3, seed: int = 2) -> Tuple[torch.Tensor, torch.Tensor]:
        dimension = getattr(G, "style_dim", None) or G.num_style_feat
        return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed)), torch.zeros(n, 0)

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor, noise: str = "const", truncation: float = 1) -> Any:
        silence = [torch.zeros_like(n) for n in G.make_noise()] if noise == "none" else None
        center = torch.zeros(1, z.shape[1])
        image, latents = G(
            [z], truncation=truncation, truncation_latent=center, noise=silence, randomize_noise=noise == "random"
        )
        assert latents is None
        return image

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        other, _ = self.latents(G, seed=3)
        mapping = getattr(G, "style", None) or G.style_mlp
        w, center = mapping(z), mapping(other).mean(0, keepdim=True)
        fixed: Any = {"randomize_noise": False}
        return {
            "random noise": G([z])[0],
            "given noise": G([z], noise=[torch.ones_like(n) for n in G.make_noise()])[0],
            "w": G([w * 0.9], input_is_latent=True, **fixed)[0],
            "w+": G([w[:, None] * torch.linspace(0.5, 1, 2 * G.log_size - 2)[:, None]], input_is_latent=True, **fixed)[
                0
            ],
            "mixing": G([z, other], inject_index=3, **fixed)[0],
            "truncation": G([z], truncation=0.5, truncation_latent=center, **fixed)[0],
            "image and latents": G([z], return_latents=True, **fixed)[0],
            "latents": G([z], return_latents=True, **fixed)[1],
        }

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Any:
        image, latents = G([z], return_latents=True, randomize_noise=False)
        return latents, image

    def discriminator(self, resolution: int = 8, c_dim: int = 0, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(self.networks), self.discriminator_class)(resolution, **kwargs)


@dataclass
class BasicsrHost(FlatHost):
    """basicsr and gfpgan: only the module of the generator is imported, past what their packages bring along."""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        if not self.modules:
            self.modules = _bare_packages()
        with super().active():
            for name in ("basicsr.ops.fused_act.fused_act", "basicsr.archs.stylegan2_arch"):
                importlib.import_module(name).fused_leaky_relu = _fused_leaky_relu  # type: ignore[attr-defined]
            yield

    def generator(
        self,
        resolution: int = 32,
        c_dim: int = 0,
        w_dim: int = 32,
        layers: int = 2,
        channel_base: int = 0,
        channel_max: int = 32,
        **kwargs: Any,
    ) -> Any:
        """The host's own ``narrow``: channel_max channels at 4x4 to 64x64."""
        if c_dim:
            raise ValueError("these hosts have no classes: c_dim has to be 0")
        host_class = getattr(importlib.import_module(self.networks), self.generator_class)
        return host_class(resolution, w_dim, layers, narrow=channel_max / 512, **kwargs)


def _fused_leaky_relu(x: torch.Tensor, bias: torch.Tensor, slope: float = 0.2, scale: float = 2**0.5) -> torch.Tensor:
    """For the CPU, which basicsr has no such operation for."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    return torch.nn.functional.leaky_relu(x + bias.view(shape), slope) * scale


def _bare_packages() -> Dict[str, ModuleType]:
    """Packages whose __init__ imports what this Python lacks, without it, and the one function that gfpgan wants."""
    modules = {}
    for project, names in (
        (BASICSR, ("basicsr", "basicsr.archs", "basicsr.utils")),
        (GFPGAN, ("gfpgan", "gfpgan.archs")),
    ):
        for name in names:
            modules[name] = ModuleType(name)
            modules[name].__path__ = [str(package(project) / Path(*name.split(".")))]
    util = modules["basicsr.archs.arch_util"] = ModuleType("basicsr.archs.arch_util")
    util.default_init_weights = _init_weights  # type: ignore[attr-defined]
    return modules


def _init_weights(module: torch.nn.Module, scale: float = 1, bias_fill: float = 0, **kaiming: Any) -> None:
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight, **kaiming)
            layer.weight.data.mul_(scale)
            layer.bias.data.fill_(bias_fill)


def flat_hosts() -> List[FlatHost]:
    """draggan's copy, basicsr and gfpgan from PyPI; rosinality's repository where SQUEEZE_HOSTS has it."""
    deprecated = package(DRAGGAN) / "draggan" / "deprecated"
    archs = "gfpgan.archs.stylegan2_clean_arch"
    found: List[FlatHost] = [
        FlatHost("draggan-rosinality", deprecated, "stylegan2.model"),
        BasicsrHost(
            "basicsr",
            package(BASICSR),
            "basicsr.archs.stylegan2_arch",
            generator_class="StyleGAN2Generator",
            discriminator_class="StyleGAN2Discriminator",
        ),
        BasicsrHost(
            "gfpgan", package(GFPGAN), archs, generator_class="StyleGAN2GeneratorClean", discriminator_kwargs=None
        ),
    ]
    root = Path(os.environ.get("SQUEEZE_HOSTS") or HERE / "none").resolve()
    for name in ("rosinality-stylegan2-pytorch", "stylegan2-pytorch"):
        if (root / name / "op").is_dir():
            found.append(FlatHost("rosinality", root / name, "model", script="generate.py"))
            break
    return found


def optimiser_step(optimiser: torch.optim.Optimizer) -> None:
    """With gradients out of the air: real ones would say no more here."""
    for parameter in optimiser.param_groups[0]["params"]:
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
