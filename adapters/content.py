"""What the method and the adapters tell each other of a generator: sizes, trained content, starts, how it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Tuple, Union

import torch


@dataclass(frozen=True)
class BlockShape:
    """Sizes of one squeezed or narrowed block.

    Attributes:
        inputs: channels that conv0 reads; 0 in a first block without conv0.
        inner: p, outputs of conv0, or channels of the constant of a first block without conv0.
        width: q, outputs of conv1, which toRGB reads.
        excite: True = squeezed: excite makes the dense block's c channels again for the next one (the last block has
            none). False = narrowed: a block of the host's own class that hands on its q channels.
        anew: whether conv0 is to be built anew though it keeps its size, to see what its class gives it.
    """

    inputs: int
    inner: int
    width: int
    excite: bool = True
    anew: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class BlockSpec:
    """What the planner needs to know of one synthesis block: of the dense one, and how it differs from that.

    Attributes:
        name: the block's name within the synthesis network.
        resolution: height and width of its features; where they differ, the one that the host counts by.
        in_channels: channels of the features coming in, 0 for the first block.
        channels: c, channels of the features going out.
        width: q of a squeezed or narrowed block, None while dense.
        w_dim: dimension of one style vector.
        img_channels: channels of the image.
        kernel_size: of conv1.
        is_last: whether this block has no reader but the image.
        upsampling: "fir" = conv0 inserts zeros, convolves and filters; "bilinear" = features are upsampled bilinearly,
            borders repeated, and conv0 is a plain convolution on them, which the first block has, too, on its constant.
        output_parameters: of conv1 for every output, besides its weights: a bias, or more.
        added_parameters: of the block once squeezed, besides excite's.
        sides: (height, width) of its features where they are not square.
        inner: p of a squeezed or narrowed block where it is not c.
        inputs: channels that conv0 of a squeezed or narrowed block reads where they are not ``in_channels``.
        excite: of a squeezed or narrowed block, see `BlockShape`.
    """

    name: str
    resolution: int
    in_channels: int
    channels: int
    width: Optional[int]
    w_dim: int
    img_channels: int
    kernel_size: int
    is_last: bool
    upsampling: str = "fir"
    output_parameters: int = 1
    added_parameters: int = 0
    sides: Optional[Tuple[int, int]] = None
    inner: Optional[int] = None
    inputs: Optional[int] = None
    excite: bool = True

    @property
    def dense_inputs(self) -> int:
        """Channels that conv0 of the dense block reads: the first block has one on its constant, or none."""
        return self.in_channels or (self.channels if self.upsampling == "bilinear" else 0)

    @property
    def is_squeezed(self) -> bool:
        """Whether it is a block with the image squeeze connection: not dense, not narrowed."""
        return self.width is not None and self.excite

    @property
    def handed(self) -> int:
        """Channels that go on to the next block."""
        return self.channels if self.width is None or self.excite else self.width

    @property
    def shape(self) -> Optional[BlockShape]:
        """Of a squeezed or narrowed block, None while dense."""
        if self.width is None:
            return None
        inputs = self.dense_inputs if self.inputs is None else self.inputs
        return BlockShape(inputs, self.channels if self.inner is None else self.inner, self.width, self.excite)

    @property
    def height_width(self) -> Tuple[int, int]:
        """Of its features."""
        return self.sides or (self.resolution, self.resolution)

    @property
    def positions(self) -> int:
        """In a map of its features."""
        height, width = self.height_width
        return height * width


@dataclass(frozen=True)
class Affine:
    """Style of a layer as a function of w: ``style = w @ weight.T + bias``; weight [channels, w_dim], bias [channels].

    Effective values: every run-time gain of the host is multiplied in.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """[..., w_dim] -> [..., channels]."""
        return w @ self.weight.t() + self.bias


