"""The squeezed block of lucidrains' generator."""

from __future__ import annotations

import copy
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.adapters.layers import copy_flags, is_plain, runs_forward_of, share_hooks
from squeeze_patch.adapters.lucidrains.layers import Block
from squeeze_patch.connection import Excite
from squeeze_patch.fused_convolution import Finish, fused_layer, pays
from squeeze_patch.handing_on import Handed, as_seen, hand_on, is_plain_run, on_gpu, read

Places = Tuple[Tuple[int, str], ...]

#: {child: {parameter: ((dimension, which of a block's channels lie along it: as in `content.Kept`), ...)}}
PLACES: Dict[str, Dict[str, Places]] = {
    "to_style1": {"weight": ((0, "inputs"),), "bias": ((0, "inputs"),)},
    "to_noise1": {"weight": ((0, "inner"),), "bias": ((0, "inner"),)},
    "conv1": {"weight": ((0, "inner"), (1, "inputs"))},
    "to_style2": {"weight": ((0, "inner"),), "bias": ((0, "inner"),)},
    "to_noise2": {"weight": ((0, "outputs"),), "bias": ((0, "outputs"),)},
    "conv2": {"weight": ((0, "outputs"), (1, "inner"))},
    "to_rgb": {
        "to_style.weight": ((0, "outputs"),),
        "to_style.bias": ((0, "outputs"),),
        "conv.weight": ((1, "outputs"),),
    },
}
#: {child: attributes that state the channels of its outputs, or of what toRGB reads}
_WIDTHS = {
    **dict.fromkeys(("to_style1", "to_noise1", "to_style2", "to_noise2"), ("out_features",)),
    **dict.fromkeys(("conv1", "conv2"), ("filters",)),
    "to_rgb": ("input_channel", "to_style.out_features"),
}
#: children that no replaced block shares with the dense one
REPLACED = ("to_noise2", "conv2", "to_rgb")
#: classes of modulated convolutions, the host's and our own
_CONVOLUTIONS = ("Conv2DMod", "Modulated")


