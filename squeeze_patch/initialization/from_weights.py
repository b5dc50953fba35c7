"""From a trained dense block to the start of a squeezed one.

Demodulation, noise, bias and activation act on each output channel alone, so a kept channel of conv1 stays exactly what
it was. What is to be found: which q of c channels to keep, how excite makes the others from them, and what torgb reads.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Dict, Iterator, Mapping, Optional, Sequence

import numpy as np
import torch

from squeeze_patch.adapters.content import Affine, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.initialization import simulation

#: weight of the image against the next block's features when channels are chosen
IMAGE_WEIGHT = 0.05
#: ridge of the regressions, relative to the mean variance of a channel; keeps dead channels from dividing by zero
RIDGE = 1e-6
#: of the start from the weights alone: feature samples per channel, where fewer than one would leave the regressions
#: undetermined
SAMPLES_PER_CHANNEL = 3
#: styles seen by every block, at least
MIN_STYLES = 16

Progress = Callable[[str, int, int], None]


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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations: several threads gain nothing on them, and on a busy machine, waiting for each other,
    they multiply the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    covariance = centred.t() @ centred / len(features)
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


def select_channels(covariance: torch.Tensor, importance: torch.Tensor, width: int) -> torch.Tensor:
    """The ``width`` channels of `rank_channels`, ascending: [q], int64."""
    if width == len(covariance):
        return torch.arange(width)
    return rank_channels(covariance, importance, width)[0].sort().values


def rank_channels(covariance: torch.Tensor, importance: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels in the order in which they are worth keeping.

    Greedy column subset selection: take, again and again, the channel that most reduces
    ``trace(importance @ residual)``, the expected squared error of what reads the features when all of them are
    regressed on the channels taken so far (pivoted Cholesky when importance is the identity).

    Args:
        covariance: of the c features [c, c].
        importance: quadratic form of the readers' error [c, c], symmetric, positive semi-definite.
        width: q, how many to rank.

    Returns:
        channels [q], int64, best first; error that is left with the first 0, 1, ... q of them [q + 1], float64.
    """
    channels = len(covariance)
    # Only the diagonals of the residual R and of R M R are kept up to date; columns of R = C - L L^T are made on
    # demand, so a step costs four matrix-vector products. float32 is enough to rank channels. In numpy: thousands of
    # small torch operations would spend their time waiting for each other's threads on a busy machine.
    scale = covariance.diagonal().mean().clamp_min(1e-300), importance.abs().max().clamp_min(1e-300)
    c = np.asarray(covariance / scale[0], dtype=np.float32)
    m = np.asarray(importance / scale[1], dtype=np.float32)
    factor = np.zeros([width, channels], dtype=np.float32)
    variance = c.diagonal().copy()
    gain = (c * (m @ c)).sum(axis=0)
    floor = 1e-6 * variance.clip(min=0)  # below it a channel is known but for rounding
    free = np.ones(channels, dtype=bool)
    order, errors = [], [float((c * m).sum())]
    for step in range(width):
        known = variance <= floor
        score = np.where(known, -1, gain.clip(min=0) / variance.clip(min=1e-30))
        best = int(np.where(free, score, -2).argmax())
        free[best] = False
        order.append(best)
        errors.append(errors[-1] - max(float(score[best]), 0.0))
        if not known[best]:
            done = factor[:step]
            column = (c[best] - done[:, best] @ done) / np.sqrt(variance[best])
            read = m @ column
            seen = c @ read - (done @ read) @ done
            gain += column * (column * (column @ read) - 2 * seen)
            variance -= np.square(column)
            factor[step] = column
    left = torch.tensor(errors, dtype=torch.float64).clamp_min(0) * scale[0] * scale[1]
    return torch.tensor(order), left


