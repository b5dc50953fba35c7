"""Spends parameters where a trained generator's images need them: widths per block, from its activations."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.adapters.located import Located
from squeeze_patch.initialization.calibrated import statistics
from squeeze_patch.initialization.selection import rank_channels
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import saved_parameters, squeezed_to
from squeeze_patch.planning.solver import FEW, MULTIPLE, TOLERANCE, solve


def allocate_spectrally(found: Located, uniform: Plan, multiple: Optional[int], seed: int) -> Plan:
    """A Plan of as many parameters as ``uniform`` (to 0.3 points, else the nearest), of the least error in the image.

    The error of a block at q channels is what `rank_channels` leaves with the best q of them; errors of blocks add up.

    Args:
        found: dense.
        uniform: states the budget.
        multiple: widths are multiples of this; None = 8, finer where 8 misses the budget.
        seed: of the latents.
    """
    specs = found.specs
    with torch.inference_mode(False):
        seen = statistics(found.dense_blocks(), lambda n: found.sample_w(n, seed))
    errors = {
        spec.name: rank_channels(seen.covariance[spec.name], seen.importance[spec.name], spec.channels)[1].tolist()
        for spec in specs
    }
    budget = uniform.parameters_before - uniform.parameters_after
    plans: List[Plan] = []
    for step in (None, 4, 2, 1) if multiple is None else (multiple,):
        widths = spend(specs, errors, budget, step)
        if widths:
            plans.append(solve(specs, uniform.parameters_before, uniform.family, Request(widths=widths)))
            if abs(plans[-1].reduction - uniform.reduction) <= TOLERANCE:
                return plans[-1]
    return min(plans, key=lambda plan: abs(plan.reduction - uniform.reduction), default=uniform)


def spend(
    specs: Sequence[BlockSpec], errors: Mapping[str, Sequence[float]], budget: int, multiple: Optional[int]
) -> Dict[int, int]:
    """{resolution: width} that saves about ``budget`` parameters at the least sum of errors.

    From all blocks dense, again and again the step to a smaller width that costs least error per parameter saved,
    which walks along the convex hull of what can be had; the last step is shortened to end at the budget.

    Args:
        specs: all blocks.
        errors: {block name: error with 0, 1, ... c channels}.
    """
    state = {spec.name: _Option(spec, None, errors[spec.name]) for spec in specs}
    while True:
        left = budget - sum(option.saved for option in state.values())
        steps = [step for spec in specs for step in _steps(spec, state[spec.name], errors[spec.name], multiple)]
        if left <= 0 or not steps:
            break
        best = min(
            steps, key=lambda step: (step.error - state[step.name].error) / (step.saved - state[step.name].saved)
        )
        here = state[best.name]
        if best.saved - here.saved >= left:
            best = min(
                (step for step in [*steps, here] if step.name == best.name),
                key=lambda step: abs(step.saved - here.saved - left),
            )
            state[best.name] = best
            break
        state[best.name] = best
    return {option.resolution: option.width for option in state.values() if option.width is not None}


class _Option:
    """One block at one width (None: dense): parameters saved, error made."""

    def __init__(self, spec: BlockSpec, width: Optional[int], errors: Sequence[float]) -> None:
        self.name, self.resolution, self.width = spec.name, spec.resolution, width
        self.saved = 0 if width is None else saved_parameters(spec, squeezed_to(spec, width))
        self.error = 0.0 if width is None else float(errors[width])


def _steps(spec: BlockSpec, now: Any, errors: Sequence[float], multiple: Optional[int]) -> List[_Option]:
    step = multiple or (MULTIPLE if spec.channels >= FEW * MULTIPLE else 1)
    widths = range(step, spec.channels + 1, step)
    return [option for option in (_Option(spec, q, errors) for q in widths) if option.saved > now.saved]
