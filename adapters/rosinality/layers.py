"""Narrower layers of a flat generator, built with the host's own classes."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import torch

from squeeze_patch.adapters.layers import copy_flags
from squeeze_patch.adapters.rosinality.layout import Layout, get
from squeeze_patch.errors import UnsupportedModelError

#: attributes of a modulated convolution, and of an activation, that users change behind the constructor's back
_BEHAVIOUR = {"modulated": ("fused", "demodulate", "eps"), "activate": ("negative_slope", "scale")}


def narrow_conv(layer: Any, layout: Layout, width: int, where: str) -> Any:
    """A new layer of the same class with ``width`` outputs."""
    old = getattr(layer, layout.modulated)
    _, _, channels, size, _ = old.weight.shape
    new = _construct(layer, where, channels, width, size, old.modulation.weight.shape[1])
    _check_shapes(new, layer, conv_channels(layer, layout), width, where)
    for name in _BEHAVIOUR["activate"]:
        if hasattr(getattr(layer, "activate", None), name):
            setattr(new.activate, name, getattr(layer.activate, name))
    _follow(new, layer, layout)
    new.squeezed = True
    return new


def narrow_torgb(layer: Any, layout: Layout, width: int, where: str) -> Any:
    """A new layer of the same class with ``width`` inputs; the upsampling of the image is the old layer's."""
    upsample = getattr(layer, "upsample", None)
    w_dim = getattr(layer, layout.modulated).modulation.weight.shape[1]
    of_its_own = [layer.img_channels] if hasattr(layer, "img_channels") else []  # hosts know three only
    new = _construct(layer, where, width, w_dim, bool(upsample), *of_its_own)
    if isinstance(upsample, torch.nn.Module):
        new.upsample = upsample
    _check_shapes(new, layer, torgb_channels(layout), width, where)
    _follow(new, layer, layout)
    return new


def _construct(layer: Any, where: str, *arguments: Any) -> Any:
    try:
        return type(layer)(*arguments)
    except Exception as error:
        raise UnsupportedModelError(
            f"{where}: {type(layer).__name__}{arguments} cannot be built as this family's layers are "
            f"({type(error).__name__}: {error}); its host needs an adapter of its own"
        ) from error


def _check_shapes(new: torch.nn.Module, old: torch.nn.Module, changed: Mapping[str, int], width: int, at: str) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in old.state_dict().items()}
    for name, dim in changed.items():
        wanted[name][dim] = width
    if {name: list(tensor.shape) for name, tensor in new.state_dict().items()} != wanted:
        raise UnsupportedModelError(
            f"{at}: {type(new).__name__} builds other parameters than this family's layers; its host needs an adapter "
            "of its own"
        )


def _follow(new: torch.nn.Module, old: torch.nn.Module, layout: Layout) -> None:
    for name in _BEHAVIOUR["modulated"]:
        if hasattr(getattr(old, layout.modulated), name):
            setattr(getattr(new, layout.modulated), name, getattr(getattr(old, layout.modulated), name))
    copy_flags(new, old, getattr(old, layout.modulated).weight)


def conv_channels(layer: torch.nn.Module, layout: Layout) -> Dict[str, int]:
    """{parameter of a second convolution: the dimension along which its outputs lie}."""
    return {f"{layout.modulated}.weight": 1, layout.bias: 0 if get(layer, layout.bias).ndim == 1 else 1}


def torgb_channels(layout: Layout) -> Dict[str, int]:
    """{parameter of a toRGB layer: the dimension along which its inputs lie}."""
    inner = layout.modulated
    return {f"{inner}.weight": 2, f"{inner}.modulation.weight": 0, f"{inner}.modulation.bias": 0}
