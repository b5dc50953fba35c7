"""Layers of lucidrains' generator, of our own writing, for generators that are known by their state dict alone."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import torch

#: slope of the leaky ReLUs in every version of the host
SLOPE = 0.2


class Modulated(torch.nn.Module):
    """Convolution whose weights a style multiplies: 1 + style for every input, then demodulated (equations 1 and 3 of
    Karras et al. 2020)."""

    def __init__(self, shape: torch.Size, demodulate: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(shape) * (2 / shape[1:].numel()) ** 0.5)
        self.demod, self.filters = demodulate, shape[0]

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W], [N, in] -> [N, out, H, W]."""
        scale = style + 1  # [N, in]
        x = torch.nn.functional.conv2d(x * scale[:, :, None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if not self.demod:
            return x
        power = scale.square() @ self.weight.square().sum(dim=[2, 3]).t()  # [N, out]
        return x * (power + 1e-8).rsqrt()[:, :, None, None]


class Blur(torch.nn.Module):
    """The filter ``f`` [3] along rows and columns, borders reflected."""

    f: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("f", torch.tensor([1.0, 2.0, 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        kernel = torch.outer(self.f, self.f)
        kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1, -1)
        padded = torch.nn.functional.pad(x, [1, 1, 1, 1], mode="reflect")  # [N, C, H + 2, W + 2]
        return torch.nn.functional.conv2d(padded, kernel, groups=x.shape[1])


def bilinear() -> torch.nn.Module:
    return torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


class ToRGB(torch.nn.Module):
    """Adds to the image so far, and upsamples the sum for the next block."""

    def __init__(self, w_dim: int, shape: torch.Size, is_last: bool) -> None:
        super().__init__()
        self.input_channel = shape[1]
        self.to_style = torch.nn.Linear(w_dim, shape[1])
        self.conv = Modulated(shape, demodulate=False)
        self.upsample = None if is_last else torch.nn.Sequential(bilinear(), Blur())

    def forward(self, x: torch.Tensor, image: Optional[torch.Tensor], w: torch.Tensor) -> torch.Tensor:
        """[N, c, R, R], image so far [N, img_channels, R, R] -> the same at 2R, at R in the last block."""
        rgb = self.conv(x, self.to_style(w))
        rgb = rgb if image is None else rgb + image
        return rgb if self.upsample is None else self.upsample(rgb)


class Block(torch.nn.Module):
    """A dense block; its layers have the host's names.

    Args:
        w_dim: of a style vector.
        first, second, rgb: shapes of the weights of conv1, conv2 and toRGB.

    Attributes:
        narrowed: whether a Plan in a file says that it had more channels.
    """

    narrowed = False

    def __init__(
        self, w_dim: int, first: torch.Size, second: torch.Size, rgb: torch.Size, is_first: bool, is_last: bool
    ) -> None:
        super().__init__()
        self.upsample: Any = None if is_first else bilinear()
        self.to_style1 = torch.nn.Linear(w_dim, first[1])
        self.to_noise1 = torch.nn.Linear(1, first[0])
        self.conv1 = Modulated(first, demodulate=True)
        self.to_style2 = torch.nn.Linear(w_dim, second[1])
        self.to_noise2 = torch.nn.Linear(1, second[0])
        self.conv2 = Modulated(second, demodulate=True)
        self.activation = torch.nn.LeakyReLU(SLOPE)
        self.to_rgb = ToRGB(w_dim, rgb, is_last)

    def forward(
        self, x: torch.Tensor, prev_rgb: Optional[torch.Tensor], istyle: torch.Tensor, inoise: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """As of `block.SqueezedGeneratorBlock`."""
        x = x if self.upsample is None else self.upsample(x)
        noise = inoise[:, : x.shape[2], : x.shape[3]]
        x = self.conv1(x, self.to_style1(istyle)) + _across(self.to_noise1(noise))
        x = self.conv2(self.activation(x), self.to_style2(istyle)) + _across(self.to_noise2(noise))
        x = self.activation(x)
        return x, self.to_rgb(x, prev_rgb, istyle)


def _across(noise: torch.Tensor) -> torch.Tensor:
    """[N, H, W, c] -> [N, c, W, H]: the host turns the noise image, too."""
    return noise.permute(0, 3, 2, 1)
