"""Spectral allocation: the same budget spent where the spectra of activations say that the image needs it."""

from __future__ import annotations

import functools
import itertools
from typing import List, Optional, Sequence

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.calibrated import Statistics, image_errors, is_large, statistics, weighed
from squeeze_patch.initialization.selection import rank_channels
from squeeze_patch.planning.allocation import Allocation, Losses
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import plan_of_blocks, shapes_of
from squeeze_patch.planning.solver import Goal
from squeeze_patch.progress import Progress, Tell, nothing


def allocate_spectrally(
    found: Located,
    goal: Goal,
    request: Request,
    multiple: Optional[int],
    seed: int,
    uniform: Optional[Plan],
    has_inner: bool = True,
    progress: Optional[Progress] = None,
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
        has_inner: whether there may be fewer channels behind conv0.
        progress: called with ("allocating", steps done, steps in all); of large generators first with none done.
    """
    steps = itertools.count(1)
    total = 1 + len(found.specs) * (1 if uniform is None else 2)  # gradients, statistics, and the rivals

    def tell() -> None:
        if progress is not None:
            progress("allocating", next(steps), total)

    if progress is not None and is_large(found.specs):
        progress("allocating", 0, total)
    seen = statistics_of(found, seed, tell)
    plans = [allocated(found, losses_of(seen), goal, request, multiple, has_inner)]
    plans += [] if uniform is None else [uniform]
    plans = [plan for plan in plans if plan.blocks]
    if not plans:
        raise PlanError("no allocation makes this generator smaller: its blocks have too few channels")
    return better_start(found, plans, seen, seed, tell)


def better_start(found: Located, plans: Sequence[Plan], seen: Statistics, seed: int, tell: Tell = nothing) -> Plan:
    """The plan whose start, made as far as the image of random latents goes, comes nearest to the dense images;
    ``tell`` is called for each block."""
    if len(plans) == 1:
        return plans[0]
    with torch.inference_mode(False):
        rivals = [shapes_of(found.specs, plan.blocks) for plan in plans]
        sample_w = functools.partial(found.sample_w, seed=seed)
        errors = image_errors(found.dense_blocks(), rivals, sample_w, seen.gradients, tell=tell)
    return plans[errors.index(min(errors))]


def allocated(
    found: Located, losses: Losses, goal: Goal, request: Request, multiple: Optional[int], has_inner: bool
) -> Plan:
    """The Plan of the least sum of ``losses`` that meets ``goal``, or else comes nearest; it may have no blocks."""
    specs, parameters = found.specs, sum(parameter.numel() for parameter in found.generator.parameters())
    rest = goal.whole - sum(goal.cost(spec, None) for spec in specs)  # that no width changes
    plans: List[Plan] = []
    for step in (None, 4, 2, 1) if multiple is None else (multiple,):
        widths = Allocation(specs, losses, request.method, goal.cost, step, has_inner)
        widths.spend(round(goal.whole * (1 - goal.share)) - rest)
        plans.append(plan_of_blocks(specs, parameters, found.adapter.name, widths.blocks()))
        if goal.is_met(plans[-1]):
            break
    return min(plans, key=lambda plan: abs(goal.saved(plan) - goal.share))


def statistics_of(found: Located, seed: int, tell: Tell = nothing) -> Statistics:
    """Of a dense generator on random latents; ``tell`` as for `calibrated.statistics`."""
    with torch.inference_mode(False):
        return statistics(found.dense_blocks(), lambda n: found.sample_w(n, seed), tell=tell)


def losses_of(seen: Statistics) -> Losses:
    """What the images lose with fewer channels behind each convolution, in the same units."""
    return Losses(
        {name: _loss(seen.outer[name], seen.gradients.outer[name]) for name in seen.outer},
        {name: _loss(seen.inner[name], seen.gradients.inner[name]) for name in seen.inner},
    )


def _loss(covariance: torch.Tensor, gradient: torch.Tensor) -> Sequence[float]:
    """What `rank_channels` leaves with the best 0, 1, ... c channels."""
    left: Sequence[float] = rank_channels(covariance, weighed(covariance, gradient), len(covariance))[1].tolist()
    return left
