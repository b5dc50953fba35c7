"""A generator's features and images, computed from its weights alone.

Own arithmetic on the effective weights of `DenseBlock` and `SqueezedStart`: no host code runs, no data is needed,
everything is float32 on the CPU. Of sides above 16 only a window of 16 positions is computed, at a random place inside
the window before, so that a 1024x1024 generator costs little more than a 64x64 one. Every layer of a sample gets the
same style vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, Iterator, List, Optional, Sequence, Tuple, Union

import torch

from squeeze_patch.adapters.content import ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.connection import upsample2d

#: height and width of the windows, where the map has as many
WINDOW = 16
#: positions of the map before that a window needs on either side of its own half: the up-convolution and conv1 read
#: one each; at the edge of the map there is nothing, which is zeros to both
MARGIN = 2
#: numbers in the features that `run` computes at a time: the allocator keeps that much at hand, beyond it every
#: operation gets fresh memory from the system
CHUNK = 1 << 22
Size = Tuple[int, int]


@dataclass(frozen=True)
class BlockWindow:
    """Where the samples of one block are computed, and on which noise inputs.

    Attributes:
        crops: upper left corner [n, 2] of what each sample reads of the window before, ``MARGIN`` zeros around that
            counted in; None where whole maps are computed.
        inside: 1 in the map [n, 1, h + 4, w + 4], 0 elsewhere, for a window of [h, w]: it and two positions around it,
            one for each convolution; None as above.
        noise0, noise1: noise inputs [n, 1, height, width] for conv0 and conv1.
    """

    crops: Optional[torch.Tensor]
    inside: Optional[torch.Tensor]
    noise0: torch.Tensor
    noise1: torch.Tensor

    def part(self, samples: slice) -> BlockWindow:
        """The same of some of the samples."""
        crops, inside = (None if x is None else x[samples] for x in (self.crops, self.inside))
        return replace(self, crops=crops, inside=inside, noise0=self.noise0[samples], noise1=self.noise1[samples])


def sample_windows(blocks: Sequence[DenseBlock], counts: Sequence[int], seed: int) -> List[BlockWindow]:
    """Random windows and noise inputs for every block.

    Args:
        blocks: all blocks of one generator in running order, of resolutions 4, 8, 16, ...
        counts: samples of each block, none more than those of the block before.
    """
    random = torch.Generator().manual_seed(seed)
    windows: List[BlockWindow] = []
    corners = torch.zeros([counts[0], 2], dtype=torch.int64)
    window = (0, 0)
    for block, n in zip(blocks, counts):
        sides, crops, inside = block.spec.height_width, None, None
        before, window = window, _window(block)
        if window != sides:
            crops = _crops(corners[:n], before, sides, window, random)
            corners = 2 * (corners[:n] + crops)
            rows, columns = (
                _within(corners[:, dim, None] + torch.arange(-2, window[dim] + 2), sides[dim]) for dim in (0, 1)
            )
            inside = (rows[:, :, None] * columns[:, None, :])[:, None]
        margin = 0 if crops is None else 1
        shape = [n, 1, *(side + 2 * margin for side in window)]  # of conv0's output
        if block.noise == "uniform":
            noise0 = torch.rand(shape, generator=random)
            noise1 = noise0 if crops is None else _inner(noise0, 1)
        else:
            noise0 = torch.randn(shape, generator=random)
            noise1 = torch.randn([n, 1, *window], generator=random)
        windows.append(BlockWindow(crops, inside, noise0, noise1))
    return windows


def _window(block: DenseBlock) -> Size:
    """Height and width of what is computed of a map; of the first block all, whose constant may have any size."""
    height, width = block.spec.height_width
    return (height, width) if block.const is not None else (min(height, WINDOW), min(width, WINDOW))


def positions(block: DenseBlock) -> int:
    """How many of a block's are computed, of one sample."""
    height, width = _window(block)
    return height * width


