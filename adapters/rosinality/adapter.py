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
``params_ema``, or a bare state dict. The stand-ins for them (`states`) assume what no tensor says: the mapping
network's ``lr_mlp`` of 0.01 (gfpgan's has none; other magnitudes are refused), and basicsr's ``resample_kernel`` of
[1, 3, 3, 1]. gfpgan's StyleGAN2GeneratorBilinear has the very names and shapes of basicsr's StyleGAN2Generator, for
which it is taken in a file. Restoration networks around a generator (``stylegan_decoder.*``) are refused as files.

A block's name in plans and messages is the path of its second convolution.

Limits: copies of a squeezed generator and pickles of it need squeeze_patch installed; calling a layer's ``forward``
method by hand passes excite by, as it does any hook. A trained start wants demodulated convolutions
and blur kernels of four taps. Generators whose layers have other constructors than ``(in, out, kernel size, style
dimension)`` and ``(in, style dimension, upsample)`` are refused.
"""

from __future__ import annotations

import copy
import math
from types import MappingProxyType
from typing import Any, Callable, List, Optional

import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.adapters.layers import (
    class_named,
    fill_excite,
    is_parametrised,
    missing_tensors,
    refuse_hooks,
    value,
    width_alone,
)
from squeeze_patch.adapters.rosinality.fusing import RosinalityFusing
from squeeze_patch.adapters.rosinality.interchange import RosinalityInterchange
from squeeze_patch.adapters.rosinality.layers import conv_channels, narrow_conv, narrow_torgb
from squeeze_patch.adapters.rosinality.layout import (
    LAYOUTS,
    FlatBlock,
    LayerPaths,
    Layout,
    filter_of,
    find_layer_paths,
    get,
    known_layout,
    layer_paths,
    layout_of,
    read_block,
    write_block,
)
from squeeze_patch.adapters.rosinality.running import RosinalityRunning, sample_styles
from squeeze_patch.adapters.rosinality.states import DUAL, RosinalityStates
from squeeze_patch.connection import Excite
from squeeze_patch.errors import UnsupportedModelError

_FIR = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


class RosinalitySurgery(Surgery):
    """Replaces the second convolution and toRGB of every resolution; ``network`` is the generator itself."""

    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        if any(class_named(module, "DualStyleGAN") for module in root.modules()):
            return []
        return [module for module in root.modules() if layout_of(module) and _unsupported_reason(module) is None]

    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        if any(class_named(module, "DualStyleGAN") for module in root.modules()):
            return DUAL
        return next((_unsupported_reason(module) for module in root.modules() if layout_of(module)), None)

    def generator(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        return network

    def specs(self, network: torch.nn.Module) -> List[BlockSpec]:
        return [_spec(network, paths) for paths in _layer_paths(network)]

    def sample_w(self, root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
        return sample_styles(network, n, seed)

    def watch(self, network: torch.nn.Module, name: str, callback: Callable[[torch.Tensor], None]) -> Any:
        """At the input of the next up-convolution, behind the hook that applies excite there."""
        reader = get(network, str(find_layer_paths(network, name).reader))
        return reader.register_forward_pre_hook(lambda _module, inputs: callback(inputs[0]))

    def get_block(self, network: torch.nn.Module, name: str) -> FlatBlock:
        return read_block(network, find_layer_paths(network, name))

    def set_block(self, network: torch.nn.Module, name: str, block: Any) -> None:
        write_block(network, block)

    def dense_block(self, network: Any, name: str) -> DenseBlock:
        layout, paths = known_layout(network), find_layer_paths(network, name)
        const = get(network, layout.const)
        rgb = get(network, paths.torgb)
        rgb_conv = getattr(rgb, layout.modulated)
        gain = _scale(rgb_conv)
        style = _affine(rgb_conv.modulation)
        up = get(network, paths.up) if paths.up else None
        return DenseBlock(
            spec=_spec(network, paths),
            const=None if up else value(const)[0],
            conv0=_conv(up, layout, str(paths.up)) if up else None,
            fir=_fir(up, layout, str(paths.up)),
            conv1=_conv(get(network, paths.conv1), layout, paths.conv1),
            rgb_weight=value(rgb_conv.weight)[0, :, :, 0, 0],
            rgb_style=Affine(style.weight * gain, style.bias * gain),
            rgb_bias=value(rgb.bias).flatten(),
        )

    def build(self, network: torch.nn.Module, name: str, shape: BlockShape) -> FlatBlock:
        layout, dense = known_layout(network), self.get_block(network, name)
        width = width_alone(_spec(network, dense.layer_paths), shape, "rosinality")
        self.check_replaceable(dense, name)
        channels = _spec(network, dense.layer_paths).channels
        conv1 = narrow_conv(dense.conv1, layout, width, dense.layer_paths.conv1)
        torgb = narrow_torgb(dense.torgb, layout, width, dense.layer_paths.torgb)
        if dense.layer_paths.reader is None:
            return FlatBlock(dense.layer_paths, conv1, torgb)
        excite = Excite(width, channels)
        reference = getattr(dense.conv1, layout.modulated).weight
        excite.to(device=reference.device, dtype=reference.dtype).requires_grad_(reference.requires_grad)
        return FlatBlock(dense.layer_paths, conv1, torgb, excite.train(dense.training))

    def check_replaceable(self, block: Any, name: str) -> None:
        for child, path in block.paths.items():
            refuse_hooks(getattr(block, child), path)

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        layout = _layout_of_conv(dense.conv1)
        with torch.no_grad():
            state = dense.conv1.state_dict()
            for name, dim in conv_channels(dense.conv1, layout).items():
                state[name] = state[name].index_select(dim, start.kept.outputs.to(state[name].device))
            new.conv1.load_state_dict({name: state[name] for name in new.conv1.state_dict()})
            rgb_conv = getattr(new.torgb, layout.modulated)
            _write_affine(rgb_conv.modulation, start.rgb_style, _scale(rgb_conv))
            rgb_conv.weight.copy_(start.rgb_weight[None, :, :, None, None])
            new.torgb.bias.copy_(start.rgb_bias.reshape(new.torgb.bias.shape))
            fill_excite(getattr(new, "excite", None), start)

    def dense_like(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        """Made without the generator's constructor: the layers' classes build full ones as they build narrow ones."""
        layout = known_layout(network)
        dense: torch.nn.Module = copy.deepcopy(network)
        fusing = RosinalityFusing()
        for paths, spec in zip(_layer_paths(network), self.specs(network)):
            if spec.width is not None:
                fusing.set_fused(dense, spec.name, False, False)
                conv1 = narrow_conv(get(dense, paths.conv1), layout, spec.channels, paths.conv1)
                del conv1.squeezed
                torgb = narrow_torgb(get(dense, paths.torgb), layout, spec.channels, paths.torgb)
                write_block(dense, FlatBlock(paths, conv1, torgb))
        self.detach_plan(dense, dense)
        return dense


def _layout_of_conv(layer: torch.nn.Module) -> Layout:
    """By a convolution's own parameters; lineages that they do not tell apart have the same layers."""
    own = (layout for layout in LAYOUTS if not missing_tensors(layer, _own_names(layout)))
    return next(own)


