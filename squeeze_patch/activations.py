"""Samples of a dense generator's features, computed from its weights alone.

Own arithmetic on the effective weights of a `DenseBlock`: no host code runs, no data is needed, everything is float32
on the CPU. At 16x16 and above only a window of 8x8 positions of every feature map is computed, so that a 1024x1024
generator costs little more than a 64x64 one.
"""

from __future__ import annotations

import math
from typing import Iterator, Sequence, Tuple

import torch

from squeeze_patch.adapters.base import ConvWeights, DenseBlock

#: height and width of the window of features computed at 16x16 and above
WINDOW = 8
#: feature samples per channel of a block; fewer than one would leave the regressions undetermined
SAMPLES_PER_CHANNEL = 3
#: styles seen by every block, at least
MIN_STYLES = 16


def styles_needed(blocks: Sequence[DenseBlock]) -> int:
    """How many style vectors `window_features` reads."""
    return max(_styles_for(block) for block in blocks)


def window_features(
    blocks: Sequence[DenseBlock], ws: torch.Tensor, seed: int = 0
) -> Iterator[Tuple[DenseBlock, torch.Tensor]]:
    """Run the dense blocks on windows of the feature maps, with random noise inputs.

    Args:
        blocks: all dense blocks of one generator, in order.
        ws: style vectors [n, w_dim], float32; n as `styles_needed` says. Every layer of a sample gets the same one.
        seed: of the noise inputs and of the windows' places.

    Yields:
        (block, features of conv1 behind its activation [samples, c], float32), block by block.
    """
    random = torch.Generator().manual_seed(seed)
    x = torch.empty(0)
    for block in blocks:
        n = _styles_for(block)
        w = ws[:n]
        size = min(block.spec.resolution, WINDOW)
        windowed = block.spec.resolution > WINDOW
        if block.const is not None:
            h = block.const.expand(n, -1, -1, -1)
        else:
            assert block.conv0 is not None
            x = x[:n]
            x = _random_windows(x, WINDOW // 2 + 3, random) if windowed else x
            h = _up_convolve(x, block.conv0, w, block.fir, random)
            h = _centre(h, size + 2) if windowed else h
        x = _convolve(h, block.conv1, w, 0 if windowed else 1, random)
        yield block, x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _styles_for(block: DenseBlock) -> int:
    positions = min(block.spec.resolution, WINDOW) ** 2
    wanted = math.ceil(SAMPLES_PER_CHANNEL * block.spec.channels / positions)
    return max(wanted, MIN_STYLES)


def _modulate(x: torch.Tensor, conv: ConvWeights, w: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Styled input and the demodulation factor of every output: Karras et al. 2020 (StyleGAN2), equations 1 and 3."""
    style = conv.style(w)
    demodulation = (style.square() @ conv.weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()
    return x * style[:, :, None, None], demodulation[:, :, None, None]


def _activate(x: torch.Tensor, conv: ConvWeights, random: torch.Generator) -> torch.Tensor:
    if conv.noise_strength:
        x = x + conv.noise_strength * torch.randn([x.shape[0], 1, *x.shape[2:]], generator=random)
    x = x + conv.bias[None, :, None, None]
    return torch.nn.functional.leaky_relu_(x, conv.slope) * conv.gain


def _convolve(
    x: torch.Tensor, conv: ConvWeights, w: torch.Tensor, padding: int, random: torch.Generator
) -> torch.Tensor:
    x, demodulation = _modulate(x, conv, w)
    return _activate(torch.nn.functional.conv2d(x, conv.weight, padding=padding) * demodulation, conv, random)


def _up_convolve(
    x: torch.Tensor, conv: ConvWeights, w: torch.Tensor, fir: torch.Tensor, random: torch.Generator
) -> torch.Tensor:
    x, demodulation = _modulate(x, conv, w)
    x = torch.nn.functional.conv_transpose2d(x, conv.weight.transpose(0, 1), stride=2)
    n, c, height, width = x.shape
    x = torch.nn.functional.conv2d(x.reshape(n * c, 1, height, width), fir.flip([0, 1])[None, None] * 4, padding=1)
    return _activate(x.reshape(n, c, *x.shape[2:]) * demodulation, conv, random)


def _random_windows(x: torch.Tensor, size: int, random: torch.Generator) -> torch.Tensor:
    """One window of size x size from every sample, each at a place of its own."""
    corners = torch.randint(x.shape[-1] - size + 1, [x.shape[0], 2], generator=random).tolist()
    return torch.stack([sample[:, i : i + size, j : j + size] for sample, (i, j) in zip(x, corners)])


def _centre(x: torch.Tensor, size: int) -> torch.Tensor:
    margin = (x.shape[-1] - size) // 2
    return x[:, :, margin : margin + size, margin : margin + size]
