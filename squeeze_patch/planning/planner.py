"""plan: what a squeeze would do to a generator."""

from __future__ import annotations

import contextlib
import numbers
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters import search, unwrapped
from squeeze_patch.adapters.content import BlockShape
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError, StateError, UnsupportedModelError
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.registry import DEFAULT_INIT, SEED, check_finite, check_init, check_seed
from squeeze_patch.planning.milliseconds import Timing, plan_within
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import dense_parameters, plan_of_blocks
from squeeze_patch.planning.solver import goal_of, is_nearest, is_of_ratio, solve
from squeeze_patch.planning.spectral import allocate_spectrally
from squeeze_patch.process_settings import random_kept
from squeeze_patch.progress import Progress, own_settings


def plan(
    G: torch.nn.Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    multiple: Optional[int] = None,
    allocate: Optional[str] = None,
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    milliseconds: Optional[float] = None,
    init: str = DEFAULT_INIT,
    seed: int = SEED,
) -> Plan:
    """Plan the squeeze of a generator, dense or already squeezed; changes nothing.

    Args:
        G: a generator, or a module that holds exactly one, or a training wrapper as for `squeeze_patch.apply`.
        reduction: share of G's parameters to save, 0 to 1; default 0.121, the paper's figure.
        ratio: c / q for every block instead.
        widths: {resolution: q} instead; blocks that are not named stay dense.
        multiple: squeezed widths are multiples of this; default 8, or 1 in blocks of fewer than 32 channels.
        allocate: "uniform" = one ratio for all blocks; "spectral" = the same budget, saved where a trained dense G's
            images change least by it, of conv0's channels as well (at the official sizes half a minute); blocks may
            stay dense. Default: as `squeeze_patch.apply` does with ``init``.
        method: "squeeze" or "narrow"; see `squeeze_patch.apply`.
        multiply_adds: share of G's multiply-adds that an image may take, 0 to 1, instead of ``reduction``.
        milliseconds: that a call ``G(z, c)`` for one image may take here, instead: the widest plan of a dense G that
            keeps to them, found by timing (seconds to minutes). Times vary, and with them such plans.
        init: the start that is to follow; see `squeeze_patch.apply`.
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
    request = Request(reduction, ratio, widths, None, allocate, None, method, multiply_adds, milliseconds)
    check_init(init)
    seed = check_seed(seed)
    return plan_for(search(unwrapped(G)).reference, request, init, multiple=multiple, seed=seed)


def plan_for(
    found: Located,
    request: Request,
    init: str = DEFAULT_INIT,
    *,
    multiple: Optional[int] = None,
    seed: int = SEED,
    has_inner: bool = True,
    progress: Optional[Progress] = None,
    observed: Optional[Observation] = None,
) -> Plan:
    """The Plan that ``request`` means on a generator, with the start ``init``; one that it brings along is checked to
    be of the family. ``has_inner``: whether an allocation may leave fewer channels behind conv0, where the generator
    allows it; what loads it has to know the Plan then. ``progress`` is told of the allocation, and of the timing for a
    budget in milliseconds.
    ``observed``: the generator on random latents, where the start that follows is to share what a plan computes of it;
    then ``seed`` does not count.

    Raises:
        PlanError: as for `plan`.
    """
    how: Dict[str, Any] = {"multiple": multiple, "seed": seed, "has_inner": has_inner, "progress": progress}
    how["observed"] = observed
    return timed_plan_for(found, request, init, **how)[0]


@own_settings(eager=True)
def timed_plan_for(
    found: Located,
    request: Request,
    init: str = DEFAULT_INIT,
    *,
    multiple: Optional[int] = None,
    seed: int = SEED,
    has_inner: bool = True,
    progress: Optional[Progress] = None,
    observed: Optional[Observation] = None,
) -> Tuple[Plan, Optional[Timing]]:
    """As `plan_for`, and what was measured for a budget in milliseconds.

    Raises:
        PlanError: as for `plan`.
    """
    is_whole = isinstance(multiple, numbers.Integral) and not isinstance(multiple, bool)
    if multiple is not None and not (is_whole and multiple >= 1):
        raise PlanError(f"multiple has to be a positive whole number, not {multiple!r}")
    family = found.adapter.name
    given = request.plan or request.like
    if given is not None and given.family != family:
        raise PlanError(f"the plan is for a generator of family {given.family}, this one is of family {family}")
    if given is not None:
        return _counted(given, found), None
    specs = found.specs
    is_dense = all(spec.shape is None for spec in specs)
    request = request.settled(init == "calibrated" and is_dense)
    if request.allocate == "spectral" and is_dense:
        check_finite(found)
        has_inner = request.method == "narrow" or (has_inner and _is_reshapable(found))
    observed = observed or Observation(found, seed)
    if request.milliseconds is not None:
        how: Dict[str, Any] = {"multiple": multiple, "has_inner": has_inner, "progress": progress}
        return plan_within(found, request, observed=observed, **how)
    if request.allocate == "uniform":
        return solve(specs, dense_parameters(found.generator, specs), family, request, multiple), None
    if not is_dense:
        raise PlanError("allocate='spectral' reads a dense generator's activations; this one is squeezed already")
    return _spectral(observed, request, multiple, has_inner, progress), None


def is_meant(request: Request, found: Located, plan: Plan) -> bool:
    """Whether the ``plan`` of a squeezed generator may be what ``request`` asked for when it was dense. What it did
    then is no longer to be seen: an allocation that meets the same budget by the same method counts as the same."""
    if request.milliseconds is not None:  # nor can it be timed
        return False
    request = request.settled(calibrated=True)
    if request.allocate != "spectral":
        return plan_for(found, request).same_widths(plan)
    uniform: Optional[Plan] = None
    with contextlib.suppress(PlanError):  # one ratio for all blocks may not reach it
        uniform = plan_for(found, request.uniform())
    if uniform is not None and uniform.same_widths(plan):
        return True
    specs = found.specs
    goal = goal_of(specs, dense_parameters(found.generator, specs), request)
    if request.ratio is not None and uniform is not None:
        goal = replace(goal, share=goal.saved(uniform))
    return plan.may_be_by(request.method) and (goal.is_met(plan) or is_nearest(plan, specs, goal))


def _is_reshapable(found: Located) -> bool:
    """Whether conv0 can be built with fewer outputs in all blocks: neither the family nor what a user changed on
    those layers stands against it."""
    with random_kept(), torch.inference_mode(False):
        for spec in found.specs:
            less = max(spec.channels - 1, 1)
            try:
                found.surgery.build(found.network, spec.name, BlockShape(spec.dense_inputs, less, less, excite=True))
            except (UnsupportedModelError, StateError):
                return False
    return True


def _spectral(
    observed: Observation, request: Request, multiple: Optional[int], has_inner: bool, progress: Optional[Progress]
) -> Plan:
    """As much saved as was asked for, which one ratio for all blocks may miss, or may not reach."""
    found = observed.found
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
    found_plan = allocate_spectrally(observed, goal, request, multiple, rival, has_inner, progress)
    saved = goal.saved(found_plan)
    if not goal.is_met(found_plan) and (out_of_reach is not None or saved < goal.share):
        in_what = "" if goal.of == "parameters" else f" in {goal.of}"
        if saved > goal.share:  # what whole multiples leave out; one channel more or less is less than the tolerance
            finer = "" if multiple in (None, 1) else ", or for multiple=1"
            raise PlanError(
                f"a reduction of {goal.share:.1%}{in_what} cannot be met in whole multiples of channels: allocated as "
                f"the images need them, they make this generator {saved:.1%} smaller{in_what}. Ask for as much{finer}"
            ) from out_of_reach
        further = uniform is not None and goal.saved(uniform) > saved
        cure = ", or for one ratio for all blocks (allocate='uniform', --allocate uniform)" if further else ""
        raise PlanError(
            f"a reduction of {goal.share:.1%}{in_what} is out of reach: with channels allocated as the images need "
            f"them, this generator can be made {saved:.1%} smaller{in_what}. Ask for as much{cure}"
        ) from out_of_reach
    return found_plan


def _counted(plan: Plan, found: Located) -> Plan:
    """A plan that was given, with what this generator says of itself: it may be a relative's, or edited by hand."""
    specs = found.specs
    resolutions = {spec.name: spec.resolution for spec in specs}
    blocks = tuple(replace(b, resolution=resolutions.get(b.name, b.resolution)) for b in plan.blocks)
    before = dense_parameters(found.generator, specs)
    after = plan_of_blocks(specs, before, plan.family, blocks).parameters_after
    ratio = plan.ratio if plan.ratio is not None and is_of_ratio(blocks, plan.ratio) else None
    return replace(plan, blocks=blocks, parameters_before=before, parameters_after=after, ratio=ratio)
