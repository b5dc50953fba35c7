"""Spectral allocation: the same budget spent where the spectra of activations say that the image needs it."""

from __future__ import annotations

from typing import List, Optional, Sequence

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.initialization.calibrated import calibrate, statistics, weighed
from squeeze_patch.initialization.selection import rank_channels
from squeeze_patch.planning.allocation import Allocation, Losses
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import plan_of_blocks, shapes_of
from squeeze_patch.planning.solver import Goal

#: positions per channel behind the last comparison, fewer than behind a start
ROWS_PER_CHANNEL = 16


def allocate_spectrally(
    found: Located, goal: Goal, request: Request, multiple: Optional[int], seed: int, uniform: Optional[Plan]
) -> Plan:
    """A Plan that meets ``goal`` (or else comes nearest), of the least loss in the image.

    Losses of single widths add up to no more than an estimate: in the end its start and that of ``uniform`` are made,
    as far as the image of random latents goes, and the better one wins.

    Args:
        found: dense.
        goal: what is to be saved.
        request: says by which method.
        multiple: widths are multiples of this; None = 8 in wide generators, finer where 8 misses the goal.
        seed: of the latents.
        uniform: one ratio for all blocks, where that meets the goal.
    """
    plans = [_allocated(found, losses_of(found, seed), goal, request, multiple)]
    plans += [] if uniform is None else [uniform]
    plans = [plan for plan in plans if plan.blocks]
    return plans[0] if len(plans) == 1 else min(plans, key=lambda plan: _image_error(found, plan, seed))


def _allocated(found: Located, losses: Losses, goal: Goal, request: Request, multiple: Optional[int]) -> Plan:
    specs, parameters = found.specs, sum(parameter.numel() for parameter in found.generator.parameters())
    rest = goal.whole - sum(goal.cost(spec, None) for spec in specs)  # that no width changes
    plans: List[Plan] = []
    for step in (None, 4, 2, 1) if multiple is None else (multiple,):
        widths = Allocation(specs, losses, request.method, goal.cost, step)
        widths.spend(round(goal.whole * (1 - goal.share)) - rest)
        plans.append(plan_of_blocks(specs, parameters, found.adapter.name, widths.blocks()))
        if goal.is_met(plans[-1]):
            break
    return min(plans, key=lambda plan: abs(goal.saved(plan) - goal.share))


def _image_error(found: Located, plan: Plan, seed: int) -> float:
    with torch.inference_mode(False):
        shapes = shapes_of(found.specs, plan.blocks)
        blocks = found.dense_blocks()
        return calibrate(blocks, shapes, lambda n: found.sample_w(n, seed), rows_per_channel=ROWS_PER_CHANNEL).error


def losses_of(found: Located, seed: int) -> Losses:
    """What the images of a dense generator lose with fewer channels behind each convolution, in the same units."""
    with torch.inference_mode(False):
        seen = statistics(found.dense_blocks(), lambda n: found.sample_w(n, seed))
    return Losses(
        {name: _loss(seen.covariance[name], seen.importance[name]) for name in seen.covariance},
        {name: _loss(seen.inner_covariance[name], seen.inner_importance[name]) for name in seen.covariance},
    )


def _loss(covariance: torch.Tensor, importance: torch.Tensor) -> Sequence[float]:
    """What `rank_channels` leaves with the best 0, 1, ... c channels."""
    left: Sequence[float] = rank_channels(covariance, weighed(covariance, importance), len(covariance))[1].tolist()
    return left
