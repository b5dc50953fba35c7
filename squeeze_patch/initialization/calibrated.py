"""The calibrated start: from what a trained generator does on random latents, block by block.

Beside the dense generator the one that is being squeezed is simulated. Each of its blocks is fitted on the features
that reach it through the blocks squeezed before, so that errors are corrected where they can be instead of adding up:

- channels stay that matter to the image: greedily, by the Gauss-Newton matrix of the image's error (`_gradients`);
- excite is the regression from the kept channels, as they are in the squeezed generator, to all dense ones;
- toRGB is refitted to the dense image at its resolution minus what the squeezed image has there already, so that a
  resolution makes good what those below it could not.

Only one block's features are held at a time, of as many positions as its regressions need.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import Affine, BlockSpec, DenseBlock, SqueezedStart
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.regression import fit_excite, fit_image, refit_torgb
from squeeze_patch.initialization.selection import importance_of, select_channels
from squeeze_patch.initialization.simulation import BlockWindow
from squeeze_patch.progress import Progress, one_thread

#: (covariance [c, c], importance [c, c], q) -> the channels to keep [q], ascending
Select = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]

#: positions sampled for a block, per channel; the regressions have one unknown per kept channel and output
ROWS_PER_CHANNEL = 64
MIN_ROWS = 8192
#: samples of a block, at least: positions of one sample are alike
MIN_SAMPLES = 64
#: samples whose gradients are taken, in all and at a time
GRADIENTS, GRADIENT_BATCH = 32, 8
#: weight of the readers' own error beside the image's when channels are chosen: it ranks what few gradients miss
READER_WEIGHT = 0.1
#: multiply-adds for one image below which one thread is the fastest
SMALL = 1 << 29


@dataclass(frozen=True)
class Statistics:
    """Of the dense generator, {block name: matrix [c, c]}: ``covariance`` of conv1's output, and ``importance``, the
    quadratic form of what an error in it does to the image (positions of the block together)."""

    covariance: Dict[str, torch.Tensor]
    importance: Dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Rows:
    """One block at all positions of all samples: conv1's activations in the dense generator [p, c] and, as yet all of
    them, in the squeezed one [p, c]; the share of the image that toRGB should make [p, img_channels]."""

    dense: torch.Tensor
    squeezed: torch.Tensor
    image: torch.Tensor


def calibrated_starts(
    blocks: Sequence[DenseBlock],
    widths: Mapping[str, int],
    sample_w: Callable[[int], torch.Tensor],
    kept: Optional[Mapping[str, torch.Tensor]] = None,
    progress: Optional[Progress] = None,
    seed: int = 0,
    select: Select = select_channels,
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks to squeeze of one dense generator.

    Args:
        blocks: all dense blocks in running order.
        widths: {block name: q} of those to squeeze.
        sample_w: n -> style vectors [n, w_dim] of random latents.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all).
        seed: of noise inputs and positions.
        select: chooses the channels.
    """
    with _threads(blocks):
        counts = _counts(blocks)
        all_ws = sample_w(max(*counts, GRADIENTS))
        gradients = {} if kept is not None else _gradients(blocks, all_ws[:GRADIENTS], seed)
        starts: Dict[str, SqueezedStart] = {}
        x: Optional[torch.Tensor] = None  # features and image so far of the squeezed generator
        image: Optional[torch.Tensor] = None
        for index, (block, window, y, target) in enumerate(simulation.dense_run(blocks, counts, all_ws, seed)):
            name, ws = block.spec.name, all_ws[: len(y)]
            f = y if x is None else simulation.run(block, x, ws, window)
            below = torch.zeros_like(target) if image is None else simulation.upsample(image, block, window)
            if name in widths:
                rows = _Rows(*map(simulation.rows, (y, f, target - below)))
                if kept is not None:
                    chosen = kept[name]
                else:
                    covariance = _covariance(rows.dense)
                    importance = _importance(blocks, index, covariance, gradients[name], all_ws)
                    chosen = select(covariance, importance, widths[name])
                starts[name] = _fit(block, rows, chosen, all_ws)
                image = below + simulation.torgb(starts[name], f[:, chosen], ws)
                x = None if block.spec.is_last else simulation.excite(starts[name], f[:, chosen])
            else:
                image, x = below + simulation.torgb(block, f, ws), f
            if progress is not None:
                progress(name, index + 1, len(blocks))
    return starts


def statistics(blocks: Sequence[DenseBlock], sample_w: Callable[[int], torch.Tensor], seed: int = 0) -> Statistics:
    """What the planner needs to spend parameters where they matter (``allocate="spectral"``); arguments as above."""
    covariance = {}
    with _threads(blocks):
        counts = _counts(blocks)
        ws = sample_w(max(*counts, GRADIENTS))
        importance = _gradients(blocks, ws[:GRADIENTS], seed)
        for block, _, y, _ in simulation.dense_run(blocks, counts, ws, seed):
            covariance[block.spec.name] = _covariance(simulation.rows(y))
    return Statistics(covariance, importance)


