"""The lucidrains family: stylegan2-pytorch on PyPI. A Generator has a list of ``blocks``; the mapping network, a
StyleVectorizer, stands beside it in the training wrapper StyleGAN2, which holds both twice: S, G, and their moving
averages SE, GE.

What is patched. ``blocks.{k}``, a GeneratorBlock, is replaced by `block.SqueezedGeneratorBlock`; the
Generator's forward stays untouched. Within the block:

=============================  ====================================================================================
``conv2``, ``to_noise2``       the host's classes: q outputs instead of c; weights are the kept channels' rows
``to_rgb``                     the host's class: q inputs instead of c; its style and weight are refitted
``rgb_bias``                   new, [img_channels, 1, 1]: the host's toRGB has no bias that could be refitted
``excite``                     new: `connection.Excite`, q -> c, without equalised learning rate. What it makes goes on
                               to the next block, its attention and its upsampling; none in the last block
``to_style1``, ``to_noise1``,  the dense block's own objects where they keep their size, as in the paper's block; else
``conv1``, ``to_style2``       the host's classes with p channels behind conv1, or with what a narrowed block before
                               hands on
=============================  ====================================================================================

A narrowed block is a GeneratorBlock of the host's own class with fewer channels, so it has neither ``rgb_bias`` nor
``excite``; its toRGB is fitted without a bias. Attention reads all channels, so no block in front of it is narrowed.
The first block's conv1 reads what `initial_conv` makes of the constant, of which all channels stay.

A trained start is fitted on the host's own arithmetic: bilinear upsampling in front of the convolutions, noise weights
for every channel, one noise image of uniform numbers for both convolutions of a block, the image blurred when it is
upsampled. The host crops one noise image for all blocks; here every block has its own.

The wrapper itself can be squeezed: GE first, then G with the same channels, each started from its own weights, and the
optimiser G_opt gets the new parameters in the place of those that are gone, without their moments. A Generator alone
has no mapping network, so it takes ``init="random"`` only; ``ModuleDict({"S": S, "G": G})`` is enough for the others.

Limits: generators with attention layers or ``no_const`` take ``init="random"`` only; copies and pickles of a squeezed
generator need squeeze_patch installed; for files, `standin` states what is assumed. Training: the host's command is run
in the tests from scratch, resumed, from a dense model, and on two processes (`squeeze_patch.training.lucidrains`).
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any, List, Optional

import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, ConvWeights, DenseBlock, Kept, SqueezedStart
from squeeze_patch.adapters.layers import (
    as_large_as,
    class_named,
    fill_excite,
    is_parametrised,
    missing_tensors,
    refuse_hooks,
    value,
)
from squeeze_patch.adapters.located import described, narrowed_blocks
from squeeze_patch.adapters.lucidrains.block import (
    PLACES,
    REPLACED,
    SqueezedGeneratorBlock,
    dense_block_like,
    narrow_block,
    other_children,
    squeeze_block,
)
from squeeze_patch.adapters.lucidrains.fusing import LucidrainsFusing
from squeeze_patch.adapters.lucidrains.running import LucidrainsRunning, sample_styles
from squeeze_patch.adapters.lucidrains.standin import LucidrainsStates, fork_without
from squeeze_patch.adapters.lucidrains.wrapper import LucidrainsWrapper
from squeeze_patch.errors import UnsupportedModelError

_RANDOM = "Use init='random' and train"
_CONVS = {"conv1": ("to_style1", "to_noise1"), "conv2": ("to_style2", "to_noise2")}


class LucidrainsSurgery(Surgery):
    """Replaces GeneratorBlocks by SqueezedGeneratorBlocks; ``network`` is the Generator."""

    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        return [module for module in root.modules() if _is_generator(module) and _unsupported_reason(module) is None]

    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        own = (_unsupported_reason(module) for module in root.modules() if _is_generator(module))
        return next((reason for reason in (*own, *map(_fork_reason, root.modules())) if reason), None)

    def specs(self, network: Any) -> List[BlockSpec]:
        return [_spec(network, index) for index in range(len(network.blocks))]

    def sample_w(self, root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
        return sample_styles(root, n, seed)

    def get_block(self, network: Any, name: str) -> Any:
        return network.blocks[_index(name)]

    def set_block(self, network: Any, name: str, block: torch.nn.Module) -> None:
        network.blocks[_index(name)] = block

    def dense_block(self, network: Any, name: str) -> DenseBlock:
        index, block = _index(name), self.get_block(network, name)
        if network.attns[index] is not None:
            raise UnsupportedModelError(f"attention in front of {name} (attns.{index}): no trained start. {_RANDOM}")
        if index == 0 and not hasattr(network, "initial_block"):
            raise UnsupportedModelError(f"no_const: {name} starts from styles; no trained start knows that. {_RANDOM}")
        style = _affine(block.to_rgb.to_style)
        rgb_weight = value(block.to_rgb.conv.weight)[:, :, 0, 0]
        return DenseBlock(
            spec=_spec(network, index),
            const=_const(network) if index == 0 else None,
            conv0=_conv(block, "conv1", name),
            fir=_blur(network, index),
            conv1=_conv(block, "conv2", name),
            rgb_weight=rgb_weight,
            rgb_style=style,
            rgb_bias=torch.zeros(len(rgb_weight)),
            noise="uniform",
            rgb_has_bias=False,
        )

    def build(self, network: Any, name: str, shape: BlockShape) -> Any:
        index, block = _index(name), self.get_block(network, name)
        self.check_replaceable(block, name)
        for child in other_children(block, shape):
            refuse_hooks(getattr(block, child), f"{name}.{child}")
        if shape.excite:
            return squeeze_block(block, shape, is_last=index == len(network.blocks) - 1)
        channels = block.conv2.weight.shape[0]
        if shape.width < channels and any(part is not None for part in network.attns[index + 1 : index + 2]):
            raise UnsupportedModelError(
                f"{name} cannot be narrowed: attention (attns.{index + 1}) reads its {channels} channels. Use "
                "method='squeeze', or a plan that narrows no block in front of attention"
            )
        return narrow_block(block, shape)

    def check_replaceable(self, block: torch.nn.Module, name: str) -> None:
        for child in (*getattr(block, "replaced", REPLACED), "excite"):
            if hasattr(block, child):
                refuse_hooks(getattr(block, child), f"{name}.{child}")

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        with torch.no_grad():
            _load_kept(new, dense, start.kept)
            _load_refitted(new, "conv1", start.conv0)
            _load_refitted(new, "conv2", start.conv1)
            new.to_rgb.conv.weight.copy_(start.rgb_weight[:, :, None, None])
            new.to_rgb.to_style.weight.copy_(start.rgb_style.weight)
            new.to_rgb.to_style.bias.copy_(start.rgb_style.bias - 1)
            if isinstance(new, SqueezedGeneratorBlock):
                new.rgb_bias.copy_(start.rgb_bias[:, None, None])
            fill_excite(getattr(new, "excite", None), start)

    def dense_like(self, root: torch.nn.Module, network: Any) -> torch.nn.Module:
        """Of the host's own blocks, where its module is at hand, else of ours."""
        copied = copy.deepcopy(root)
        generator = next(module for module in copied.modules() if _is_generator(module))
        for spec in described(self.specs(network), self.plan_of(network)):
            if spec.shape is not None:
                self.set_block(
                    generator, spec.name, dense_block_like(self.get_block(network, spec.name), spec, network)
                )
        self.detach_plan(copied, generator)
        return copied


