"""The start from the weights: every block by simple statistics of its own activations, in seconds.

Demodulation, noise, bias and activation act on each output channel alone, so a kept channel of conv1 stays exactly what
it was. What is to be found: which q of c channels to keep, how excite makes the others from them, and what torgb reads.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.content import Affine, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.regression import refit_torgb, regress
from squeeze_patch.initialization.selection import importance_of, select_channels
from squeeze_patch.progress import Progress, one_thread

#: feature samples per channel, where fewer than one would leave the regressions undetermined
SAMPLES_PER_CHANNEL = 3
#: styles seen by every block, at least
MIN_STYLES = 16


def starts_from_weights(
    blocks: Sequence[DenseBlock],
    widths: Mapping[str, int],
    sample_w: Callable[[int], torch.Tensor],
    kept: Optional[Mapping[str, torch.Tensor]] = None,
    progress: Optional[Progress] = None,
) -> Dict[str, SqueezedStart]:
    """Starts for all blocks of one generator, from its trained weights alone.

    Args:
        blocks: all dense blocks in running order.
        widths: {block name: q} of those to squeeze.
        sample_w: n -> style vectors [n, w_dim] of random latents.
        kept: {block name: kept channels}, where they are given (a generator that must match another's).
        progress: called with (block name, blocks done, blocks in all).
    """
    counts = simulation.counts(blocks, SAMPLES_PER_CHANNEL, MIN_STYLES)
    ws = sample_w(max(counts))
    starts = {}
    with torch.no_grad():
        for index, (block, _, x, _) in enumerate(simulation.dense_run(blocks, counts, ws, seed=0)):
            name, features = block.spec.name, simulation.rows(x)
            if name in widths:
                reader = blocks[index + 1].conv0 if index + 1 < len(blocks) else None
                given = None if kept is None else kept[name]
                with one_thread():
                    starts[name] = start_block(block, reader, features, ws, widths[name], given)
            if progress is not None:
                progress(name, index + 1, len(blocks))
    return starts


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
        kept=kept,
        excite_weight=None if is_last else mix.float(),
        excite_bias=None if is_last else offset.float(),
        rgb_weight=rgb_weight.float(),
        rgb_style=Affine(rgb_style.weight.float(), rgb_style.bias.float()),
        rgb_bias=rgb_bias.float(),
    )
