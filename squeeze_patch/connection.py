"""The image squeeze connection of one StyleGAN2 block (Park and Shin, TNNLS 2025, arXiv 2407.05527).

A dense block computes features ``y = conv1(h)`` with c channels, adds ``torgb(y)`` to the image and hands ``y`` on.
A squeezed block computes only q < c channels ``f = conv1(h)``, adds ``torgb(f)`` to the image and hands on
``excite(f)``, a plain 1x1 convolution back to c channels. conv0, conv1 and torgb are layers of the host's own classes.

This file imports torch and the standard library only, uses no relative import and no ``__future__`` import: its text
stands inside pickles (`squeeze_patch.adapters.nvidia.portable`), where it has to run without squeeze_patch.
"""

import math
from typing import Optional

import torch


class Excite(torch.nn.Module):
    """Plain 1x1 convolution from q squeezed channels back to c: bias, no activation, no style.

    The learning rate is equalised as in the hosts' other layers: ``weight`` is kept at unit scale and multiplied with
    ``1 / sqrt(q)`` at run time.

    Args:
        in_channels: q, the block's squeezed width.
        out_channels: c, the block's channels.
        conv_clamp: clamp the output to +-conv_clamp, as the neighbouring layers do; None = no clamping.
    """

    def __init__(self, in_channels: int, out_channels: int, conv_clamp: Optional[float] = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.conv_clamp = conv_clamp
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, q, H, W] -> [N, c, H, W], in the dtype and memory format of ``x``."""
        weight = (self.weight * self.weight_gain).to(x.dtype)  # [c, q, 1, 1]
        bias = self.bias.to(x.dtype)
        if x.device.type == "cpu":  # a matrix product takes half the time of a 1x1 convolution there
            pixels = x.flatten(2)  # [N, q, HW]
            matrix = weight[:, :, 0, 0].expand(x.shape[0], -1, -1)  # [N, c, q]
            y = torch.baddbmm(bias[None, :, None], matrix, pixels)  # [N, c, HW]
            y = y.reshape(x.shape[0], bias.shape[0], x.shape[2], x.shape[3])  # of no images, too
            x = y.contiguous(memory_format=_memory_format(x))
        else:
            x = torch.nn.functional.conv2d(x, weight, bias)
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels:d}, out_channels={self.out_channels:d}"


def _memory_format(x: torch.Tensor) -> torch.memory_format:
    # by strides, as is_contiguous(memory_format=...) is not known inside of vmap; an expanded batch has a stride of 0
    n, c, h, w = x.stride()
    last = c == 1 and n >= h >= w >= c and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def upsample2d(x: torch.Tensor, fir: torch.Tensor) -> torch.Tensor:
    """Zero-insertion upsampling by two, filtered by ``fir`` [k, k] with gain 4: [N, C, H, W] -> [N, C, 2H, 2W].

    A transposed convolution of stride 2 is zero insertion and filtering in one step; the crop centres it as StyleGAN2
    does (the first output sample lies k // 2 - 1 taps into the filter for even k).
    """
    n, c, height, width = x.shape
    taps = fir.shape[-1]
    start = taps - 1 - (taps + 1) // 2
    kernel = (fir * 4).to(x.dtype)[None, None]  # [1, 1, k, k]
    x = torch.nn.functional.conv_transpose2d(x.reshape(n * c, 1, height, width), kernel, stride=2, output_padding=1)
    return x[:, :, start : start + 2 * height, start : start + 2 * width].reshape(n, c, 2 * height, 2 * width)