class SqueezedGeneratorBlock(torch.nn.Module):
    """Takes the place of a GeneratorBlock: ``conv2`` has q outputs, ``to_rgb`` q inputs, and ``excite`` makes c
    channels again for what comes next. The last block has no excite and hands on conv1's activations, which nobody
    reads.

    The host's toRGB has no bias, so ``rgb_bias`` [img_channels, 1, 1] makes good the mean of what is no longer there.

    Attributes:
        out_channels: c, where ``conv1`` has other outputs; None = as many as that.
        replaced: names of the layers that the dense block has others of; narrowed blocks have this, too.
        fused: where nothing is trained the block runs by `squeeze_patch.fused_convolution`; see `squeeze_patch.fuse`.
        defers: its excite is then left to the block that reads its features.
    """

    def __init__(self, img_channels: int) -> None:
        super().__init__()
        self.rgb_bias = torch.nn.Parameter(torch.zeros([img_channels, 1, 1]))

    fused = False  # also of blocks that are read from files of before
    defers = False
    out_channels: Optional[int] = None
    replaced: Sequence[str] = REPLACED
    upsample: Any
    to_style1: Any
    to_noise1: Any
    conv1: Any
    to_style2: Any
    to_noise2: Any
    conv2: Any
    activation: Any
    to_rgb: Any
    excite: Any

    def forward(
        self, x: torch.Tensor, prev_rgb: Optional[torch.Tensor], istyle: torch.Tensor, inoise: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Run the block.

        Args:
            x: features [N, c_in, R/2, R/2], or [N, c_in, 4, 4] in the first block.
            prev_rgb: image so far [N, img_channels, R, R]; None in the first block.
            istyle: style vectors [N, w_dim].
            inoise: [N, S, S, 1] with S >= R.

        Returns:
            features [N, c, R, R], image [N, img_channels, 2R, 2R], or [N, img_channels, R, R] from the last block.
        """
        fast = self.fused and not self.training and _is_plain_float(self, x, istyle, inoise)
        x = _upsampled(self.upsample, x, self.conv1, fast)
        height, width = _tensor_of(x).shape[2:]
        noise = inoise[:, :height, :width]  # [N, R, R, 1]
        noise1 = self.to_noise1(noise).permute(0, 3, 2, 1)  # [N, c, R, R]
        h = _run_layer(self.conv1, x, self.to_style1(istyle), noise1, self.activation, fast)  # [N, c, R, R]
        noise2 = self.to_noise2(noise).permute(0, 3, 2, 1)  # [N, q, R, R]
        f = _run_layer(self.conv2, h, self.to_style2(istyle), noise2, self.activation, fast)  # [N, q, R, R]
        # The image so far is the one input of the host's toRGB that a bias can come in by.
        below = self.rgb_bias.expand(len(x), -1, -1, -1) if prev_rgb is None else prev_rgb + self.rgb_bias
        rgb = self.to_rgb(f, below, istyle)
        if hasattr(self, "excite"):
            h = hand_on(self, f) if fast and self.defers and is_plain(self.excite) else self.excite(f)
        return (as_seen(self, h) if fast else h), rgb


def _tensor_of(x: Any) -> Any:
    return x.squeezed if isinstance(x, Handed) else x


def _is_plain_float(block: torch.nn.Module, x: Any, *others: torch.Tensor) -> bool:
    """Whether a block runs for its values alone, in float32 on a CPU."""
    tensors = (_tensor_of(x), *others)
    single = all(tensor.dtype == torch.float32 for tensor in (*tensors, *block.parameters()))
    return single and not on_gpu(tensors[0]) and is_plain_run(block, *tensors)


def _upsampled(upsample: Any, x: Any, reader: Any, fast: bool) -> Any:
    """``x``, or squeezed features that are handed on, at twice the size. It commutes with excite: both are linear, and
    weights of bilinear interpolation sum to one."""
    if upsample is None:
        return x
    bilinear = isinstance(upsample, torch.nn.Upsample) and upsample.mode == "bilinear" and is_plain(upsample)
    if fast and bilinear and isinstance(x, Handed) and not x.was_read and _is_known(reader):
        f = x.squeezed
        if pays(reader.weight, f.shape[1], 4 * f.shape[2] * f.shape[3]):
            return Handed(upsample(f), x.excite)
    return upsample(read(x))


def _run_layer(conv: Any, x: Any, style: torch.Tensor, noise: torch.Tensor, activation: Any, fast: bool) -> Any:
    """A convolution of the host's and what follows, or the same by `fused_layer`: [N, in, R, R] -> [N, out, R, R]."""
    leaky = isinstance(activation, torch.nn.LeakyReLU) and is_plain(activation)
    if not (fast and leaky and _is_known(conv)):
        return activation(conv(read(x), style) + noise)
    return fused_layer(x, conv.weight, style + 1, Finish(None, noise, slope=activation.negative_slope))


def _is_known(conv: Any) -> bool:
    """Whether nobody listens to a convolution, and it is one of 3x3 of StyleGAN2's."""
    plain = (getattr(conv, name, usual) == usual for name, usual in (("eps", 1e-8), ("stride", 1), ("dilation", 1)))
    known = runs_forward_of(conv, _CONVOLUTIONS) and is_plain(conv) and not conv._modules
    return known and bool(conv.demod) and all(plain)


def squeeze_block(block: Any, shape: BlockShape, is_last: bool) -> SqueezedGeneratorBlock:
    """The squeezed counterpart of a dense block, which stays as it is, with fresh random layers.

    Layers that keep their shape are the dense block's own objects; the others are copies with fewer channels, begun as
    the host begins its own: weights normal with variance 2 / fan-in, no noise.
    """
    channels = block.conv2.weight.shape[0]
    new = SqueezedGeneratorBlock(block.to_rgb.conv.weight.shape[0])
    if shape.inner != channels:
        new.out_channels = channels
    for name in ("upsample", *PLACES, "activation"):
        setattr(new, name, getattr(block, name))
    _replace_layers(new, shape)
    if not is_last:
        new.excite = Excite(shape.width, channels)
        new.excite.weight_gain = 1.0  # no layer of this host has an equalised learning rate
        torch.nn.init.normal_(new.excite.weight, std=shape.width**-0.5)
    copy_flags(new, block, block.conv2.weight)
    share_hooks(new, block)
    return new


def narrow_block(block: Any, shape: BlockShape) -> Any:
    """A block of the dense one's own class with fewer channels, likewise; the user's hooks on it are its own, too."""
    new = block.__class__.__new__(block.__class__)
    vars(new).update(vars(block))
    for kind in ("_parameters", "_buffers", "_modules"):
        vars(new)[kind] = dict(vars(block)[kind])
    _replace_layers(new, shape)
    copy_flags(new, block, block.conv2.weight)
    return new


def other_children(block: Any, shape: BlockShape) -> List[str]:
    """Names of a dense block's layers that one of another shape does not share."""
    inner, inputs = block.conv1.weight.shape[:2]
    first = (shape.inner, shape.inputs) != (inner, inputs)
    found = ["to_style1"] if shape.inputs != inputs else []
    found += ["to_noise1", "conv1"] if first else []
    found += ["to_style2"] if shape.inner != inner else []
    return [*found, *REPLACED]


def _replace_layers(new: Any, shape: BlockShape) -> None:
    """Random layers, as the host's training starts them, where those of the dense block have other sizes."""
    sizes = {"inputs": shape.inputs, "inner": shape.inner, "outputs": shape.width}
    new.replaced = other_children(new, shape)
    for child in new.replaced:
        layer = _cut(getattr(new, child), child, sizes)
        setattr(new, child, layer)
        if child.startswith("to_noise"):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            continue
        for part in (layer.conv, layer.to_style) if child == "to_rgb" else (layer,):
            if isinstance(part, torch.nn.Linear):
                part.reset_parameters()
            torch.nn.init.kaiming_normal_(part.weight, a=0, mode="fan_in", nonlinearity="leaky_relu")


def dense_block_like(block: Any, spec: BlockSpec, network: torch.nn.Module) -> torch.nn.Module:
    """A dense block of the size that the squeezed or narrowed ``block`` had, of random weights, as the host builds it.

    Args:
        spec: of the block, with what the Plan says (`located.described`).
    """
    c, size, rgb = spec.channels, spec.kernel_size, block.to_rgb.conv.weight.shape
    host_class = getattr(sys.modules.get(type(network).__module__), "GeneratorBlock", None)
    is_first = spec.in_channels == 0
    if host_class is None:
        first, second = (torch.Size([c, inputs, size, size]) for inputs in (spec.dense_inputs, c))
        new: torch.nn.Module = Block(spec.w_dim, first, second, torch.Size([rgb[0], c, 1, 1]), is_first, spec.is_last)
    else:
        new = host_class(spec.w_dim, spec.dense_inputs, c, not is_first, not spec.is_last, rgba=rgb[0] == 4)
    reference = block.conv1.weight
    return new.to(device=reference.device, dtype=reference.dtype).train(block.training)


def _cut(layer: torch.nn.Module, child: str, sizes: Mapping[str, int]) -> Any:
    """A copy of a layer with so many channels."""
    new = copy.deepcopy(layer)
    for path, places in PLACES[child].items():
        parent, leaf = _split(new, path)
        old = getattr(parent, leaf)
        numbers = old.detach()
        for dim, which in places:
            numbers = numbers.narrow(dim, 0, sizes[which])
        setattr(parent, leaf, torch.nn.Parameter(numbers.clone(), old.requires_grad))
    widths = [sizes[which] for places in PLACES[child].values() for _, which in places[:1]]
    for path in _WIDTHS[child]:
        parent, leaf = _split(new, path)
        setattr(parent, leaf, widths[0])
    return new


def _split(module: torch.nn.Module, path: str) -> Tuple[Any, str]:
    """(what holds the last name of a dotted path, that name)."""
    parent, _, leaf = path.rpartition(".")
    return module.get_submodule(parent), leaf
