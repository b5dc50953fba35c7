"""The calibrated start: from what a trained generator does on random latents, block by block.

Beside the dense generator the one that is being squeezed is simulated. Each of its blocks is fitted on the features
that reach it through the blocks squeezed before, so that errors are corrected where they can be instead of adding up:

- channels stay that matter to the image: greedily, by the Gauss-Newton matrix of the image's error (`_gradients`);
- where a convolution reads fewer channels than it did, its weights are refitted to what those are in the squeezed
  generator (`regression.refit_conv`);
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

from squeeze_patch.adapters.content import BlockShape, BlockSpec, DenseBlock, Kept, SqueezedStart
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.fitting import BlockFit, Choose, Student
from squeeze_patch.initialization.selection import select_channels
from squeeze_patch.initialization.simulation import BlockWindow, DenseStep
from squeeze_patch.progress import Progress, Tell, nothing, one_thread

#: (covariance [c, c], importance [c, c], q) -> the channels to keep [q], ascending
Select = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]

#: positions sampled for a block, per channel; the regressions have one unknown per kept channel and output
ROWS_PER_CHANNEL = 64
MIN_ROWS = 8192
#: samples of a block, at least: positions of one sample are alike
MIN_SAMPLES = 64
#: samples whose gradients are taken, in all and at a time
GRADIENTS, GRADIENT_BATCH = 32, 8
#: weight of what all channels count alike for, beside the image's error, when they are chosen
RIDGE = 1e-3
#: positions of a block, per channel, behind the covariances that say how many channels it needs
STATISTICS_PER_CHANNEL = 16
#: of the positions behind a start, how many are enough to compare shapes
COMPARED = 0.25
#: multiply-adds for one image below which one thread is the fastest
SMALL = 1 << 29


@dataclass(frozen=True)
class Gradients:
    """{block name: Gauss-Newton matrix of the image's squared error [c, c]}, summed over the block's positions: of an
    error in conv1's output, and in what it reads, conv0's output times the style."""

    outer: Dict[str, torch.Tensor]
    inner: Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Statistics:
    """Of the dense generator: ``gradients``, and the covariances [c, c] of the same activations."""

    outer: Dict[str, torch.Tensor]
    inner: Dict[str, torch.Tensor]
    gradients: Gradients


class _Squeezing:
    """The squeezed generator that is being simulated beside a dense one.

    Attributes:
        starts: {block name: start}, of the blocks until now.
        error: mean squared error of its image, as far as it is drawn, on the samples that starts are fitted to.
    """

    def __init__(
        self,
        shapes: Mapping[str, BlockShape],
        gradients: Optional[Gradients],
        kept: Optional[Mapping[str, Kept]],
        select: Select,
    ) -> None:
        self.starts: Dict[str, SqueezedStart] = {}
        self.error = 0.0
        self._shapes, self._gradients, self._kept, self._select = shapes, gradients, kept, select
        self._student = Student()

    def add(self, step: DenseStep, ws: torch.Tensor) -> None:
        """The next block, which the dense generator has run."""
        name, shape = step.block.spec.name, self._shapes.get(step.block.spec.name)
        if shape is None:
            self._student = self._student.through(step, ws)
        else:
            fit = BlockFit(step, shape, self._student, ws)
            given = None if self._kept is None else self._kept[name]
            self.starts[name] = fit.start(given, _chooser(name, self._gradients, self._select))
            self._student = fit.after()
        self.error = float((self._student.drawn - step.image).square().mean())


def calibrated_starts(
    blocks: Sequence[DenseBlock],
    shapes: Mapping[str, BlockShape],
    sample_w: Callable[[int], torch.Tensor],
    kept: Optional[Mapping[str, Kept]] = None,
    progress: Optional[Progress] = None,
    seed: int = 0,
    select: Select = select_channels,
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks to squeeze, or to narrow, of one dense generator.

    Args:
        blocks: all dense blocks in running order.
        shapes: {block name: sizes} of those to squeeze.
        sample_w: n -> style vectors [n, w_dim] of random latents.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all); of large generators first with none done.
        seed: of noise inputs and positions.
        select: chooses the channels.
    """
    if progress is not None and is_large([block.spec for block in blocks]):
        progress(blocks[0].spec.name, 0, len(blocks))
    with _threads(blocks):
        counts = _counts(blocks)
        all_ws = sample_w(max(*counts, GRADIENTS))
        with_inner = any(shapes[s.name].inner < s.channels for s in (b.spec for b in blocks) if s.name in shapes)
        gradients = None if kept is not None else _gradients(blocks, all_ws[:GRADIENTS], seed, with_inner)
        squeezing = _Squeezing(shapes, gradients, kept, select)
        for index, step in enumerate(simulation.dense_run(blocks, counts, all_ws, seed)):
            squeezing.add(step, all_ws[: len(step.y)])
            if progress is not None:
                progress(step.block.spec.name, index + 1, len(blocks))
    return squeezing.starts


def image_errors(
    blocks: Sequence[DenseBlock],
    rivals: Sequence[Mapping[str, BlockShape]],
    sample_w: Callable[[int], torch.Tensor],
    gradients: Gradients,
    seed: int = 0,
    tell: Tell = nothing,
) -> List[float]:
    """What the starts of several wishes leave: the mean squared error of the image, on the samples, fewer than for a
    start, that they are fitted to. Arguments as above, ``rivals`` with the ``shapes`` of each; ``tell`` is called for
    each block."""
    with _threads(blocks):
        counts = _counts(blocks, COMPARED)
        all_ws = sample_w(max(counts))
        squeezings = [_Squeezing(shapes, gradients, None, select_channels) for shapes in rivals]
        for step in simulation.dense_run(blocks, counts, all_ws, seed):
            for squeezing in squeezings:
                squeezing.add(step, all_ws[: len(step.y)])
            tell()
    return [squeezing.error for squeezing in squeezings]


def _chooser(name: str, gradients: Optional[Gradients], select: Select) -> Choose:
    """Which channels of a block stay, by what their errors do to the image."""

    def choose(which: str, rows: torch.Tensor, width: int) -> torch.Tensor:
        assert gradients is not None
        covariance = _covariance(rows)
        gradient = gradients.inner[name] if which == "inner" else gradients.outer[name]
        return select(covariance, weighed(covariance, gradient), width)

    return choose


def statistics(
    blocks: Sequence[DenseBlock],
    sample_w: Callable[[int], torch.Tensor],
    seed: int = 0,
    tell: Tell = nothing,
) -> Statistics:
    """What the planner needs to spend parameters where they matter (``allocate="spectral"``); arguments as above, and
    ``tell`` is called once more, for the gradients."""
    with _threads(blocks):
        counts = simulation.counts(blocks, STATISTICS_PER_CHANNEL, MIN_SAMPLES, MIN_ROWS)
        ws = sample_w(max(*counts, GRADIENTS))
        found = Statistics({}, {}, _gradients(blocks, ws[:GRADIENTS], seed))
        tell()
        for step in simulation.dense_run(blocks, counts, ws, seed):
            name, styled = step.block.spec.name, simulation.without_margin(step.styled, step.window)
            found.outer[name] = _covariance(simulation.rows(step.y))
            found.inner[name] = _covariance(simulation.rows(styled))
            tell()
    return found


def _threads(blocks: Sequence[DenseBlock]) -> ContextManager[None]:
    """Small generators get one thread, where more of them only wait for each other."""
    return contextlib.nullcontext() if is_large([block.spec for block in blocks]) else one_thread()


def is_large(specs: Sequence[BlockSpec]) -> bool:
    """Whether the work on a dense generator of these blocks takes more than a moment."""
    return sum(map(_multiply_adds, specs)) >= SMALL


def weighed(covariance: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The Gauss-Newton matrix [c, c], and by a little all channels alike, which ranks what few gradients miss."""
    power = (gradient * covariance).sum()
    ridge = RIDGE * (power if power > 0 else 1) / covariance.trace().clamp_min(1e-300)
    return gradient + ridge * torch.eye(len(gradient), dtype=gradient.dtype)


def _gradients(blocks: Sequence[DenseBlock], ws: torch.Tensor, seed: int, with_inner: bool = True) -> Gradients:
    """The gradient of a random projection of the image, with independent standard normals, has the Gauss-Newton matrix
    as the expected product with itself. Where there are windows, the image is the last one's."""
    none = {block.spec.name: torch.zeros([block.spec.channels] * 2, dtype=torch.float64) for block in blocks}
    sums = Gradients(none, {name: matrix.clone() for name, matrix in none.items()} if with_inner else {})
    windows = simulation.sample_windows(blocks, [len(ws)] * len(blocks), seed)
    random = torch.Generator().manual_seed(seed)
    for start in range(0, len(ws), GRADIENT_BATCH):
        some = slice(start, start + GRADIENT_BATCH)
        parts = [window.part(some) for window in windows]
        with torch.set_grad_enabled(True):
            outer, inner, image = _differentiable(blocks, ws[some], parts)
            direction = torch.randn(image.shape, generator=random)
            gradients = torch.autograd.grad((image * direction).sum(), [*outer, *(inner if with_inner else [])])
        kinds = [sums.outer, sums.inner] if with_inner else [sums.outer]
        for (matrices, block), gradient in zip(((kind, block) for kind in kinds for block in blocks), gradients):
            rows = simulation.rows(gradient)  # [p, c]
            matrices[block.spec.name] += (rows.t() @ rows).double() / len(ws)
    return sums


def _differentiable(
    blocks: Sequence[DenseBlock], ws: torch.Tensor, windows: Sequence[BlockWindow]
) -> Tuple[List[torch.Tensor], List[torch.Tensor], torch.Tensor]:
    """conv1's activations of every block, what conv1 reads, and the image that depends on them."""
    outer: List[torch.Tensor] = []
    inner: List[torch.Tensor] = []
    image: Optional[torch.Tensor] = None
    for block, window in zip(blocks, windows):
        styled = simulation.inner(block, outer[-1] if outer else None, ws, window)
        inner.append(styled if outer else styled.requires_grad_())
        outer.append(simulation.outer(block, styled, ws, window))
        rgb = simulation.torgb(block, outer[-1], ws)
        image = rgb if image is None else simulation.upsample(image, block, window) + rgb
    assert image is not None
    return outer, inner, image


def _counts(blocks: Sequence[DenseBlock], share: float = 1.0) -> List[int]:
    """``share``: of the positions that starts are fitted to."""
    samples, rows = max(round(share * MIN_SAMPLES), 1), round(share * MIN_ROWS)
    return simulation.counts(blocks, round(share * ROWS_PER_CHANNEL), samples, rows)


def _multiply_adds(spec: BlockSpec) -> int:
    """Of both convolutions of a dense block for one image."""
    outputs = spec.channels * spec.positions
    return spec.kernel_size**2 * (outputs * spec.channels + outputs * spec.in_channels // 4)


def _covariance(rows: torch.Tensor) -> torch.Tensor:
    centred = (rows - rows.mean(dim=0)).double()  # [p, c]
    return centred.t() @ centred / len(rows)
