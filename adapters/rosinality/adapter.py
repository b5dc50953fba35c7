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

Blocks of other shapes replace, beside these, ``convs.{2k}``, the up-convolution: the host's class with its own filter,
p outputs, and as many inputs as the block before hands on; in the first block ``input.input``
(``constant_input.weight``), of which p channels stay. What keeps its size stays the same object. A narrowed block has
no excite: the next up-convolution reads its q channels.

Files: rosinality's ``.pt`` with ``g`` and ``g_ema``, basicsr's and gfpgan's ``.pth`` with ``params`` and
``params_ema``, or a bare state dict. The stand-ins for them (`states`) assume what no tensor says: the mapping
network's ``lr_mlp`` of 0.01 (gfpgan's has none; other magnitudes are refused), and basicsr's ``resample_kernel`` of
[1, 3, 3, 1]. gfpgan's StyleGAN2GeneratorBilinear has the very names and shapes of basicsr's StyleGAN2Generator, for
which it is taken in a file. Restoration networks around a generator (``stylegan_decoder.*``) are refused as files.

A block's name in plans and messages is the path of its second convolution.

Limits: copies and pickles of a generator with excite need squeeze_patch installed; calling a layer's ``forward``
method by hand passes excite by, as it does any hook. A trained start wants demodulated convolutions and blur kernels
of four taps. Generators whose layers have other constructors than ``(in, out, kernel size, style dimension)`` and
``(in, style dimension, upsample)`` are refused; so are new up-convolutions of a class whose constructor knows neither
``upsample`` nor ``sample_mode``. Without the Plan no file tells how many channels a narrowed block had, nor the last
squeezed one where its up-convolution is smaller, too.
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any, Callable, List, Optional