def _within(places: torch.Tensor, side: int) -> torch.Tensor:
    """1 where a place is in a map of that side, 0 elsewhere."""
    return ((places >= 0) & (places < side)).float()


def _crops(corners: torch.Tensor, has: Size, sides: Size, window: Size, random: torch.Generator) -> torch.Tensor:
    """Offsets [n, 2] of the halves of the next windows, of maps of ``sides``, anywhere inside the windows at
    ``corners``, of size ``has``, of the maps before, of half those sides.

    Where a window does not touch the edge of its map, the margin has to lie inside it.
    """
    before, size = torch.tensor([side // 2 for side in sides]), torch.tensor(has)
    half = torch.tensor(window) // 2
    low = torch.where(corners == 0, 0, MARGIN)
    high = size - half - torch.where(corners + size == before, 0, MARGIN)
    return low + (torch.rand(corners.shape, generator=random) * (high - low + 1)).long()


def inner(block: DenseBlock, x: Optional[torch.Tensor], ws: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """conv0's activations, or the constant, as conv1 reads them: times its style.

    Args:
        x: features of the block before [n, in_channels, h, w], whole or its window; None for the first block.
        ws: style vectors [n, w_dim].
        window: of this block and these samples.

    Returns:
        [n, p, h, w] of the whole map; or [n, p, h + 2, w + 2], its window and one position around it.
    """
    if block.conv0 is None:
        assert block.const is not None
        h = block.const.expand(len(ws), -1, -1, -1)  # [n, c, 4, 4]
    else:
        if block.const is not None:
            x = block.const.expand(len(ws), -1, -1, -1)
        assert x is not None
        convolve = _convolve_bilinear if block.spec.upsampling == "bilinear" else _convolve_fir
        h = _activate(convolve(block, block.conv0, x, ws, window), block.conv0, window.noise0)
        h = h if window.inside is None else h * _inner(window.inside, 1)
    return h * block.conv1.style(ws)[:, :, None, None]


def outer(block: DenseBlock, styled: torch.Tensor, ws: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """conv1's activations [n, q, h, w], of the whole map or its window, from what `inner` returns."""
    y = torch.nn.functional.conv2d(styled, block.conv1.weight, padding=1 if window.inside is None else 0)
    y = y * _demodulation(block.conv1, block.conv1.style(ws))
    return _activate(y, block.conv1, window.noise1)


def without_margin(styled: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """What `inner` returns at the positions of conv1's activations: [n, p, h, w]."""
    return styled if window.inside is None else _inner(styled, 1)


def torgb(block: Union[DenseBlock, SqueezedStart], x: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
    """The block's share of the image: [n, channels that it reads, h, w] -> [n, img_channels, h, w]."""
    weight = block.rgb_weight[None] * block.rgb_style(ws)[:, None, :]  # [n, img_channels, q]
    return (weight @ x.flatten(2)).reshape(len(x), -1, *x.shape[2:]) + block.rgb_bias[None, :, None, None]


def upsample(image: torch.Tensor, block: DenseBlock, window: BlockWindow) -> torch.Tensor:
    """The image before, at the size of a block and, where there are windows, in its window; of the window's samples."""
    image = image[: len(window.noise1)]
    if block.spec.upsampling == "bilinear":
        image = _bilinear(image, window, border=1)
        if window.inside is not None:
            image = _reflect(image, _inner(window.inside, 1))
        return _filter(image, block.fir)
    if window.crops is None:
        return upsample2d(image, block.fir)
    return _inner(upsample2d(_cut(image, window), block.fir), 2 * MARGIN)


def excite(start: SqueezedStart, x: torch.Tensor) -> torch.Tensor:
    """All c channels from the kept ones: [n, q, h, w] -> [n, c, h, w]."""
    assert start.excite_weight is not None
    assert start.excite_bias is not None
    return (start.excite_weight @ x.flatten(2) + start.excite_bias[:, None]).reshape(len(x), -1, *x.shape[2:])


def run_inner(block: DenseBlock, x: Optional[torch.Tensor], ws: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """`inner` without gradients, some samples at a time; ``x`` may have more samples than the window."""
    return _in_parts(inner, block, x, ws, window)


def run_outer(block: DenseBlock, styled: torch.Tensor, ws: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """`outer` likewise."""
    return _in_parts(outer, block, styled, ws, window)


def _in_parts(
    layer: Callable[..., torch.Tensor], block: DenseBlock, x: Optional[torch.Tensor], ws: torch.Tensor, at: BlockWindow
) -> torch.Tensor:
    size = max(CHUNK // (block.spec.channels * at.noise1[0].numel()), 1)
    parts = []
    with torch.no_grad():
        for start in range(0, len(at.noise1), size):
            some = slice(start, min(start + size, len(at.noise1)))
            parts.append(layer(block, None if x is None else x[some], ws[some], at.part(some)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def run(block: DenseBlock, x: Optional[torch.Tensor], ws: torch.Tensor, window: BlockWindow) -> torch.Tensor:
    """conv1's activations from the features before the block, likewise."""
    return run_outer(block, run_inner(block, x, ws, window), ws, window)


@dataclass(frozen=True)
class DenseStep:
    """One block of the dense generator at work, of n samples.

    Attributes:
        block, window: the block, and where it is computed.
        x: features that it reads [m, in_channels, h, w], of m >= n samples; None for the first block.
        styled: what conv1 reads, as of `inner`.
        y: conv1's activations [n, c, h, w].
        image: so far [n, img_channels, h, w].
    """

    block: DenseBlock
    window: BlockWindow
    x: Optional[torch.Tensor]
    styled: torch.Tensor
    y: torch.Tensor
    image: torch.Tensor


def dense_run(blocks: Sequence[DenseBlock], counts: Sequence[int], ws: torch.Tensor, seed: int) -> Iterator[DenseStep]:
    """The dense generator, block by block.

    Args:
        blocks, counts, seed: as for `sample_windows`.
        ws: style vectors [n, w_dim] for as many samples as the first block has.
    """
    x: Optional[torch.Tensor] = None
    image: Optional[torch.Tensor] = None
    for block, window in zip(blocks, sample_windows(blocks, counts, seed)):
        n = len(window.noise1)
        styled = run_inner(block, x, ws[:n], window)
        y = run_outer(block, styled, ws[:n], window)
        rgb = torgb(block, y, ws[:n])
        image = rgb if image is None else upsample(image, block, window) + rgb
        yield DenseStep(block, window, x, styled, y, image)
        x = y


def counts(blocks: Sequence[DenseBlock], per_channel: int, samples: int, rows: int = 0) -> List[int]:
    """Samples of each block: enough for what is wanted of it, and of the blocks behind it, which start from its.

    Args:
        per_channel: positions wanted of a block, per channel.
        samples: wanted of a block, at least.
        rows: positions wanted of a block, at least.
    """
    found: List[int] = []
    for block in reversed(blocks):
        wanted = max(per_channel * block.spec.channels, rows)
        found.insert(0, max(math.ceil(wanted / positions(block)), samples, *found[:1]))
    return found


def rows(x: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w] -> [n * h * w, c]."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _modulate(x: torch.Tensor, conv: ConvWeights, ws: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Styled input and the demodulation factor of every output: Karras et al. 2020 (StyleGAN2), equations 1 and 3."""
    style = conv.style(ws)  # [n, in]
    return x * style[:, :, None, None], _demodulation(conv, style)


def _demodulation(conv: ConvWeights, style: torch.Tensor) -> torch.Tensor:
    """Styles [n, in] -> [n, out, 1, 1]."""
    power = style.square() @ conv.weight.square().sum(dim=[2, 3]).t()  # [n, out]
    return (power + 1e-8).rsqrt()[:, :, None, None]


def _activate(x: torch.Tensor, conv: ConvWeights, noise: torch.Tensor) -> torch.Tensor:
    strength = conv.noise_strength
    if isinstance(strength, torch.Tensor):
        x = x + strength[None, :, None, None] * noise
    elif strength:
        x = x + strength * noise
    x = x + conv.bias[None, :, None, None]
    return torch.nn.functional.leaky_relu(x, conv.slope) * conv.gain


def _convolve_fir(
    block: DenseBlock, conv: ConvWeights, x: torch.Tensor, ws: torch.Tensor, window: BlockWindow
) -> torch.Tensor:
    """conv0 with zero insertion in front and a filter behind: the whole map, or the window and one position around."""
    x = x if window.crops is None else _cut(x, window)
    x, demodulation = _modulate(x, conv, ws)
    cut, padding = (0, 1) if window.crops is None else (MARGIN, 0)  # of a window only what the filter reads
    x = torch.nn.functional.conv_transpose2d(x, conv.weight.transpose(0, 1), stride=2, padding=cut)
    return _filter(x, block.fir.flip([0, 1]) * 4, padding=padding) * demodulation


def _convolve_bilinear(
    block: DenseBlock, conv: ConvWeights, x: torch.Tensor, ws: torch.Tensor, window: BlockWindow
) -> torch.Tensor:
    """conv0 on bilinearly upsampled features, zeros around the map; the same positions."""
    if block.const is None:
        x = _bilinear(x, window, border=2)
    if window.inside is not None:
        x = x * window.inside
    x, demodulation = _modulate(x, conv, ws)
    return torch.nn.functional.conv2d(x, conv.weight, padding=1 if window.inside is None else 0) * demodulation


def _bilinear(x: torch.Tensor, window: BlockWindow, border: int) -> torch.Tensor:
    """Bilinear upsampling by two that repeats the map's border: of the window and ``border`` positions around it, or of
    the whole map, which has one reflected position around it for ``border`` 1."""
    x = x if window.crops is None else _cut(x, window, "replicate")
    x = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    if window.crops is not None:
        return _inner(x, 2 * MARGIN - border)
    return torch.nn.functional.pad(x, [1] * 4, mode="reflect") if border == 1 else x


def _reflect(x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """The outermost positions, where they are outside of the map, become those that are as far inside of its edge."""
    for dim in (2, 3):
        first, last = (inside.select(dim, edge).amax(dim=-1, keepdim=True) > 0 for edge in (0, -1))
        low = torch.where(first, x.select(dim, 0), x.select(dim, 2))
        high = torch.where(last, x.select(dim, -1), x.select(dim, -3))
        x = torch.cat([low.unsqueeze(dim), x.narrow(dim, 1, x.shape[dim] - 2), high.unsqueeze(dim)], dim=dim)
    return x


def _filter(x: torch.Tensor, kernel: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """Every channel correlated with ``kernel`` [k, k]."""
    channels = x.shape[1]
    return torch.nn.functional.conv2d(x, kernel.expand(channels, 1, -1, -1), padding=padding, groups=channels)


def _cut(x: torch.Tensor, window: BlockWindow, border: str = "constant") -> torch.Tensor:
    """Half of a window [h, w] and its margins of every sample, from the window before: [n, c, ...] -> [n, c, h/2 + 2
    MARGIN, w/2 + 2 MARGIN].

    Outside of the map are zeros ("constant") or its border ("replicate").
    """
    assert window.crops is not None
    height, width = (side // 2 + 2 * MARGIN for side in window.noise1.shape[2:])
    padded = torch.nn.functional.pad(x, [MARGIN] * 4, mode=border)
    return torch.stack([one[:, i : i + height, j : j + width] for one, (i, j) in zip(padded, window.crops.tolist())])


def _inner(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Without so many rows and columns at every edge."""
    return x[:, :, margin:-margin, margin:-margin]
