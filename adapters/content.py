"""What the method and the adapters tell each other of a generator: sizes, trained content, starts, how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple, Union

import torch


@dataclass(frozen=True)
class BlockSpec:
    """What the planner needs to know of one synthesis block, dense or squeezed.

    Attributes:
        name: the block's name within the synthesis network.
        resolution: height and width of its features; where they differ, the one that the host counts by.
        in_channels: channels of the features coming in, 0 for the first block.
        channels: c, channels of the features going out.
        width: q of a squeezed block, None while dense.
        w_dim: dimension of one style vector.
        img_channels: channels of the image.
        kernel_size: of conv1.
        is_last: whether this block has no reader but the image.
        upsampling: "fir" = conv0 inserts zeros, convolves and filters; "bilinear" = features are upsampled bilinearly,
            borders repeated, and conv0 is a plain convolution on them, which the first block has, too, on its constant.
        output_parameters: of conv1 for every output, besides its weights: a bias, or more.
        added_parameters: of the block once squeezed, besides excite's.
        sides: (height, width) of its features where they are not square.
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


@dataclass(frozen=True)
class SqueezedStart:
    """Trained start of one squeezed block, in effective values.

    ``kept`` [q]: the channels of conv1 that stay, ascending. ``excite_weight`` [c, q] and ``excite_bias`` [c] are None
    in the last block. ``rgb_weight`` [img_channels, q], ``rgb_style`` over q, ``rgb_bias`` [img_channels].
    """

    kept: torch.Tensor
    excite_weight: Optional[torch.Tensor]
    excite_bias: Optional[torch.Tensor]
    rgb_weight: torch.Tensor
    rgb_style: Affine
    rgb_bias: torch.Tensor


@dataclass(frozen=True)
class Sampler:
    """How a whole generator is run on latents; a new one is due when its weights have changed.

    Attributes:
        z_dim, c_dim: size of a latent, and number of classes (one-hot), 0 = none.
        img_resolution: height of the images.
        images: (z [N, z_dim], c [N, c_dim], noise_mode, truncation psi) -> images [N, C, R, R], about -1 to 1, on the
            generator's device; the latents may be on any. noise_mode is "const" (the generator's own noise, stored) or
            "none"; psi 1 = no truncation.
    """

    z_dim: int
    c_dim: int
    img_resolution: int
    images: Callable[[torch.Tensor, torch.Tensor, str, float], Any]
