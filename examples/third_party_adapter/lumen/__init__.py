"""A small generator in the manner of StyleGAN2 (Karras et al. 2020): the host. It knows nothing of squeeze_patch."""

from __future__ import annotations

import math
from typing import Optional, Tuple

import torch
from torch.nn import functional


class Brush(torch.nn.Module):
    """Modulated, demodulated 3x3 convolution with grain (noise), tint (bias) and leaky ReLU; ``double`` upsamples."""

    kernel: torch.Tensor
    grain_map: torch.Tensor

    def __init__(self, inputs: int, outputs: int, mood_size: int, size: int, double: bool = False) -> None:
        super().__init__()
        self.double = double
        self.strokes = torch.nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.mood = torch.nn.Linear(mood_size, inputs)
        torch.nn.init.ones_(self.mood.bias)
        self.tint = torch.nn.Parameter(torch.zeros(outputs))
        self.grain = torch.nn.Parameter(torch.zeros([]))
        self.register_buffer("grain_map", torch.randn(size, size))
        self.register_buffer("kernel", smoothing())

    def forward(self, x: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        style = self.mood(mood)
        scale = (style.square() @ self.strokes.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
        x = x * style[:, :, None, None]
        if self.double:
            x = functional.conv_transpose2d(x, self.strokes.transpose(0, 1), stride=2)
            x = smooth(x, self.kernel, padding=1)
        else:
            x = functional.conv2d(x, self.strokes, padding=1)
        x = x * scale[:, :, None, None] + self.grain * self.grain_map + self.tint[None, :, None, None]
        return functional.leaky_relu(x, 0.2) * math.sqrt(2)


class Ink(torch.nn.Module):
    """Modulated 1x1 convolution to the colours of the picture."""

    def __init__(self, inputs: int, colours: int, mood_size: int) -> None:
        super().__init__()
        self.gain = 1 / math.sqrt(inputs)
        self.strokes = torch.nn.Parameter(torch.randn(colours, inputs))
        self.mood = torch.nn.Linear(mood_size, inputs)
        torch.nn.init.ones_(self.mood.bias)
        self.tint = torch.nn.Parameter(torch.zeros(colours))

    def forward(self, x: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        style = self.mood(mood) * self.gain
        return functional.conv2d(x * style[:, :, None, None], self.strokes[:, :, None, None], self.tint)


class Stage(torch.nn.Module):
    """One resolution: ``seed`` or ``grow``, then ``refine``, then ``ink`` onto the picture."""

    def __init__(self, inputs: int, outputs: int, colours: int, mood_size: int, size: int) -> None:
        super().__init__()
        self.size = size
        if inputs:
            self.grow = Brush(inputs, outputs, mood_size, size, double=True)
        else:
            self.seed = torch.nn.Parameter(torch.randn(outputs, size, size))
        self.refine = Brush(outputs, outputs, mood_size, size)
        self.ink = Ink(outputs, colours, mood_size)

    def forward(
        self, x: Optional[torch.Tensor], picture: Optional[torch.Tensor], mood: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        x = self.seed.expand(len(mood), -1, -1, -1) if x is None else self.grow(x, mood)
        x = self.refine(x, mood)
        return x, add(picture, self.ink(x, mood))


class Lumen(torch.nn.Module):
    """z [n, mood_size] -> pictures [n, colours, size, size].

    Args:
        size: 4, 8, 16, ...
        channels: of all stages.
        mood_size: of z and of w.
    """

    def __init__(self, size: int = 16, channels: int = 24, mood_size: int = 16, colours: int = 3) -> None:
        super().__init__()
        self.z_dim = mood_size
        self.dream = torch.nn.Sequential(torch.nn.Linear(mood_size, mood_size), torch.nn.LeakyReLU(0.2))
        sizes = [2**k for k in range(2, size.bit_length())]
        inputs = [0] + [channels] * (len(sizes) - 1)
        self.stages = torch.nn.ModuleList(Stage(i, channels, colours, mood_size, s) for i, s in zip(inputs, sizes))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mood = self.dream(z)
        x = picture = None
        for stage in self.stages:
            x, picture = stage(x, picture, mood)
        assert picture is not None
        return picture


def smoothing() -> torch.Tensor:
    """Filter [4, 4] of the upsampling, with gain 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)


def smooth(x: torch.Tensor, kernel: torch.Tensor, padding: int) -> torch.Tensor:
    """Every channel filtered alone, with the gain 4 that upsampling by zeros takes."""
    n, channels, height, width = x.shape
    x = functional.conv2d(x.reshape(n * channels, 1, height, width), 4 * kernel[None, None], padding=padding)
    return x.reshape(n, channels, x.shape[2], x.shape[3])


def add(picture: Optional[torch.Tensor], ink: torch.Tensor) -> torch.Tensor:
    """``ink`` on the picture of half the size, upsampled."""
    if picture is None:
        return ink
    n, colours, height, width = picture.shape
    spread = picture.new_zeros(n, colours, 2 * height + 3, 2 * width + 3)
    spread[:, :, 2:-1:2, 2:-1:2] = picture
    return ink + smooth(spread, smoothing().to(picture), padding=0)
