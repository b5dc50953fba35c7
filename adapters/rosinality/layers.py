"""Layers of a flat generator in other sizes, built with the host's own classes."""

from __future__ import annotations

import inspect
from typing import Any, Dict, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.content import BlockShape
from squeeze_patch.adapters.layers import all_tensors, copy_flags
from squeeze_patch.adapters.rosinality.block import FlatBlock
from squeeze_patch.adapters.rosinality.layout import Layout, blur_of, get
from squeeze_patch.errors import StateError, UnsupportedModelError

#: attributes of a modulated convolution, and of an activation, that users change behind the constructor's back
_BEHAVIOUR = {"modulated": ("fused", "demodulate", "eps"), "activate": ("negative_slope", "scale")}
#: {parameter of a constructor of convolution layers: value that makes an up-convolution}
_UPSAMPLING = {"upsample": True, "sample_mode": "upsample"}

#: {parameter of a layer: {dimension: whether "inputs" or "outputs" of the layer lie along it}}
Places = Mapping[str, Mapping[int, str]]


def resized_layers(block: FlatBlock, layout: Layout, shape: BlockShape) -> Tuple[Any, Any, Any]:
    """Layers of the host's classes for a block of another shape, fresh and random: the constant or the up-convolution,
    which is the block's own where its size stays, conv1, and toRGB."""
    paths, first = block.layer_paths, block.first
    if paths.up is None:
        if get(first, layout.const.rpartition(".")[2]).shape[1] != shape.inner:
            first = _resized_constant(first, layout, shape.inner)
    elif tuple(getattr(first, layout.modulated).weight.shape[1:3]) != (shape.inner, shape.inputs):
        first = resized_conv(first, layout, shape.inputs, shape.inner, paths.up, upsamples=True)
    conv1 = resized_conv(block.conv1, layout, shape.inner, shape.width, paths.conv1)
    return first, conv1, resized_torgb(block.torgb, layout, shape.width, paths.torgb)


def resized_conv(layer: Any, layout: Layout, inputs: int, outputs: int, where: str, *, upsamples: bool = False) -> Any:
    """A new layer of the same class; the filter of an up-convolution is the old layer's."""
    old = getattr(layer, layout.modulated)
    arguments = (inputs, outputs, old.weight.shape[3], old.modulation.weight.shape[1])
    new = _construct(layer, where, *arguments, **(_upsampling(layer, where) if upsamples else {}))
    blur = blur_of(old)
    for name, part in vars(old)["_modules"].items():
        if part is blur and blur is not None:
            setattr(getattr(new, layout.modulated), name, blur)
    _check_shapes(new, layer, conv_places(layer, layout), {"inputs": inputs, "outputs": outputs}, where)
    for name in _BEHAVIOUR["activate"]:
        if hasattr(getattr(layer, "activate", None), name):
            setattr(new.activate, name, getattr(layer.activate, name))
    _follow(new, layer, layout)
    return new


def resized_torgb(layer: Any, layout: Layout, width: int, where: str) -> Any:
    """A new layer of the same class with ``width`` inputs; the upsampling of the image is the old layer's."""
    upsample = getattr(layer, "upsample", None)
    w_dim = getattr(layer, layout.modulated).modulation.weight.shape[1]
    of_its_own = [layer.img_channels] if hasattr(layer, "img_channels") else []  # hosts know three only
    new = _construct(layer, where, width, w_dim, bool(upsample), *of_its_own)
    if isinstance(upsample, torch.nn.Module):
        new.upsample = upsample
    _check_shapes(new, layer, torgb_places(layout), {"inputs": width}, where)
    _follow(new, layer, layout)
    return new


