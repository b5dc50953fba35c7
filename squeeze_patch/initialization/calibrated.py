"""The calibrated start: from what a trained generator does on random latents, block by block.

Beside the dense generator the one that is being squeezed is simulated. Each of its blocks is fitted on the features
that reach it through the blocks squeezed before, so that errors are corrected where they can be instead of adding up:

- channels stay that matter to the image: greedily, by the Gauss-Newton matrix of the image's error (`observation`);
- where a convolution reads fewer channels than it did, its weights are refitted to what those are in the squeezed
  generator (`regression.refit_conv`);
- excite is the regression from the kept channels, as they are in the squeezed generator, to all dense ones;
- toRGB is refitted to the dense image at its resolution minus what the squeezed image has there already, so that a
  resolution makes good what those below it could not.

Only one block's features are held at a time, of as many positions as its regressions need.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.content import BlockShape, DenseBlock, Kept, SqueezedStart
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.fitting import BlockFit, Choose, Student
from squeeze_patch.initialization.observation import (
    Matrices,
    Observation,
    Rankings,
    covariance_of,
    is_large,
    weighed,
)
from squeeze_patch.initialization.selection import select_channels
from squeeze_patch.initialization.simulation import DenseStep
from squeeze_patch.progress import Progress, Tell, nothing

#: positions sampled for a block, per channel; the regressions have one unknown per kept channel and output
PER_CHANNEL = 64
#: positions, and samples, of a block, at least: positions of one sample are alike
MIN_ROWS, MIN_SAMPLES = 8192, 64
#: the same where starts are only compared
COMPARED_PER_CHANNEL, COMPARED_MIN_ROWS, COMPARED_MIN_SAMPLES = 8, 2048, 16


class _Squeezing:
    """The squeezed generator that is being simulated beside a dense one.

    Args:
        shapes: {block name: sizes} of those to squeeze.
        kept: {block name: kept channels}, where they are given.
        chooser: block name -> what chooses them where they are not.

    Attributes:
        starts: {block name: start}, of the blocks until now.
        error: mean squared error of its image, as far as it is drawn, on the samples that starts are fitted to.
    """

    def __init__(
        self,
        shapes: Mapping[str, BlockShape],
        kept: Optional[Mapping[str, Kept]],
        chooser: Callable[[str], Choose],
    ) -> None:
        self.starts: Dict[str, SqueezedStart] = {}
        self.error = 0.0
        self._shapes, self._kept, self._chooser = shapes, kept, chooser
        self._student = Student()

    def add(self, step: DenseStep, ws: torch.Tensor) -> None:
        """The next block, which the dense generator has run."""
        name, shape = step.block.spec.name, self._shapes.get(step.block.spec.name)
        if shape is None:
            self._student = self._student.through(step, ws)
        else:
            fit = BlockFit(step, shape, self._student, ws)
            self.starts[name] = fit.start(None if self._kept is None else self._kept[name], self._chooser(name))
            self._student = fit.after()
        self.error = float((self._student.drawn - step.image).square().mean())


def calibrated_starts(
    observed: Observation,
    shapes: Mapping[str, BlockShape],
    kept: Optional[Mapping[str, Kept]] = None,
    progress: Optional[Progress] = None,
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks to squeeze, or to narrow, of one dense generator.

    Args:
        observed: the dense generator.
        shapes: {block name: sizes} of those to squeeze.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all); of large generators first with none done.
    """
    blocks = observed.blocks
    if progress is not None and is_large(observed.found.specs):
        progress(blocks[0].spec.name, 0, len(blocks))
    # gradients come first: they need memory for all blocks
    squeezing = _Squeezing(shapes, kept, _by_samples(Matrices({}, {}) if kept is not None else observed.gradients))
    with observed.threads():
        counts = _counts(blocks)
        ws = observed.sample_w(max(counts))
        for index, step in enumerate(simulation.dense_run(blocks, counts, ws, observed.positions_seed)):
            squeezing.add(step, ws[: len(step.y)])
            if progress is not None:
                progress(step.block.spec.name, index + 1, len(blocks))
    return squeezing.starts


def image_errors(
    observed: Observation, rivals: Sequence[Mapping[str, BlockShape]], tell: Tell = nothing
) -> List[float]:
    """What the starts of several plans leave: the mean squared error of the image, on the samples, fewer than for a
    start, that they are fitted to. ``rivals``: the ``shapes`` of each, as above; ``tell`` is called for each block."""
    squeezings = [_Squeezing(shapes, None, _by_rank(observed.rankings)) for shapes in rivals]
    with observed.threads():
        counts = simulation.counts(observed.blocks, COMPARED_PER_CHANNEL, COMPARED_MIN_SAMPLES, COMPARED_MIN_ROWS)
        ws = observed.sample_w(max(counts))
        for step in simulation.dense_run(observed.blocks, counts, ws, observed.positions_seed):
            for squeezing in squeezings:
                squeezing.add(step, ws[: len(step.y)])
            tell()
    return [squeezing.error for squeezing in squeezings]


def _by_samples(gradients: Matrices) -> Callable[[str], Choose]:
    """Which channels of a block stay, by what their errors do to the image, on the samples that a start is fitted to:
    more than rankings go by."""

    def chooser(name: str) -> Choose:
        def choose(which: str, rows: torch.Tensor, width: int) -> torch.Tensor:
            covariance = covariance_of(rows)
            gradient = gradients.inner[name] if which == "inner" else gradients.outer[name]
            return select_channels(covariance, weighed(covariance, gradient), width)

        return choose

    return chooser


def _by_rank(rankings: Rankings) -> Callable[[str], Choose]:
    """Likewise, by what is known of them already."""

    def chooser(name: str) -> Choose:
        def choose(which: str, rows: torch.Tensor, width: int) -> torch.Tensor:
            return (rankings.inner if which == "inner" else rankings.outer)[name].best(width)

        return choose

    return chooser


def _counts(blocks: Sequence[DenseBlock]) -> List[int]:
    """Samples of each block for a start."""
    return simulation.counts(blocks, PER_CHANNEL, MIN_SAMPLES, MIN_ROWS)