def _load_kept(new: Any, dense: Any, kept: Kept) -> None:
    """What is kept of the dense block's layers, all but toRGB, where the new block does not share them."""
    for child, tensors in PLACES.items():
        layer, old = getattr(new, child), getattr(dense, child)
        if layer is old or child == "to_rgb":
            continue
        for name, places in tensors.items():
            numbers = getattr(old, name)
            for dim, which in places:
                indices = getattr(kept, which)
                numbers = numbers if indices is None else numbers.index_select(dim, indices.to(numbers.device))
            getattr(layer, name).copy_(numbers)


def _load_refitted(new: Any, name: str, conv: Optional[ConvWeights]) -> None:
    """What was fitted in the place of a convolution's kept numbers, which are there."""
    if conv is None:
        return
    weight, noise = getattr(new, name).weight, getattr(new, _CONVS[name][1])
    weight.copy_(as_large_as(conv.weight, weight))
    noise.bias.copy_(conv.bias)
    noise.weight[:, 0] = torch.as_tensor(conv.noise_strength).to(noise.weight)


def _is_generator(module: Any) -> bool:
    """By class name and by the names of its parts."""
    return (
        class_named(module, "Generator")
        and all(isinstance(getattr(module, name, None), torch.nn.ModuleList) for name in ("blocks", "attns"))
        and isinstance(getattr(module, "initial_conv", None), torch.nn.Module)
        and len(module.blocks) == len(module.attns) > 0
    )


def _fork_reason(module: Any) -> Optional[str]:
    """Why a generator of this host's blocks that is put together in another way is refused."""
    blocks = getattr(module, "blocks", None)
    if not (class_named(module, "Generator") and isinstance(blocks, torch.nn.ModuleList) and len(blocks)):
        return None
    if not all(hasattr(blocks[0], name) for name in PLACES) or _is_generator(module):
        return None
    missing = [name for name in ("initial_conv", "attns") if not hasattr(module, name)]
    return fork_without(missing) if missing else None