def _resized_constant(holder: Any, layout: Layout, channels: int) -> Any:
    """A copy of the module that holds the constant, which knows no sizes, with the very hooks of that one."""
    cls: Any = type(holder)
    new = cls.__new__(cls)
    vars(new).update(vars(holder))
    for table in ("_parameters", "_buffers", "_modules"):
        vars(new)[table] = vars(holder)[table].copy()
    name = layout.const.rpartition(".")[2]
    old = getattr(holder, name)
    made = torch.randn([1, channels, *old.shape[2:]], device=old.device, dtype=old.dtype)
    own = isinstance(old, torch.nn.Parameter)
    setattr(new, name, torch.nn.Parameter(made, requires_grad=old.requires_grad) if own else made)
    return new


def _upsampling(layer: Any, where: str) -> Dict[str, Any]:
    parameters = inspect.signature(type(layer)).parameters
    known = {name: value for name, value in _UPSAMPLING.items() if name in parameters}
    if not known:
        raise UnsupportedModelError(
            f"{where}: {type(layer).__name__} has no {' and no '.join(_UPSAMPLING)} to build another up-convolution "
            "by; its host needs an adapter of its own, or a plan that leaves up-convolutions as they are "
            "(method='squeeze')"
        )
    return known


def _construct(layer: Any, where: str, *arguments: Any, **named: Any) -> Any:
    try:
        return type(layer)(*arguments, **named)
    except Exception as error:
        raise UnsupportedModelError(
            f"{where}: {type(layer).__name__}{arguments} cannot be built as this family's layers are "
            f"({type(error).__name__}: {error}); its host needs an adapter of its own"
        ) from error


def _check_shapes(new: torch.nn.Module, old: torch.nn.Module, places: Places, sizes: Dict[str, int], at: str) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in all_tensors(old).items()}
    for name, dims in places.items():
        for dim, which in dims.items():
            wanted[name][dim] = sizes[which]
    if {name: list(tensor.shape) for name, tensor in all_tensors(new).items()} != wanted:
        raise UnsupportedModelError(
            f"{at}: {type(new).__name__} builds other parameters than this family's layers; its host needs an adapter "
            "of its own"
        )


def _follow(new: torch.nn.Module, old: torch.nn.Module, layout: Layout) -> None:
    for name in _BEHAVIOUR["modulated"]:
        if hasattr(getattr(old, layout.modulated), name):
            setattr(getattr(new, layout.modulated), name, getattr(getattr(old, layout.modulated), name))
    copy_flags(new, old, getattr(old, layout.modulated).weight)


def refuse_extras(old: torch.nn.Module, new: torch.nn.Module, where: str) -> None:
    """Raise `StateError` where modules in ``old`` have attributes or children of the user's, which those in ``new``
    lack."""
    others = dict(new.named_modules())
    for path, module in old.named_modules():
        more = sorted(set(vars(module)) - set(vars(others[path]))) if path in others else [type(module).__name__]
        if more:
            raise StateError(
                f"{where}{'.' if path else ''}{path} holds {', '.join(more)}, which the layer that takes its place "
                "would not have; remove it, and add it anew afterwards"
            )


def conv_places(layer: torch.nn.Module, layout: Layout) -> Dict[str, Dict[int, str]]:
    """Of a convolution layer."""
    inner, bias = layout.modulated, 0 if get(layer, layout.bias).ndim == 1 else 1
    styles = {f"{inner}.modulation.{name}": {0: "inputs"} for name in ("weight", "bias")}
    return {f"{inner}.weight": {1: "outputs", 2: "inputs"}, layout.bias: {bias: "outputs"}, **styles}


def torgb_places(layout: Layout) -> Dict[str, Dict[int, str]]:
    """Of a toRGB layer."""
    inner = layout.modulated
    styles = {f"{inner}.modulation.{name}": {0: "inputs"} for name in ("weight", "bias")}
    return {f"{inner}.weight": {2: "inputs"}, **styles}


def kept_places(places: Places, **kept: Optional[torch.Tensor]) -> Dict[str, Dict[int, torch.Tensor]]:
    """{parameter: {dimension: indices that stay}}, of parameters of which a part stays; None = all."""
    found = {
        name: {dim: index for dim, which in dims.items() for index in [kept.get(which)] if index is not None}
        for name, dims in places.items()
    }
    return {name: dims for name, dims in found.items() if dims}