def _own_names(layout: Layout) -> List[str]:
    return [layout.noise, layout.bias, f"{layout.modulated}.weight"]


def _layer_paths(network: torch.nn.Module) -> List[LayerPaths]:
    return layer_paths(network, known_layout(network))


def _spec(network: torch.nn.Module, paths: LayerPaths) -> BlockSpec:
    layout = known_layout(network)
    conv1 = get(network, paths.conv1)
    weight = getattr(conv1, layout.modulated).weight
    return BlockSpec(
        name=paths.conv1,
        resolution=paths.resolution,
        in_channels=getattr(get(network, paths.up), layout.modulated).weight.shape[2] if paths.up else 0,
        channels=weight.shape[2],
        width=weight.shape[1] if getattr(conv1, "squeezed", False) else None,
        w_dim=getattr(conv1, layout.modulated).modulation.weight.shape[1],
        img_channels=getattr(get(network, paths.torgb), layout.modulated).weight.shape[1],
        kernel_size=weight.shape[3],
        is_last=paths.reader is None,
        sides=paths.sides,
    )


def _unsupported_reason(network: Any) -> Optional[str]:
    """Why a generator of this family cannot be squeezed, or None."""
    layout = known_layout(network)
    convs = getattr(network, layout.convs)
    if len(convs) != 2 * len(network.to_rgbs):
        return f"{layout.convs} has {len(convs)} layers and to_rgbs {len(network.to_rgbs)}; it should be twice as many"
    channels = get(network, layout.const).shape[1]
    for paths in layer_paths(network, layout):
        for path in filter(None, (paths.up, paths.conv1, paths.torgb)):
            layer = get(network, path)
            wanted = {f"{layout.modulated}.{name}" for name in ("weight", "modulation.weight", "modulation.bias")}
            wanted |= {"bias"} if path == paths.torgb else {layout.noise, layout.bias}
            modulated = getattr(layer, layout.modulated, None)
            layers = [part for part in (modulated, getattr(modulated, "modulation", None)) if part is not None]
            if any(map(is_parametrised, layers)):
                return f"{path} computes its weights from others (a parametrization?); remove that first"
            missing = missing_tensors(layer, wanted)
            if missing:
                return f"{path} ({type(layer).__name__}) has no parameter {' and no '.join(missing)}"
        conv1, torgb = (getattr(get(network, path), layout.modulated).weight for path in (paths.conv1, paths.torgb))
        fits = conv1.ndim == 5
        if paths.up:
            up = getattr(get(network, paths.up), layout.modulated).weight
            fits, channels = fits and up.ndim == 5 and up.shape[2] == channels, up.shape[1]
        squeezed = getattr(get(network, paths.conv1), "squeezed", False)
        fits = fits and conv1.shape[2] == channels and (squeezed or conv1.shape[1] == channels)
        if not fits or torgb.shape[2:] != (conv1.shape[1], 1, 1):
            return f"the shapes of {paths.conv1} and {paths.torgb} do not belong to a StyleGAN2 generator"
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


ROSINALITY_ADAPTER = Adapter(
    name="rosinality",
    surgery=RosinalitySurgery(),
    running=RosinalityRunning(),
    states=RosinalityStates(),
    interchange=RosinalityInterchange(),
    fusing=RosinalityFusing(),
    entries=MappingProxyType({"g": "G", "g_ema": "G_ema", "params": "G", "params_ema": "G_ema"}),
)