@dataclass(frozen=True)
class ConvWeights:
    """One modulated, demodulated convolution: weight [out, in, k, k], style over in, bias [out], noise strength,
    one for all outputs or [out].

    ``slope`` and ``gain`` describe the leaky ReLU behind it: ``gain * (x if x > 0 else slope * x)``.
    """

    weight: torch.Tensor
    style: Affine
    bias: torch.Tensor
    noise_strength: Union[float, torch.Tensor]
    slope: float
    gain: float


@dataclass(frozen=True)
class DenseBlock:
    """The trained content of one dense block, in effective values, float32, detached.

    The first block has ``const`` [c, 4, 4], or of other sides, and, unless upsampling is bilinear, no ``conv0``.
    ``fir`` [k, k] is the filter of the upsampling conv0 and of the image; where upsampling is bilinear, only the image
    is filtered with it, behind that, borders reflected.
    toRGB: ``rgb_weight`` [img_channels, c], ``rgb_style`` over c (gain included), ``rgb_bias`` [img_channels].
    ``noise``: "normal" = a standard normal input for each convolution, "uniform" = one of [0, 1) for both of a block.
    ``rgb_has_bias``: whether the host's toRGB has one. Where not, ``rgb_bias`` is zero, also in the start of a narrowed
    block, which is of the host's class; a squeezed one has a bias in any case.
    """

    spec: BlockSpec
    const: Optional[torch.Tensor]
    conv0: Optional[ConvWeights]
    fir: torch.Tensor
    conv1: ConvWeights
    rgb_weight: torch.Tensor
    rgb_style: Affine
    rgb_bias: torch.Tensor
    noise: str = "normal"
    rgb_has_bias: bool = True


@dataclass(frozen=True)
class Kept:
    """Channels of a dense block that stay, ascending, int64; None = all of them.

    Attributes:
        outputs: of conv1 [q], which toRGB reads.
        inner: of conv0, or of the constant [p], which conv1 reads.
        inputs: of those that conv0 reads.
    """

    outputs: torch.Tensor
    inner: Optional[torch.Tensor] = None
    inputs: Optional[torch.Tensor] = None


@dataclass(frozen=True)
class SqueezedStart:
    """Trained start of one squeezed or narrowed block, in effective values.

    ``conv0``, ``conv1``: weight, bias and noise strength, of kept channels only, that take the place of the dense
    one's; None = the dense one's own numbers of the kept channels, to the bit. The style has the dense one's rows of
    the kept inputs in any case. Rows of weights may be scaled: demodulation divides by their size.
    ``excite_weight`` [c, q] and ``excite_bias`` [c] are None where there is no excite. ``rgb_weight`` [img_channels,
    q], ``rgb_style`` over q, ``rgb_bias`` [img_channels].
    """

    kept: Kept
    excite_weight: Optional[torch.Tensor]
    excite_bias: Optional[torch.Tensor]
    rgb_weight: torch.Tensor
    rgb_style: Affine
    rgb_bias: torch.Tensor
    conv0: Optional[ConvWeights] = None
    conv1: Optional[ConvWeights] = None


@dataclass(frozen=True)
class Sampler:
    """How a whole generator is run on latents; a new one is due when its weights have changed.

    Attributes:
        z_dim, c_dim: size of a latent, and number of classes (one-hot), 0 = none.
        img_resolution: height of the images.
        images: (z [N, z_dim], c [N, c_dim], noise_mode, truncation psi) -> images [N, C, R, R], about -1 to 1, on the
            generator's device; the latents may be on any. noise_mode is "const" (the generator's own noise, stored) or
            "none"; psi 1 = no truncation.
        images_at: (the same four, first) -> the same for the images at the places first, first + 1, ... of a batch that
            is run part by part, where "const" is noise of its own for every place; None = the same for all.
    """

    z_dim: int
    c_dim: int
    img_resolution: int
    images: Callable[[torch.Tensor, torch.Tensor, str, float], Any]
    images_at: Optional[Callable[[torch.Tensor, torch.Tensor, str, float, int], Any]] = None
