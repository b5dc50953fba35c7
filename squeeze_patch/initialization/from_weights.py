"""The start from the weights: every block by simple statistics of its own activations, in seconds.

Demodulation, noise, bias and activation act on each output channel alone, so a kept channel of conv1 stays exactly what
it was. What is to be found: which q of c channels to keep, how excite makes the others from them, and what torgb reads.
"""

from __future__ import annotations

from typing import Dict, Mapping, Optional

import torch

from squeeze_patch.adapters.content import (
    Affine,
    BlockShape,
    BlockSpec,
    ConvWeights,
    DenseBlock,
    Kept,
    SqueezedStart,
)
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.fitting import BlockFit, Choose, Student
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.regression import refit_torgb, regress
from squeeze_patch.initialization.selection import importance_of, select_channels
from squeeze_patch.progress import Progress, one_thread

#: feature samples per channel, where fewer than one would leave the regressions undetermined
SAMPLES_PER_CHANNEL = 3
#: the same where convolutions are refitted, too: errors of one block are in the samples of the next
REFIT_SAMPLES_PER_CHANNEL = 12
#: styles seen by every block, at least
MIN_STYLES = 16


def starts_from_weights(
    observed: Observation,
    shapes: Mapping[str, BlockShape],
    kept: Optional[Mapping[str, Kept]] = None,
    progress: Optional[Progress] = None,
) -> Dict[str, SqueezedStart]:
    """Starts for all blocks of one generator, from its trained weights alone.

    Args:
        observed: the dense generator.
        shapes: {block name: sizes} of those to squeeze, or to narrow.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all).
    """
    blocks = observed.blocks
    refit = any(_has_new_convolutions(block.spec, shapes) for block in blocks)
    counts = simulation.counts(blocks, REFIT_SAMPLES_PER_CHANNEL if refit else SAMPLES_PER_CHANNEL, MIN_STYLES)
    ws = observed.sample_w(max(counts))
    starts = {}
    student = Student()
    with torch.no_grad():
        for index, step in enumerate(simulation.dense_run(blocks, counts, ws, seed=0)):
            block, name = step.block, step.block.spec.name
            given = None if kept is None else kept.get(name)
            reader = blocks[index + 1].conv0 if index + 1 < len(blocks) else None
            with one_thread():
                if name in shapes and refit:
                    fit = BlockFit(step, shapes[name], student, ws[: len(step.y)])
                    starts[name] = fit.start(given, _chooser(block, reader, ws))
                    student = fit.after()
                elif name in shapes:
                    outputs = None if given is None else given.outputs
                    starts[name] = start_block(block, reader, simulation.rows(step.y), ws, shapes[name].width, outputs)
                elif refit:
                    student = student.through(step, ws[: len(step.y)])
            if progress is not None:
                progress(name, index + 1, len(blocks))
    return starts


def _has_new_convolutions(spec: BlockSpec, shapes: Mapping[str, BlockShape]) -> bool:
    """Whether a block is more than the paper's, whose convolutions read what they read before."""
    shape = shapes.get(spec.name)
    return shape is not None and shape != BlockShape(spec.dense_inputs, spec.channels, shape.width)


def _chooser(block: DenseBlock, reader: Optional[ConvWeights], ws: torch.Tensor) -> Choose:
    """Which channels stay, by the weights of what reads them."""

    def choose(which: str, rows: torch.Tensor, width: int) -> torch.Tensor:
        centred = (rows - rows.mean(dim=0)).double()
        covariance = centred.t() @ centred / len(rows)  # [c, c]
        if which == "outputs":
            return select_channels(covariance, importance_of(block, reader, ws.double(), covariance), width)
        read = block.conv1.weight.transpose(0, 1).flatten(1).double()  # [c, out k k]
        return select_channels(covariance, read @ read.t(), width)

    return choose


def start_block(
    block: DenseBlock,
    reader: Optional[ConvWeights],
    features: torch.Tensor,
    ws: torch.Tensor,
    width: int,
    kept: Optional[torch.Tensor] = None,
) -> SqueezedStart:
    """Start of one squeezed block.

    Args:
        block: the dense block.
        reader: conv0 of the next block, None behind the last block.
        features: conv1's activations [samples, c].
        ws: style vectors [n, w_dim].
        width: q.
        kept: the channels to keep [q], ascending; chosen here where not given.
    """
    features, ws = features.double(), ws.double()
    mean = features.mean(dim=0)
    centred = features - mean
    covariance = centred.t() @ centred / len(features)  # [c, c]
    if kept is None:
        kept = select_channels(covariance, importance_of(block, reader, ws, covariance), width)
    mix, offset = regress(covariance, mean, kept)
    rgb_weight, rgb_style, rgb_bias = refit_torgb(block, mix, offset, kept, ws)
    is_last = block.spec.is_last
    return SqueezedStart(
        kept=Kept(kept),
        excite_weight=None if is_last else mix.float(),
        excite_bias=None if is_last else offset.float(),
        rgb_weight=rgb_weight.float(),
        rgb_style=Affine(rgb_style.weight.float(), rgb_style.bias.float()),
        rgb_bias=rgb_bias.float(),
    )
