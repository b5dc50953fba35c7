"""basicsr's StyleGAN2Generator and gfpgan's StyleGAN2GeneratorClean from their state dicts alone.

basicsr's is rosinality's network under other names, and its filters are in no tensor: they are taken to be the host's
default, [1, 3, 3, 1], as the mapping network's ``lr_mlp`` is taken to be 0.01. gfpgan's has all gains in its weights,
and upsamples bilinearly.
"""

from __future__ import annotations

import math
from typing import Any, Optional

import torch

from squeeze_patch.adapters.rosinality.body import FlatBody, State
from squeeze_patch.adapters.rosinality.layout import BASICSR, CLEAN
from squeeze_patch.adapters.rosinality.standin import FILTER, Conv, MappingLayers, Modulated, ToRGB


class StyleModulated(Modulated):
    holder = "smooth"
    stored = False


class StyleConv(Conv):
    layout = BASICSR
    modulated_class = StyleModulated


class StyleToRGB(ToRGB):
    layout = BASICSR
    modulated_class = StyleModulated


class StyleGAN2Generator(FlatBody):
    layout = BASICSR
    conv_class = StyleConv
    torgb_class = StyleToRGB
    mapping_class = MappingLayers

    def upsampling(self, state: State, index: int) -> Optional[torch.Tensor]:
        return None if index % 2 else FILTER


class CleanMapping(torch.nn.Sequential):
    """z -> w: normalisation, then linear layers with leaky ReLU, every second child each."""

    def __init__(self, entries: int, w_dim: int) -> None:
        super().__init__(torch.nn.Identity())
        for _ in range(entries):
            self.extend([torch.nn.Linear(w_dim, w_dim), torch.nn.LeakyReLU(0.2)])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[N, w_dim] -> [N, w_dim]."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self:
            x = layer(x)
        return x


class CleanModulated(Modulated):
    """A plain convolution, of bilinearly upsampled features in an up-convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, upsample: Any = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, w_dim)
        self.modulation = torch.nn.Linear(w_dim, in_channels)
        with torch.no_grad():
            self.modulation.bias.fill_(1)
            self.weight.mul_(self.scale)
        self.scale = 1.0
        self.sample_mode = "upsample" if upsample else None

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        x = _twice(x) if self.sample_mode else x
        return torch.nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class CleanConv(torch.nn.Module):
    """Modulated convolution times sqrt(2), noise strength, bias, leaky ReLU without a gain of its own."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, upsample: Any = None) -> None:
        super().__init__()
        self.modulated_conv = CleanModulated(in_channels, out_channels, kernel_size, w_dim, upsample)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.bias = torch.nn.Parameter(torch.zeros(1, out_channels, 1, 1))
        self.activate = torch.nn.LeakyReLU(0.2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, h, w], styles [N, w_dim], noise [1 or N, 1, H, W] -> [N, out_channels, H, W]."""
        x = self.modulated_conv(x, w, demodulate=True) * math.sqrt(2)
        x = self.activate(x + self.weight * noise + self.bias)
        return x


class CleanToRGB(ToRGB):
    layout = CLEAN
    modulated_class = CleanModulated

    def __init__(self, in_channels: int, w_dim: int, upsample: bool, img_channels: int = 3) -> None:
        super().__init__(in_channels, w_dim, False, img_channels)
        self.upsample = upsample

    def enlarged(self, image: torch.Tensor) -> torch.Tensor:
        return _twice(image)


class StyleGAN2GeneratorClean(FlatBody):
    layout = CLEAN
    conv_class = CleanConv
    torgb_class = CleanToRGB
    mapping_class = CleanMapping

    def upsampling(self, state: State, index: int) -> Optional[bool]:
        return None if index % 2 else True


def _twice(x: torch.Tensor) -> torch.Tensor:
    """Bilinear upsampling by two that repeats the map's border."""
    return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
