"""The rosinality family: stylegan2-pytorch by rosinality and its copies, basicsr's StyleGAN2Generator, and gfpgan's
StyleGAN2GeneratorClean. Their generators are one flat list of layers with one forward, which stays untouched.

What is patched, by its name in rosinality's Generator (basicsr and gfpgan: ``style_conv1`` for ``conv1``,
``style_convs`` for ``convs``, ``modulated_conv`` for ``conv`` inside a layer):

==========================  =================================================================================
``convs.{2k+1}``, ``conv1`` the second convolution of a resolution, the host's class: q outputs instead of c. Its
                            noise strength and modulation stay; weight and bias are the kept channels' rows
``to_rgbs.{k}``, ``to_rgb1``  toRGB, the host's class: q inputs instead of c; weight, modulation and bias are refitted
``convs.{2k}.excite``       new: `connection.Excite`, q -> c, applied to the input of the up-convolution that follows
                            the squeezed resolution; none behind the last resolution
everything else             untouched: mapping, constant, up-convolutions, noise buffers, the list API of latents
==========================  =================================================================================

Files: rosinality's ``.pt`` with ``g`` and ``g_ema``, basicsr's and gfpgan's ``.pth`` with ``params`` and
``params_ema``, or a bare state dict. The stand-ins for them (`flat_state`) assume what no tensor says: the mapping
network's ``lr_mlp`` of 0.01 (gfpgan's has none; other magnitudes are refused), and basicsr's ``resample_kernel`` of
[1, 3, 3, 1]. gfpgan's StyleGAN2GeneratorBilinear has the very names and shapes of basicsr's StyleGAN2Generator, for
which it is taken in a file. Restoration networks around a generator (``stylegan_decoder.*``) are refused as files.

A block's name in plans and messages is the path of its second convolution.

Limits: copies of a squeezed generator and pickles of it need squeeze_patch installed; calling a layer's ``forward``
method by hand passes excite by, as it does any hook. A trained start wants a square constant, demodulated convolutions
and blur kernels of four taps. Generators whose layers have other constructors than ``(in, out, kernel size, style
dimension)`` and ``(in, style dimension, upsample)`` are refused.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.content import Affine, BlockSpec, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.adapters.interchange import resolutions, widths
from squeeze_patch.adapters.layers import fill_excite, is_parametrised, refuse_hooks, value
from squeeze_patch.adapters.rosinality import interchange as rosinality_exchange
from squeeze_patch.adapters.rosinality import states as flat_state
from squeeze_patch.adapters.rosinality.layers import conv_channels, narrow_conv, narrow_torgb, torgb_channels
from squeeze_patch.adapters.rosinality.layout import (
    LAYOUTS,
    FlatBlock,
    Layout,
    Place,
    filter_of,
    get,
    known_layout,
    layout_of,
    places,
    read_block,
    write_block,
)
from squeeze_patch.adapters.rosinality.running import RunsFlat
from squeeze_patch.connection import Excite
from squeeze_patch.errors import UnsupportedModelError

_FIR = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


class RosinalityAdapter(RunsFlat):
    """Replaces the second convolution and toRGB of every resolution; ``network`` is the generator itself."""

    name = "rosinality"
    saves_states = True
    roles = MappingProxyType({"g": "G", "g_ema": "G_ema", "params": "G", "params_ema": "G_ema"})

    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        return [module for module in root.modules() if layout_of(module) and _complaint(module) is None]

    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        return next((_complaint(module) for module in root.modules() if layout_of(module)), None)

    def specs(self, network: torch.nn.Module) -> List[BlockSpec]:
        return [_spec(network, place) for place in _places(network)]

    def block(self, network: torch.nn.Module, name: str) -> FlatBlock:
        return read_block(network, _place(network, name))

    def put(self, network: torch.nn.Module, name: str, block: Any) -> None:
        write_block(network, block)

    def dense_block(self, network: Any, name: str) -> DenseBlock:
        layout, place = known_layout(network), _place(network, name)
        const = get(network, layout.const)
        if const.shape[2] != const.shape[3]:
            raise UnsupportedModelError(
                f"{layout.const} is {const.shape[2]}x{const.shape[3]}; a trained start wants square images. "
                "Use init='random' and train"
            )
        rgb = get(network, place.torgb)
        rgb_conv = getattr(rgb, layout.modulated)
        gain = _scale(rgb_conv)
        style = _affine(rgb_conv.modulation)
        up = get(network, place.up) if place.up else None
        return DenseBlock(
            spec=_spec(network, place),
            const=None if up else value(const)[0],
            conv0=_conv(up, layout, str(place.up)) if up else None,
            fir=_fir(up, layout, str(place.up)),
            conv1=_conv(get(network, place.conv1), layout, place.conv1),
            rgb_weight=value(rgb_conv.weight)[0, :, :, 0, 0],
            rgb_style=Affine(style.weight * gain, style.bias * gain),
            rgb_bias=value(rgb.bias).flatten(),
        )

    def build(self, network: torch.nn.Module, name: str, width: int) -> FlatBlock:
        layout, dense = known_layout(network), self.block(network, name)
        self.check_replaceable(dense, name)
        channels = _spec(network, dense.place).channels
        conv1 = narrow_conv(dense.conv1, layout, width, dense.place.conv1)
        torgb = narrow_torgb(dense.torgb, layout, width, dense.place.torgb)
        if dense.place.reader is None:
            return FlatBlock(dense.place, conv1, torgb)
        excite = Excite(width, channels)
        reference = getattr(dense.conv1, layout.modulated).weight
        excite.to(device=reference.device, dtype=reference.dtype).requires_grad_(reference.requires_grad)
        return FlatBlock(dense.place, conv1, torgb, excite.train(dense.training))

    def check_replaceable(self, block: Any, name: str) -> None:
        for child, path in block.paths.items():
            refuse_hooks(getattr(block, child), path)

    def fill(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        layout = _layout_of_conv(dense.conv1)
        with torch.no_grad():
            state = dense.conv1.state_dict()
            for name, dim in conv_channels(dense.conv1, layout).items():
                state[name] = state[name].index_select(dim, start.kept.to(state[name].device))
            new.conv1.load_state_dict(state)
            rgb_conv = getattr(new.torgb, layout.modulated)
            _write_affine(rgb_conv.modulation, start.rgb_style, _scale(rgb_conv))
            rgb_conv.weight.copy_(start.rgb_weight[None, :, :, None, None])
            new.torgb.bias.copy_(start.rgb_bias.reshape(new.torgb.bias.shape))
            fill_excite(getattr(new, "excite", None), start)

    def from_state(
        self, state: Mapping[str, torch.Tensor], squeezed: Optional[Collection[str]] = None
    ) -> Optional[torch.nn.Module]:
        return flat_state.from_state(state, squeezed)

    def dense_like(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        """Made without the generator's constructor: the layers' classes build full ones as they build narrow ones."""
        layout = known_layout(network)
        dense: torch.nn.Module = copy.deepcopy(network)
        for place, spec in zip(_places(network), self.specs(network)):
            if spec.width is not None:
                conv1 = narrow_conv(get(dense, place.conv1), layout, spec.channels, place.conv1)
                del conv1.squeezed
                torgb = narrow_torgb(get(dense, place.torgb), layout, spec.channels, place.torgb)
                write_block(dense, FlatBlock(place, conv1, torgb))
        self.unmark(dense, dense)
        return dense

    def to_common(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.Tensor]:
        return rosinality_exchange.to_common(network)

    def from_common(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        found = rosinality_exchange.to_state(state)
        sizes = resolutions(state)
        paths = ["conv1", *(f"convs.{2 * k + 1}" for k in range(len(sizes) - 1))]
        squeezed = [path for size, path in zip(sizes, paths) if size in widths(state)]
        body = flat_state.from_state(found, squeezed)
        assert body is not None  # it has all of the names that tell the family
        return body

    def pack(self, generators: Mapping[str, torch.nn.Module], w_avg: torch.Tensor) -> Dict[str, Any]:
        return rosinality_exchange.pack(generators, w_avg)

    def built_by(self, state: Mapping[str, torch.Tensor]) -> str:
        return rosinality_exchange.arguments(state)

    def kept_entries(
        self, network: torch.nn.Module, kept: Mapping[str, torch.Tensor]
    ) -> Dict[str, Tuple[int, torch.Tensor]]:
        layout, entries = known_layout(network), {}
        for name, channels in kept.items():
            place = _place(network, name)
            for layer, dims in (
                (place.conv1, conv_channels(get(network, place.conv1), layout)),
                (place.torgb, torgb_channels(layout)),
            ):
                entries.update({f"{layer}.{parameter}": (dim, channels) for parameter, dim in dims.items()})
        return entries

    def hook_generators(self, folder: Path, squeeze: Callable[[torch.nn.Module], Any]) -> bool:
        if not (folder / "model.py").is_file():
            return False
        generator_class = getattr(importlib.import_module("model"), "Generator", None)
        if not isinstance(generator_class, type):
            return False
        build = generator_class.__init__  # type: ignore[misc]

        @functools.wraps(build)
        def build_squeezed(self: Any, *args: Any, **kwargs: Any) -> None:
            build(self, *args, **kwargs)
            whole = type(self) is generator_class  # a subclass goes on building
            if whole:
                squeeze(self)

        generator_class.__init__ = build_squeezed  # type: ignore[misc]
        return True


def _layout_of_conv(layer: torch.nn.Module) -> Layout:
    """By a convolution's own parameters; lineages that they do not tell apart have the same layers."""
    names = dict(layer.named_parameters())
    return next(layout for layout in LAYOUTS if {layout.noise, layout.bias, f"{layout.modulated}.weight"} <= set(names))


