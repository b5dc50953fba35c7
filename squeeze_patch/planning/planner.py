"""plan: what a squeeze would do to a generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Optional

import torch

from squeeze_patch.adapters import search
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.registry import SEED
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import dense_parameters, plan_of_blocks
from squeeze_patch.planning.solver import goal_of, solve
from squeeze_patch.planning.spectral import allocate_spectrally
from squeeze_patch.progress import own_settings


def plan(
    G: torch.nn.Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    multiple: Optional[int] = None,
    allocate: str = "uniform",
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    seed: int = SEED,
) -> Plan:
    """Plan the squeeze of a generator, dense or already squeezed; changes nothing.

    Args:
        G: a generator, or a module that holds exactly one, or a training wrapper as for `squeeze_patch.apply`.
        reduction: share of G's parameters to save, 0 to 1; default 0.121, the paper's figure.
        ratio: c / q for every block instead.
        widths: {resolution: q} instead; blocks that are not named stay dense.
        multiple: squeezed widths are multiples of this; default 8, or 1 in blocks of fewer than 32 channels.
        allocate: "uniform" = one ratio for all blocks; "spectral" = the same number of parameters, saved where a
            trained dense G's images change least by it. Blocks may stay dense.
        method: "squeeze" or "narrow"; see `squeeze_patch.apply`.
        multiply_adds: share of G's multiply-adds that an image may take, 0 to 1, instead of ``reduction``.
        seed: of the latents that "spectral" looks at.

    Raises:
        UnsupportedModelError: no adapter knows the generator.
        PlanError: the request is impossible or contradictory; the message states what can be reached.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> plan = squeeze_patch.plan(trained_generator(), widths={32: 16})
        >>> plan.widths, plan.parameters_before - plan.parameters_after
        ({32: 16}, 5680)
    """
    request = Request(reduction, ratio, widths, allocate=allocate, method=method, multiply_adds=multiply_adds)
    return plan_for(search(G).reference, request, multiple=multiple, seed=seed)


@own_settings()
def plan_for(found: Located, request: Request, *, multiple: Optional[int] = None, seed: int = SEED) -> Plan:
    """The Plan that ``request`` means on a generator; one that it brings along is checked to be of the family.

    Raises:
        PlanError: as for `plan`.
    """
    family = found.adapter.name
    given = request.plan or request.like
    if given is not None and given.family != family:
        raise PlanError(f"the plan is for a generator of family {given.family}, this one is of family {family}")
    if request.plan is not None:
        return request.plan
    specs = found.specs
    if request.like is not None:
        return _counted(request.like, found)
    if request.allocate == "uniform":
        return solve(specs, dense_parameters(found.generator, specs), family, request, multiple)
    if any(spec.width is not None for spec in specs):
        raise PlanError("allocate='spectral' reads a dense generator's activations; this one is squeezed already")
    return _spectral(found, request, multiple, seed)


def _spectral(found: Located, request: Request, multiple: Optional[int], seed: int) -> Plan:
    """As much saved as was asked for, which one ratio for all blocks may miss, or may not reach."""
    before = dense_parameters(found.generator, found.specs)
    goal = goal_of(found.specs, before, request)
    uniform: Optional[Plan] = None
    out_of_reach: Optional[PlanError] = None
    try:
        uniform = solve(found.specs, before, found.adapter.name, request, multiple)
    except PlanError as error:
        if not 0 < goal.share < 1:
            raise
        out_of_reach = error
    if uniform is not None and request.ratio is not None:
        goal = replace(goal, share=goal.saved(uniform))
    rival = uniform if uniform is not None and goal.is_met(uniform) else None
    found_plan = allocate_spectrally(found, goal, request, multiple, seed, rival)
    if out_of_reach is not None and not goal.is_met(found_plan):
        raise out_of_reach
    return found_plan


def _counted(like: Plan, found: Located) -> Plan:
    """A relative's plan, with the parameters of this generator."""
    specs = found.specs
    before = dense_parameters(found.generator, specs)
    counted = plan_of_blocks(specs, before, like.family, like.blocks)
    return replace(like, parameters_before=before, parameters_after=counted.parameters_after)
