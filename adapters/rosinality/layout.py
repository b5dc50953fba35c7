"""Generators of one flat list of layers, whose forward stays untouched: where their layers are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import torch

from squeeze_patch.adapters.layers import class_named, value
from squeeze_patch.errors import UnsupportedModelError

#: of the noise of a generator that stores none
NOISE_SEED = 0


@dataclass(frozen=True)
class Layout:
    """Names of one lineage of flat generators.

    Attributes:
        host: where the lineage is from, and its class, in words.
        classes: names of the generator class.
        const: parameter [1, c, 4, 4].
        first_conv: the convolution at 4x4; its toRGB is ``to_rgb1`` everywhere.
        convs: list of the others: up-convolution, conv1, up-convolution, conv1, ...; toRGBs are in ``to_rgbs``.
        mapping: z -> w.
        modulated: the modulated convolution inside a conv or toRGB layer.
        noise: noise strength [1] of a conv layer.
        bias: of a conv layer, [c] or [1, c, 1, 1].
        stored_noise: prefix of the names of its noise buffers, which are numbered from 0.
        plain_upsampling: upsamples bilinearly, then convolves, where the others use a transposed convolution and a
            blur; the convolution's output is multiplied with sqrt(2) ahead of noise and bias instead of behind them.
    """

    host: str
    classes: Tuple[str, ...]
    const: str
    first_conv: str
    convs: str
    mapping: str
    modulated: str
    noise: str
    bias: str
    stored_noise: str = "noises.noise"
    plain_upsampling: bool = False


ROSINALITY = Layout(
    "rosinality's Generator",
    ("Generator",),
    "input.input",
    "conv1",
    "convs",
    "style",
    "conv",
    noise="noise.weight",
    bias="activate.bias",
    stored_noise="noises.noise_",
)
_BASICSR = ("constant_input.weight", "style_conv1", "style_convs", "style_mlp", "modulated_conv")
BASICSR = Layout(
    "basicsr's StyleGAN2Generator", ("StyleGAN2Generator",), *_BASICSR, noise="weight", bias="activate.bias"
)
CLEAN = Layout(
    "gfpgan's StyleGAN2GeneratorClean",
    ("StyleGAN2GeneratorClean",),
    *_BASICSR,
    noise="weight",
    bias="bias",
    plain_upsampling=True,
)
LAYOUTS = (ROSINALITY, BASICSR, CLEAN)


def layout_of(module: Any) -> Optional[Layout]:
    """The lineage that a generator belongs to, by class name and by the names of its parts; None = no generator."""
    for layout in LAYOUTS:
        named = any(class_named(module, name) for name in layout.classes)
        holder, const = layout.const.split(".")
        parts = (layout.first_conv, "to_rgb1", layout.mapping)
        lists = (layout.convs, "to_rgbs")
        if (
            named
            and isinstance(getattr(getattr(module, holder, None), const, None), torch.Tensor)
            and all(isinstance(getattr(module, part, None), torch.nn.Module) for part in parts)
            and all(isinstance(getattr(module, part, None), torch.nn.ModuleList) for part in lists)
        ):
            return layout
    return None


def known_layout(network: torch.nn.Module) -> Layout:
    """Of a generator that an adapter has found."""
    layout = layout_of(network)
    assert layout is not None
    return layout


@dataclass(frozen=True)
class LayerPaths:
    """Where the layers of one resolution are: module paths within the generator.

    ``sides`` are (height, width) where they differ; ``up`` is None in the first, which has ``constant`` instead, the
    module that holds the constant; ``reader`` is the next resolution's up-convolution, None in the last one.
    """

    resolution: int
    sides: Optional[Tuple[int, int]]
    up: Optional[str]
    conv1: str
    torgb: str
    reader: Optional[str]
    constant: Optional[str]


def layer_paths(network: Any, layout: Layout) -> List[LayerPaths]:
    """Of all resolutions, ascending. The name of a block is the path of its conv1."""
    count = len(network.to_rgbs)
    height, width = get(network, layout.const).shape[2:]
    ups = [None, *(f"{layout.convs}.{2 * k}" for k in range(count))]
    convs = [layout.first_conv, *(f"{layout.convs}.{2 * k + 1}" for k in range(count))]
    rgbs = ["to_rgb1", *(f"to_rgbs.{k}" for k in range(count))]
    readers = [*ups[1:], None]
    constants = [layout.const.rpartition(".")[0], *[None] * count]
    sides = [None if height == width else (height * 2**k, width * 2**k) for k in range(count + 1)]
    columns = zip(sides, ups, convs, rgbs, readers, constants)
    return [LayerPaths(height * 2**k, *paths) for k, paths in enumerate(columns)]


def get(root: Any, path: str) -> Any:
    """The attribute at a dotted path; '' is ``root``."""
    for name in filter(None, path.split(".")):
        root = getattr(root, name)
    return root


def filter_of(up: Any, layout: Layout) -> Optional[torch.Tensor]:
    """The filter behind an up-convolution, its gain of four included; None where it has none."""
    kernel = getattr(blur_of(getattr(up, layout.modulated)), "kernel", None)
    return value(kernel) if isinstance(kernel, torch.Tensor) else None


def blur_of(modulated: Any) -> Any:
    """The module that filters what a modulated convolution has upsampled, None where there is none."""
    return getattr(modulated, "blur", getattr(modulated, "smooth", None))


def find_layer_paths(network: torch.nn.Module, name: str) -> LayerPaths:
    """Of the block of that name."""
    return next(paths for paths in layer_paths(network, known_layout(network)) if paths.conv1 == name)


def stored_noise(network: Any) -> List[torch.Tensor]:
    """The generator's own noise inputs [1, 1, R, R], one a convolution, in running order; of one that has none, as old
    files do not, some that are the same every time.

    Raises:
        UnsupportedModelError: it does not have one for every convolution.
    """
    found = dict(network.noises.named_buffers())
    wanted = len(zero_noise(network))
    if not found:
        return _drawn_noise(network)
    if len(found) != wanted:
        raise UnsupportedModelError(
            f"{type(network).__name__} has {len(found)} stored noise maps for {wanted} convolutions. Without noise "
            "(noise_mode='none', compare --noise none) it can be run"
        )
    return [found[name] for name in sorted(found, key=lambda name: int(re.sub(r"\D", "", name)))]


def _drawn_noise(network: torch.nn.Module) -> List[torch.Tensor]:
    layout, random = known_layout(network), torch.Generator().manual_seed(NOISE_SEED)
    const = get(network, layout.const)
    height, width = const.shape[2:]
    sides = [2 ** ((index + 1) // 2) for index in range(len(zero_noise(network)))]
    return [torch.randn([1, 1, height * k, width * k], generator=random).to(const) for k in sides]


def zero_noise(network: torch.nn.Module) -> List[torch.Tensor]:
    """Noise inputs of zero, one a convolution."""
    layout = known_layout(network)
    return [get(network, layout.const).new_zeros([1, 1, 1, 1])] * (2 * len(layer_paths(network, layout)) - 1)