def _places(network: torch.nn.Module) -> List[Place]:
    return places(network, known_layout(network))


def _place(network: torch.nn.Module, name: str) -> Place:
    return next(place for place in _places(network) if place.conv1 == name)


def _spec(network: torch.nn.Module, place: Place) -> BlockSpec:
    layout = known_layout(network)
    conv1 = get(network, place.conv1)
    weight = getattr(conv1, layout.modulated).weight
    return BlockSpec(
        name=place.conv1,
        resolution=place.resolution,
        in_channels=getattr(get(network, place.up), layout.modulated).weight.shape[2] if place.up else 0,
        channels=weight.shape[2],
        width=weight.shape[1] if getattr(conv1, "squeezed", False) else None,
        w_dim=getattr(conv1, layout.modulated).modulation.weight.shape[1],
        img_channels=getattr(get(network, place.torgb), layout.modulated).weight.shape[1],
        kernel_size=weight.shape[3],
        is_last=place.reader is None,
    )


def _complaint(network: Any) -> Optional[str]:
    """Why a generator of this family cannot be squeezed, or None."""
    layout = known_layout(network)
    convs = getattr(network, layout.convs)
    if len(convs) != 2 * len(network.to_rgbs):
        return f"{layout.convs} has {len(convs)} layers and to_rgbs {len(network.to_rgbs)}; it should be twice as many"
    channels = get(network, layout.const).shape[1]
    for place in places(network, layout):
        for path in filter(None, (place.up, place.conv1, place.torgb)):
            layer = get(network, path)
            wanted = {f"{layout.modulated}.{name}" for name in ("weight", "modulation.weight", "modulation.bias")}
            wanted |= {"bias"} if path == place.torgb else {layout.noise, layout.bias}
            modulated = getattr(layer, layout.modulated, None)
            layers = [part for part in (modulated, getattr(modulated, "modulation", None)) if part is not None]
            if any(map(is_parametrised, layers)):
                return f"{path} computes its weights from others (a parametrization?); remove that first"
            missing = wanted - set(dict(layer.named_parameters()))
            if missing:
                return f"{path} ({type(layer).__name__}) has no parameter {' and no '.join(sorted(missing))}"
        conv1, torgb = (getattr(get(network, path), layout.modulated).weight for path in (place.conv1, place.torgb))
        fits = conv1.ndim == 5
        if place.up:
            up = getattr(get(network, place.up), layout.modulated).weight
            fits, channels = fits and up.ndim == 5 and up.shape[2] == channels, up.shape[1]
        squeezed = getattr(get(network, place.conv1), "squeezed", False)
        fits = fits and conv1.shape[2] == channels and (squeezed or conv1.shape[1] == channels)
        if not fits or torgb.shape[2:] != (conv1.shape[1], 1, 1):
            return f"the shapes of {place.conv1} and {place.torgb} do not belong to a StyleGAN2 generator"
    return None


