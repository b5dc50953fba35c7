"""Which q of a block's c channels stay: those whose loss its readers would feel most."""

from __future__ import annotations

from typing import Optional

import numpy as np
import torch

from squeeze_patch.adapters.content import Affine, ConvWeights, DenseBlock

#: weight of the image against the next block's features when channels are chosen
IMAGE_WEIGHT = 0.05


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
    factor = np.zeros([width, channels], dtype=np.float32)  # [q, c]
    variance = c.diagonal().copy()  # [c]
    gain = (c * (m @ c)).sum(axis=0)  # [c]
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


def importance_of(
    block: DenseBlock, reader: Optional[ConvWeights], ws: torch.Tensor, covariance: torch.Tensor
) -> torch.Tensor:
    """Quadratic form of what the block's readers make of an error in its features, each reader's output power set to
    one and then weighted."""
    image = (block.rgb_weight.t() @ block.rgb_weight).double() * _style_moments(block.rgb_style, ws)
    image = image / (image * covariance).sum().clamp_min(1e-300)
    if reader is None:
        return image
    mean_style = reader.style(ws.float().mean(dim=0))  # [c]
    styled = (reader.weight * mean_style[None, :, None, None]).square().sum(dim=[1, 2, 3], keepdim=True)
    rows = (reader.weight * (styled + 1e-8).rsqrt()).transpose(0, 1).flatten(1)  # [c, out k k]
    features = (rows @ rows.t()).double() * _style_moments(reader.style, ws)
    return features / (features * covariance).sum().clamp_min(1e-300) + IMAGE_WEIGHT * image


def _style_moments(style: Affine, ws: torch.Tensor) -> torch.Tensor:
    values = style(ws.float()).double()  # [n, c]
    return values.t() @ values / len(values)