import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, DenseBlock, SqueezedStart
from squeeze_patch.adapters.layers import (
    class_named,
    fill_excite,
    is_parametrised,
    missing_tensors,
    refuse_hooks,
    value,
)
from squeeze_patch.adapters.located import described, narrowed_blocks
from squeeze_patch.adapters.rosinality.block import FlatBlock, check_hooks, read_block, write_block
from squeeze_patch.adapters.rosinality.fusing import RosinalityFusing
from squeeze_patch.adapters.rosinality.interchange import RosinalityInterchange
from squeeze_patch.adapters.rosinality.layers import refuse_extras, resized_layers
from squeeze_patch.adapters.rosinality.layout import (
    LAYOUTS,
    LayerPaths,
    Layout,
    find_layer_paths,
    get,
    known_layout,
    layer_paths,
    layout_of,
)
from squeeze_patch.adapters.rosinality.running import RosinalityRunning, sample_styles
from squeeze_patch.adapters.rosinality.states import DUAL, RosinalityStates
from squeeze_patch.adapters.rosinality.weights import (
    load_conv,
    read_affine,
    read_conv,
    read_fir,
    scale_of,
    write_affine,
)
from squeeze_patch.connection import Excite


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
        gain = scale_of(rgb_conv)
        style = read_affine(rgb_conv.modulation)
        up = get(network, paths.up) if paths.up else None
        return DenseBlock(
            spec=_spec(network, paths),
            const=None if up else value(const)[0],
            conv0=read_conv(up, layout, str(paths.up)) if up else None,
            fir=read_fir(up, layout, str(paths.up)),
            conv1=read_conv(get(network, paths.conv1), layout, paths.conv1),
            rgb_weight=value(rgb_conv.weight)[0, :, :, 0, 0],
            rgb_style=Affine(style.weight * gain, style.bias * gain),
            rgb_bias=value(rgb.bias).flatten(),
        )

    def build(self, network: torch.nn.Module, name: str, shape: BlockShape) -> FlatBlock:
        layout, dense = known_layout(network), self.get_block(network, name)
        self.check_replaceable(dense, name)
        paths, channels = dense.layer_paths, _spec(network, dense.layer_paths).channels
        first, conv1, torgb = resized_layers(dense, layout, shape)
        if paths.up and first is not dense.first:
            refuse_hooks(dense.first, paths.up)
            refuse_extras(dense.first, first, paths.up)
            first.resized = True
        if not shape.excite:
            return FlatBlock(paths, first, conv1, torgb)
        conv1.squeezed = True
        if paths.reader is None:
            return FlatBlock(paths, first, conv1, torgb)
        excite = Excite(shape.width, channels)
        reference = getattr(dense.conv1, layout.modulated).weight
        excite.to(device=reference.device, dtype=reference.dtype).requires_grad_(reference.requires_grad)
        return FlatBlock(paths, first, conv1, torgb, excite.train(dense.training))

    def check_replaceable(self, block: Any, name: str) -> None:
        check_hooks(block)

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        layout, kept = _layout_of_conv(dense.conv1), start.kept
        with torch.no_grad():
            if new.first is not dense.first:
                if dense.layer_paths.up:
                    load_conv(new.first, dense.first, layout, start.conv0, kept.inner, kept.inputs)
                elif kept.inner is not None:
                    const = layout.const.rpartition(".")[2]
                    old = getattr(dense.first, const)
                    getattr(new.first, const).copy_(old.index_select(1, kept.inner.to(old.device)))
            load_conv(new.conv1, dense.conv1, layout, start.conv1, kept.outputs, kept.inner)
            rgb_conv = getattr(new.torgb, layout.modulated)
            write_affine(rgb_conv.modulation, start.rgb_style, scale_of(rgb_conv))
            rgb_conv.weight.copy_(start.rgb_weight[None, :, :, None, None])
            new.torgb.bias.copy_(start.rgb_bias.reshape(new.torgb.bias.shape))
            fill_excite(getattr(new, "excite", None), start)

    def dense_like(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        """Made without the generator's constructor: the layers' classes build full ones as they build narrow ones."""
        layout = known_layout(network)
        dense: torch.nn.Module = copy.deepcopy(network)
        fusing = RosinalityFusing()
        for spec in described(self.specs(network), self.plan_of(network)):
            if spec.width is not None:
                fusing.set_fused(dense, spec.name, False, False)
                now = self.get_block(dense, spec.name)
                full = BlockShape(spec.dense_inputs, spec.channels, spec.channels)
                first, conv1, torgb = resized_layers(now, layout, full)
                write_block(dense, FlatBlock(now.layer_paths, first, conv1, torgb))
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
    block: Any = read_block(network, paths)
    weight = getattr(block.conv1, layout.modulated).weight
    width, inner = weight.shape[1:3]
    squeezed = bool(getattr(block.conv1, "squeezed", False))
    # What the last squeezed block had is in no tensor where its constant or up-convolution is smaller, too.
    channels = width if not squeezed else block.excite.weight.shape[0] if hasattr(block, "excite") else inner
    return BlockSpec(
        name=paths.conv1,
        resolution=paths.resolution,
        in_channels=getattr(block.first, layout.modulated).weight.shape[2] if paths.up else 0,
        channels=channels,
        width=width if squeezed else None,
        w_dim=getattr(block.conv1, layout.modulated).modulation.weight.shape[1],
        img_channels=getattr(block.torgb, layout.modulated).weight.shape[1],
        kernel_size=weight.shape[3],
        is_last=paths.reader is None,
        sides=paths.sides,
        inner=None if inner == channels else inner,
    )


def _unsupported_reason(network: Any) -> Optional[str]:
    """Why a generator of this family cannot be squeezed, or None."""
    layout = known_layout(network)
    convs = getattr(network, layout.convs)
    if len(convs) != 2 * len(network.to_rgbs):
        return f"{layout.convs} has {len(convs)} layers and to_rgbs {len(network.to_rgbs)}; it should be twice as many"
    narrowed = narrowed_blocks(getattr(network, "squeeze_plan", None))
    handed: Optional[int] = get(network, layout.const).shape[1]
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
        handed = _handed_on(read_block(network, paths), layout, handed, paths.conv1 in narrowed)
        if handed is None:
            return f"the shapes of {paths.conv1} and {paths.torgb} do not belong to a StyleGAN2 generator"
    return None


def _handed_on(block: Any, layout: Layout, handed: Optional[int], is_narrowed: bool) -> Optional[int]:
    """Channels that a block hands on, which reads ``handed``, or has them in its constant; None where its shapes do not
    go together."""
    conv1, torgb = (getattr(layer, layout.modulated).weight for layer in (block.conv1, block.torgb))
    inner = handed
    if block.layer_paths.up:
        up = getattr(block.first, layout.modulated).weight
        if up.ndim != 5 or up.shape[2] != handed:
            return None
        inner = up.shape[1]
    if conv1.ndim != 5 or conv1.shape[2] != inner or torgb.shape[2:] != (conv1.shape[1], 1, 1):
        return None
    squeezed = bool(getattr(block.conv1, "squeezed", False))
    if not (squeezed or is_narrowed or conv1.shape[1] == inner):
        return None
    return int(block.excite.weight.shape[0] if squeezed and hasattr(block, "excite") else conv1.shape[1])


ROSINALITY_ADAPTER = Adapter(
    name="rosinality",
    surgery=RosinalitySurgery(),
    running=RosinalityRunning(),
    states=RosinalityStates(),
    interchange=RosinalityInterchange(),
    fusing=RosinalityFusing(),
    entries=MappingProxyType({"g": "G", "g_ema": "G_ema", "params": "G", "params_ema": "G_ema"}),
)