def _scale(layer: Any) -> float:
    """The gain that a layer's weight gets at run time; gfpgan's layers have none."""
    return float(getattr(layer, "scale", 1.0))


def _affine(layer: Any) -> Affine:
    return Affine(value(layer.weight) * _scale(layer), value(layer.bias) * float(getattr(layer, "lr_mul", 1.0)))


def _write_affine(layer: Any, style: Affine, gain: float) -> None:
    layer.weight.copy_(style.weight / (_scale(layer) * gain))
    layer.bias.copy_(style.bias / (float(getattr(layer, "lr_mul", 1.0)) * gain))


def _conv(layer: Any, layout: Layout, where: str) -> ConvWeights:
    modulated = getattr(layer, layout.modulated)
    slope = getattr(layer.activate, "negative_slope", None)
    if not getattr(modulated, "demodulate", True) or slope is None:
        what = f"activation {type(layer.activate).__name__}" if slope is None else "no demodulation"
        raise UnsupportedModelError(
            f"{where} has {what}; a trained start knows demodulated layers with leaky ReLU. Use init='random' and train"
        )
    weight, bias, noise = value(modulated.weight)[0], value(get(layer, layout.bias)).flatten(), get(layer, layout.noise)
    strength, gain = noise.detach().item(), float(getattr(layer.activate, "scale", math.sqrt(2)))
    if layout.plain_upsampling:  # leaky ReLU commutes with its gain: bring it behind noise and bias
        bias, strength = bias / gain, strength / gain
        if getattr(modulated, "sample_mode", None) == "upsample":
            weight = weight.flip([2, 3])  # correlated with the upsampled image, not the kernel of a transposed one
    return ConvWeights(weight * _scale(modulated), _affine(modulated.modulation), bias, strength, float(slope), gain)


def _fir(up: Any, layout: Layout, where: str) -> torch.Tensor:
    """The filter of an up-convolution at gain one."""
    if up is None or layout.plain_upsampling:
        return _FIR
    kernel = filter_of(up, layout)
    if kernel is None or kernel.shape != (4, 4):
        raise UnsupportedModelError(
            f"{where} has no blur kernel of 4x4; a trained start knows no other. Use init='random' and train"
        )
    return kernel / kernel.sum()