def _unsupported_reason(network: Any) -> Optional[str]:
    """Why a generator of this family cannot be squeezed, or None."""
    channels = network.initial_conv.weight.shape[0]
    narrowed = narrowed_blocks(getattr(network, "squeeze_plan", None))
    for index, block in enumerate(network.blocks):
        name = f"blocks.{index}"
        wanted = {f"{conv}.weight" for conv in _CONVS} | {"to_rgb.to_style.weight", "to_rgb.conv.weight"}
        wanted |= {f"{linear}.{part}" for pair in _CONVS.values() for linear in pair for part in ("weight", "bias")}
        wanted |= {"to_rgb.to_style.bias"}
        if any(is_parametrised(block.get_submodule(path.rpartition(".")[0])) for path in _present(block, wanted)):
            return f"{name} computes its weights from others (a parametrization?); remove that first"
        missing = missing_tensors(block, wanted)
        if missing:
            return f"{name} ({type(block).__name__}) has no parameter {' and no '.join(missing)}"
        first, second, rgb = block.conv1.weight, block.conv2.weight, block.to_rgb.conv.weight
        squeezed = isinstance(block, SqueezedGeneratorBlock)
        is_changed = squeezed or name in narrowed or getattr(block, "narrowed", False)
        fits = first.ndim == second.ndim == 4 and first.shape[1] == channels and second.shape[1] == first.shape[0]
        if not fits or rgb.shape[1:] != (second.shape[0], 1, 1):
            return f"the shapes of {name}'s conv1, conv2 and to_rgb do not belong to a StyleGAN2 generator"
        if not is_changed and len({*second.shape[:2], *first.shape[: 2 if index == 0 else 1]}) > 1:
            return (
                f"{name} has layers of {first.shape[0]} and {second.shape[0]} channels: it is narrowed, but no Plan "
                "says what it was. Load the file that convert or train wrote, which holds the Plan"
            )
        channels = _channels(block)
    return None


def _present(block: torch.nn.Module, paths: Any) -> List[str]:
    """Those of the parameters whose layers the block has."""
    layers = dict(block.named_modules())
    return [path for path in paths if path.rpartition(".")[0] in layers]


def _index(name: str) -> int:
    return int(name.rpartition(".")[2])


def _channels(block: Any) -> int:
    """That a block hands on. Of a squeezed one of before, and of a last one out of a state dict, conv1's outputs."""
    if not isinstance(block, SqueezedGeneratorBlock):
        return int(block.conv2.weight.shape[0])
    return block.out_channels or int(block.conv1.weight.shape[0])


def _spec(network: Any, index: int) -> BlockSpec:
    block = network.blocks[index]
    width, inner, size, _ = block.conv2.weight.shape
    channels, img_channels = _channels(block), block.to_rgb.conv.weight.shape[0]
    squeezed, narrowed = isinstance(block, SqueezedGeneratorBlock), bool(getattr(block, "narrowed", False))
    return BlockSpec(
        name=f"blocks.{index}",
        resolution=4 * 2**index,
        in_channels=block.conv1.weight.shape[1] if index else 0,
        channels=channels,
        width=width if squeezed or narrowed else None,
        w_dim=block.to_style2.weight.shape[1],
        img_channels=img_channels,
        kernel_size=size,
        is_last=index == len(network.blocks) - 1,
        upsampling="bilinear",
        output_parameters=2,  # bias and weight of the noise
        added_parameters=img_channels,  # rgb_bias
        inner=None if inner == channels else inner,
        excite=not narrowed,
    )


def _affine(linear: Any) -> Affine:
    """Layers multiply with 1 + style."""
    return Affine(value(linear.weight), value(linear.bias) + 1)


def _conv(block: Any, name: str, where: str) -> ConvWeights:
    conv, slope = getattr(block, name), getattr(block.activation, "negative_slope", None)
    if not conv.demod or slope is None:
        what = f"activation {type(block.activation).__name__}" if slope is None else "no demodulation"
        raise UnsupportedModelError(
            f"{where}.{name} has {what}; a trained start knows demodulated layers with leaky ReLU. {_RANDOM}"
        )
    style, noise = (getattr(block, child) for child in _CONVS[name])
    strength = value(noise.weight)[:, 0]
    return ConvWeights(value(conv.weight), _affine(style), value(noise.bias), strength, float(slope), 1.0)


def _blur(network: Any, index: int) -> torch.Tensor:
    """What the image is filtered with after it was upsampled to the size of block ``index``, [3, 3]."""
    if index == 0:
        return torch.ones([1, 1])  # there is no image before
    before, upsample = f"blocks.{index - 1}.to_rgb.upsample", network.blocks[index].upsample
    taps = dict(network.named_buffers()).get(f"{before}.1.f")
    if taps is None or taps.shape != (3,) or getattr(upsample, "mode", "bilinear") != "bilinear":
        raise UnsupportedModelError(
            f"{before} or blocks.{index}.upsample is not bilinear, with a blur of three taps behind the "
            f"image's; a trained start knows no other. {_RANDOM}"
        )
    kernel = torch.outer(value(taps), value(taps))
    return kernel / kernel.sum()


def _const(network: Any) -> torch.Tensor:
    """What the first block reads: the learned constant behind the convolution that follows it."""
    conv = network.initial_conv
    bias = None if conv.bias is None else value(conv.bias)
    return torch.nn.functional.conv2d(value(network.initial_block), value(conv.weight), bias, padding=conv.padding)[0]


LUCIDRAINS_ADAPTER = Adapter(
    name="lucidrains",
    surgery=LucidrainsSurgery(),
    running=LucidrainsRunning(),
    states=LucidrainsStates(),
    wrapper=LucidrainsWrapper(),
    fusing=LucidrainsFusing(),
    entries=MappingProxyType({"GAN.G": "G", "GAN.GE": "G_ema"}),
)