def regress(covariance: torch.Tensor, mean: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares from the kept channels to all: features = kept features @ mix.T + offset; exact on the kept ones.

    Returns:
        mix [c, q], offset [c].
    """
    mix = _ridge_solve(covariance[kept][:, kept], covariance[kept]).t().clone()
    mix[kept] = torch.eye(len(kept), dtype=mix.dtype)
    return mix, mean - mix @ mean[kept]


def fit_excite(dense: torch.Tensor, features: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regression from kept features to all dense ones: dense = features @ mix.T + offset.

    The ridge draws towards the identity on the kept channels, so that where features are the dense ones' own, that is
    what comes out, to the bit.

    Args:
        dense: features to make [p, c], float64.
        features: kept features as they are in the squeezed generator [p, q], float64.
        kept: their channels [q].

    Returns:
        mix [c, q], offset [c].
    """
    mix = torch.zeros([dense.shape[1], len(kept)], dtype=dense.dtype)
    mix[kept] = torch.eye(len(kept), dtype=dense.dtype)
    mean, wanted = features.mean(dim=0), dense.mean(dim=0)
    centred = features - mean
    rest = dense - wanted
    rest[:, kept] -= centred
    inner = centred.t() @ centred
    mix += _ridge_solve(inner, centred.t() @ rest).t()
    return mix, wanted - mix @ mean


def fit_image(
    weight: torch.Tensor, bias: torch.Tensor, styled: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correct torgb's weight [img_channels, q] and bias so that it makes ``image`` of styled features.

    Args:
        styled: kept features times their styles [p, q], float64.
        image: the share of the image that is wanted [p, img_channels], float64.
    """
    mean = styled.mean(dim=0)
    centred = styled - mean
    rest = image - styled @ weight.t() - bias
    correction = _ridge_solve(centred.t() @ centred, centred.t() @ rest).t()
    return weight + correction, bias + rest.mean(dim=0) - correction @ mean


def _ridge_solve(inner: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-300)
    return torch.linalg.solve(inner + ridge * torch.eye(len(inner), dtype=inner.dtype), cross)


def refit_torgb(
    block: DenseBlock, mix: torch.Tensor, offset: torch.Tensor, kept: torch.Tensor, ws: torch.Tensor
) -> tuple[torch.Tensor, Affine, torch.Tensor]:
    """torgb on the kept channels: weight [img_channels, q], style, bias [img_channels].

    With every feature written through ``mix``, the block's share of the image is
    ``sum_k (sum_o t_o mix_ok style_o(w)) f_k``: for each kept channel a matrix [img_channels, 1 + w_dim] acting on
    (w, 1). torgb can represent the best matrix of rank one under the distribution of w, which is all of it for one
    image channel and at ratio 1. Scale and sign follow the dense style, so that averaging weights over training stays
    sound.
    """
    style = torch.cat([block.rgb_style.weight, block.rgb_style.bias[:, None]], dim=1).double()  # [c, w_dim + 1]
    weight = block.rgb_weight.double()
    ones = torch.cat([ws, ws.new_ones([len(ws), 1])], dim=1)
    root = torch.linalg.qr(ones).R / len(ws) ** 0.5  # root.T @ root = second moments of (w, 1)
    wanted = torch.einsum("io,ok,ow->kiw", weight, mix, style)
    seen = wanted @ root.t()
    _, vectors = torch.linalg.eigh(seen @ seen.transpose(1, 2))
    direction = vectors[:, :, -1]  # [q, img_channels]
    new_style = torch.einsum("ki,kiw->kw", direction, wanted)
    old_seen, new_seen = style[kept] @ root.t(), new_style @ root.t()
    scale = new_seen.norm(dim=1) / old_seen.norm(dim=1).clamp_min(1e-300)
    scale = torch.where((old_seen * new_seen).sum(dim=1) < 0, -scale, scale)
    scale = torch.where(scale.abs() < 1e-300, torch.ones_like(scale), scale)
    new_style = new_style / scale[:, None]
    bias = block.rgb_bias.double() + (block.rgb_style(ws.float()).double().mean(dim=0) * weight) @ offset
    return (direction * scale[:, None]).t(), Affine(new_style[:, :-1], new_style[:, -1]), bias


def importance_of(
    block: DenseBlock, reader: Optional[ConvWeights], ws: torch.Tensor, covariance: torch.Tensor
) -> torch.Tensor:
    """Quadratic form of what the block's readers make of an error in its features, each reader's output power set to
    one and then weighted."""
    image = (block.rgb_weight.t() @ block.rgb_weight).double() * _style_moments(block.rgb_style, ws)
    image = image / (image * covariance).sum().clamp_min(1e-300)
    if reader is None:
        return image
    mean_style = reader.style(ws.float().mean(dim=0))
    styled = (reader.weight * mean_style[None, :, None, None]).square().sum(dim=[1, 2, 3], keepdim=True)
    rows = (reader.weight * (styled + 1e-8).rsqrt()).transpose(0, 1).flatten(1)
    features = (rows @ rows.t()).double() * _style_moments(reader.style, ws)
    return features / (features * covariance).sum().clamp_min(1e-300) + IMAGE_WEIGHT * image


def _style_moments(style: Affine, ws: torch.Tensor) -> torch.Tensor:
    values = style(ws.float()).double()
    return values.t() @ values / len(values)