def _threads(blocks: Sequence[DenseBlock]) -> ContextManager[None]:
    """Small generators get one thread, where more of them only wait for each other."""
    return one_thread() if sum(_multiply_adds(block.spec) for block in blocks) < SMALL else contextlib.nullcontext()


def _importance(
    blocks: Sequence[DenseBlock], index: int, covariance: torch.Tensor, gradient: torch.Tensor, ws: torch.Tensor
) -> torch.Tensor:
    """What an error in the block's features does to the image and, of little weight, to its readers [c, c]."""
    reader = blocks[index + 1].conv0 if index + 1 < len(blocks) else None
    importance = READER_WEIGHT * importance_of(blocks[index], reader, ws.double(), covariance)
    power = (gradient * covariance).sum()
    return importance + gradient / power if power > 0 else importance  # else none of it reaches the image


def _fit(block: DenseBlock, rows: _Rows, kept: torch.Tensor, ws: torch.Tensor) -> SqueezedStart:
    """``ws`` are the style vectors of the rows' samples, in their order, and more."""
    features = rows.squeezed[:, kept].double()  # [p, q]
    mix, offset = fit_excite(rows.dense.double(), features, kept)
    weight, style, bias = refit_torgb(block, mix, offset, kept, ws.double())
    positions = simulation.positions(block.spec)
    styles = style(ws[: len(features) // positions].double()).repeat_interleave(positions, dim=0)  # [p, q]
    weight, bias = fit_image(weight, bias, features * styles, rows.image.double())
    is_last = block.spec.is_last
    return SqueezedStart(
        kept=kept,
        excite_weight=None if is_last else mix.float(),
        excite_bias=None if is_last else offset.float(),
        rgb_weight=weight.float(),
        rgb_style=Affine(style.weight.float(), style.bias.float()),
        rgb_bias=bias.float(),
    )


def _gradients(blocks: Sequence[DenseBlock], ws: torch.Tensor, seed: int) -> Dict[str, torch.Tensor]:
    """{block name: Gauss-Newton matrix of the image's squared error [c, c]}, summed over the block's positions.

    The gradient of a random projection of the image, with independent standard normals, has the Gauss-Newton matrix as
    the expected product with itself. Where there are windows, the image is the last one's.
    """
    sums = {block.spec.name: torch.zeros([block.spec.channels] * 2, dtype=torch.float64) for block in blocks}
    windows = simulation.sample_windows(blocks, [len(ws)] * len(blocks), seed)
    random = torch.Generator().manual_seed(seed)
    for start in range(0, len(ws), GRADIENT_BATCH):
        some = slice(start, start + GRADIENT_BATCH)
        with torch.set_grad_enabled(True):
            found, image = _differentiable(blocks, ws[some], [window.part(some) for window in windows])
            direction = torch.randn(image.shape, generator=random)
            gradients = torch.autograd.grad((image * direction).sum(), found)
        for block, gradient in zip(blocks, gradients):
            rows = simulation.rows(gradient)  # [p, c]
            sums[block.spec.name] += (rows.t() @ rows).double() / len(ws)
    return sums


def _differentiable(
    blocks: Sequence[DenseBlock], ws: torch.Tensor, windows: Sequence[BlockWindow]
) -> Tuple[List[torch.Tensor], torch.Tensor]:
    """conv1's activations of every block, and the image that depends on them."""
    found: List[torch.Tensor] = []
    image: Optional[torch.Tensor] = None
    for block, window in zip(blocks, windows):
        x = simulation.features(block, found[-1] if found else None, ws, window)
        found.append(x if found else x.requires_grad_())
        rgb = simulation.torgb(block, found[-1], ws)
        image = rgb if image is None else simulation.upsample(image, block, window) + rgb
    assert image is not None
    return found, image


def _counts(blocks: Sequence[DenseBlock]) -> List[int]:
    return simulation.counts(blocks, ROWS_PER_CHANNEL, MIN_SAMPLES, MIN_ROWS)


def _multiply_adds(spec: BlockSpec) -> int:
    """Of both convolutions of a dense block for one image."""
    outputs = spec.channels * spec.positions
    return spec.kernel_size**2 * (outputs * spec.channels + outputs * spec.in_channels // 4)


def _covariance(rows: torch.Tensor) -> torch.Tensor:
    centred = (rows - rows.mean(dim=0)).double()  # [p, c]
    return centred.t() @ centred / len(rows)
