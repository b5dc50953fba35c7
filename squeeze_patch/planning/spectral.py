"""Spectral allocation: the same budget spent where the spectra of activations say that the image needs it."""

from __future__ import annotations

import itertools
from typing import List, Optional, Sequence

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.calibrated import image_errors
from squeeze_patch.initialization.observation import Observation, is_large
from squeeze_patch.planning.allocation import FEWEST, Allocation, Losses
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import plan_of_blocks, shapes_of
from squeeze_patch.planning.solver import Goal
from squeeze_patch.progress import Progress, Tell, nothing


def allocate_spectrally(
    observed: Observation,
    goal: Goal,
    request: Request,
    multiple: Optional[int],
    uniform: Optional[Plan],
    has_inner: bool = True,
    progress: Optional[Progress] = None,
) -> Plan:
    """A Plan that meets ``goal`` (or else comes nearest), of the least loss in the image.

    Losses of single widths add up to no more than an estimate: in the end its start and that of ``uniform`` are made,
    as far as the image of random latents goes, and the better one wins.

    Args:
        observed: the dense generator.
        goal: what is to be saved.
        request: says by which method.
        multiple: widths are multiples of this; None = 8 in wide generators, finer where 8 misses the goal.
        uniform: one ratio for all blocks, where that meets the goal.
        has_inner: whether there may be fewer channels behind conv0.
        progress: called with ("allocating", steps done, steps in all); of large generators first with none done.
    """
    specs = observed.found.specs
    steps = itertools.count(1)
    total = 1 + len(specs) * (1 if uniform is None else 2)  # gradients, covariances, and the rivals

    def tell() -> None:
        if progress is not None:
            progress("allocating", next(steps), total)

    if progress is not None and is_large(specs):
        progress("allocating", 0, total)
    observed.look(tell)
    plans = [allocated(observed.found, losses_of(observed), goal, request, multiple, has_inner)]
    plans += [] if uniform is None else [uniform]
    plans = [plan for plan in plans if plan.blocks]
    if not plans:
        raise PlanError(
            f"no allocation makes this generator smaller: its blocks have too few channels, of which it leaves "
            f"{FEWEST} or more. One ratio for all blocks may (allocate='uniform', --allocate uniform)"
        )
    return better_start(observed, plans, tell)


def better_start(observed: Observation, plans: Sequence[Plan], tell: Tell = nothing) -> Plan:
    """The plan whose start, made as far as the image of random latents goes, comes nearest to the dense images;
    ``tell`` is called for each block."""
    if len(plans) == 1:
        return plans[0]
    with torch.inference_mode(False):
        errors = image_errors(observed, [shapes_of(observed.found.specs, plan.blocks) for plan in plans], tell)
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


def losses_of(observed: Observation) -> Losses:
    """What the images lose with fewer channels behind each convolution, in the same units."""
    rankings = observed.rankings
    return Losses(
        {name: ranking.left.tolist() for name, ranking in rankings.outer.items()},
        {name: ranking.left.tolist() for name, ranking in rankings.inner.items()},
    )
