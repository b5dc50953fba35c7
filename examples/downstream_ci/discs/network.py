"""The generator of this repository: a small StyleGAN2 (Karras et al. 2020) in plain torch, dense or squeezed.

Its squeezed blocks are classes of its own, so that nothing of squeeze_patch is needed to load and run it. Its modules
have the names that the generators of the NVIDIA family have; by them squeeze_patch knows it.
"""

from __future__ import annotations

import math
from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def fir() -> Tensor:
    """Filter [4, 4] of every upsampling."""
    taps = torch.tensor([0.125, 0.375, 0.375, 0.125])
    return taps[:, None] * taps


def modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool = False) -> Tensor:
    """Convolution [N, in, h, w] -> [N, out, H, W] with a kernel for each image of the batch (equations 1 and 3)."""
    n, inputs, height, width = x.shape
    kernel = weight * style[:, None, :, None, None]  # [N, out, in, k, k]
    if demodulate:
        kernel = kernel * (kernel.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, n * inputs, height, width)
    if up:
        y = functional.conv_transpose2d(x, kernel.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    else:
        y = functional.conv2d(x, kernel.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    return y.reshape(n, weight.shape[0], *y.shape[2:])


class Linear(nn.Module):
    """Linear layer with equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full([outputs], bias / rate))
        self.weight_gain, self.bias_gain = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias * self.bias_gain, x, self.weight.t(), alpha=self.weight_gain)


class Conv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; ``up=2`` doubles the size."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int = 1) -> None:
        super().__init__()
        self.resolution, self.up = resolution, up
        self.use_noise, self.activation, self.act_gain, self.conv_clamp = True, "lrelu", math.sqrt(2), None
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir())

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random", **_: Any) -> Tensor:
        x = modulated(x, self.weight, self.affine(w), demodulate=True, up=self.up == 2)
        if self.up == 2:
            kernel = (4 * self.resample_filter).repeat(x.shape[1], 1, 1, 1)
            x = functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
        if noise_mode != "none":
            noise = self.noise_const if noise_mode == "const" else torch.randn_like(x[:, :1])
            x = x + self.noise_strength * noise
        return lrelu(x + self.bias[:, None, None])


class ToImage(nn.Module):
    """Modulated 1x1 convolution to the colours of the image."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor, **_: Any) -> Tensor:
        style = self.affine(w) * self.weight_gain
        return modulated(x, self.weight, style, demodulate=False) + self.bias[:, None, None]


class Excite(nn.Module):
    """1x1 convolution from the squeezed channels back to all of them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.weight_gain, self.bias)


class Block(nn.Module):
    """One resolution: conv0 (at first a constant), conv1, and torgb onto the image.

    Args:
        in_channels: of the features that come in, 0 = first block.
        width: channels behind conv1, ``channels`` in a dense block.
    """

    resample_filter: Tensor

    def __init__(
        self, in_channels: int, channels: int, width: int, w_dim: int, resolution: int, colours: int, is_last: bool
    ) -> None:
        super().__init__()
        self.in_channels, self.resolution, self.is_last = in_channels, resolution, is_last
        self.architecture, self.num_conv = "skip", 2 if in_channels else 1
        self.register_buffer("resample_filter", fir())
        if in_channels:
            self.conv0 = Conv(in_channels, channels, w_dim, resolution, up=2)
        else:
            self.const = nn.Parameter(torch.randn(channels, resolution, resolution))
        self.conv1 = Conv(channels, width, w_dim, resolution)
        self.torgb = ToImage(width, colours, w_dim)

    def forward(self, x: Optional[Tensor], img: Optional[Tensor], ws: Tensor, **how: Any) -> Tuple[Tensor, Tensor]:
        w = ws.unbind(dim=1)
        h = self.const.repeat(len(ws), 1, 1, 1) if x is None else self.conv0(x, w[0], **how)
        f = self.conv1(h, w[-2], **how)
        return self.hand_on(h, f), self.onto(img, self.torgb(f, w[-1]))

    def hand_on(self, h: Tensor, f: Tensor) -> Tensor:
        """What the next block gets: ``f`` [N, width, R, R]; ``h`` [N, channels, R, R] is what conv1 was given."""
        return f

    def onto(self, img: Optional[Tensor], rgb: Tensor) -> Tensor:
        if img is None:
            return rgb
        colours = img.shape[1]
        kernel = (4 * self.resample_filter).repeat(colours, 1, 1, 1)
        return rgb + functional.conv_transpose2d(img, kernel, stride=2, padding=1, groups=colours)


class SqueezedBlock(Block):
    """The same with the image squeeze connection (Park and Shin 2025): conv1 makes ``width`` channels, excite makes
    all of them from these; the last block hands on what conv1 was given."""

    def __init__(self, in_channels: int, channels: int, width: int, *more: Any, is_last: bool) -> None:
        super().__init__(in_channels, channels, width, *more, is_last=is_last)
        if not is_last:
            self.excite = Excite(width, channels)

    def hand_on(self, h: Tensor, f: Tensor) -> Tensor:
        return h if self.is_last else self.excite(f)


class MappingNetwork(nn.Module):
    """Latents [N, z_dim] -> styles [N, w_dim]."""

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int) -> None:
        super().__init__()
        self.fc0 = Linear(z_dim, w_dim, rate=0.01)
        self.fc1 = Linear(w_dim, w_dim, rate=0.01)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Optional[Tensor] = None, truncation_psi: float = 1.0) -> Tensor:
        w = functional.normalize(z, dim=1) * math.sqrt(z.shape[1])
        w = lrelu(self.fc1(lrelu(self.fc0(w))))
        return self.w_avg + truncation_psi * (w - self.w_avg)


class SynthesisNetwork(nn.Module):
    """Styles [N, num_ws, w_dim] -> images [N, colours, R, R].

    Args:
        plan: of squeeze_patch, as it stands in a squeezed checkpoint: what is squeezed, how far; {} = dense.
    """

    def __init__(self, w_dim: int, resolution: int, colours: int, channels: int, plan: Mapping[str, Any]) -> None:
        super().__init__()
        widths = {block["name"]: block["width"] for block in plan.get("blocks", [])}
        self.block_resolutions = [2**k for k in range(2, resolution.bit_length())]
        self.num_ws = 2 * len(self.block_resolutions)
        for size in self.block_resolutions:
            name = f"b{size}"
            kind = SqueezedBlock if name in widths else Block
            inputs, width, last = channels if size > 4 else 0, widths.get(name, channels), size == resolution
            self.add_module(name, kind(inputs, channels, width, w_dim, size, colours, is_last=last))
        if plan:
            self.squeeze_plan = dict(plan)  # squeeze_patch reads it there

    def forward(self, ws: Tensor, **how: Any) -> Tensor:
        x = img = None
        first = 0
        for size in self.block_resolutions:
            block = self.get_submodule(f"b{size}")
            x, img = block(x, img, ws[:, first : first + block.num_conv + 1], **how)
            first += block.num_conv
        return img


class Generator(nn.Module):
    """Latents [N, z_dim] -> images [N, 3, 16, 16], about -1 to 1; ``plan`` as of `SynthesisNetwork`."""

    def __init__(self, plan: Mapping[str, Any] = {}, *, channels: int = 24, size: int = 16) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = 16, 0, 16, size, 3
        self.synthesis = SynthesisNetwork(self.w_dim, size, self.img_channels, channels, plan)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(self.z_dim, self.w_dim)

    def forward(self, z: Tensor, c: Optional[Tensor] = None, truncation_psi: float = 1.0, **how: Any) -> Tensor:
        w = self.mapping(z, c, truncation_psi)
        return self.synthesis(w[:, None].repeat(1, self.num_ws, 1), **how)
