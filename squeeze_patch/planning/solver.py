"""From a request to a Plan: how many channels each block keeps between conv1 and its readers. Pure arithmetic on block
descriptions; nothing here touches a generator.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.errors import PlanError
from squeeze_patch.planning.multiply_adds import multiply_adds, saved_multiply_adds
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import block_parameters, plan_of_blocks

#: the paper's figure: 12.1 % fewer generator parameters
DEFAULT_REDUCTION = 0.121
#: squeezed widths are multiples of this where a block has at least `FEW` times as many channels
MULTIPLE = 8
FEW = 4
#: how far a reduction may be from what was asked for before finer multiples are tried
TOLERANCE = 0.003


def width_for(channels: int, ratio: float, multiple: Optional[int] = None) -> int:
    """q for a block of c channels: c / ratio, rounded to a multiple, never below one multiple nor above c.

    The multiple is 8 (tensor cores like it) where c is at least 32, else 1.
    """
    step = multiple or (MULTIPLE if channels >= FEW * MULTIPLE else 1)
    return min(max(math.floor(channels / (step * ratio) + 0.5) * step, step), channels)


def is_of_ratio(blocks: Sequence[BlockPlan], ratio: float) -> bool:
    """Whether some multiple makes these widths of one ratio."""
    multiples = [None, *range(1, 1 + max((block.width for block in blocks), default=0))]
    return any(all(width_for(b.channels, ratio, m) == b.width for b in blocks) for m in multiples)


def solve(
    specs: Sequence[BlockSpec],
    parameters: int,
    family: str,
    request: Request,
    multiple: Optional[int] = None,
    *,
    or_nearest: bool = False,
) -> Plan:
    """The Plan for a generator of ``parameters`` parameters (dense) with blocks ``specs``.

    Where nothing is asked for, ``reduction=DEFAULT_REDUCTION``. The reduction, or share of multiply-adds, that comes
    out is the nearest that one ratio for all blocks can give; ``allocate`` and ``milliseconds`` count elsewhere.
    ``or_nearest``: also where what was asked for is out of reach.

    Raises:
        PlanError: contradictory or impossible requests; the message states what can be reached.
    """

    def build(chosen: Mapping[str, int], at_ratio: Optional[float]) -> Plan:
        blocks = [block_of(s, chosen[s.name], request.method) for s in specs if s.name in chosen]
        return plan_of_blocks(specs, parameters, family, blocks, at_ratio)

    def uniform(at_ratio: float, step: Optional[int]) -> Plan:
        return build({s.name: width_for(s.channels, at_ratio, step) for s in specs}, at_ratio)

    if request.widths is not None:
        return build(_checked_widths(specs, request.widths), None)
    if request.ratio is not None:
        return uniform(float(request.ratio), multiple)
    return _nearest(uniform, [s.channels for s in specs], multiple, goal_of(specs, parameters, request), or_nearest)


BlockCost = Callable[[BlockSpec, Optional[BlockShape]], int]


@dataclass(frozen=True)
class Goal:
    """What a plan is to save.

    Attributes:
        share: of what the dense generator has, 0 to 1.
        of: "parameters" or "multiply-adds".
        whole: how many the dense generator has.
        cost: those of one block, as far as they depend on its shape.
        saved: what a plan saves of them, 0 to 1.
    """

    share: float
    of: str
    whole: int
    cost: BlockCost
    saved: Callable[[Plan], float]

    def is_met(self, plan: Plan) -> bool:
        """To `TOLERANCE`."""
        return abs(self.saved(plan) - self.share) <= TOLERANCE


def goal_of(specs: Sequence[BlockSpec], parameters: int, request: Request) -> Goal:
    """The goal of a request that names a reduction, a share of multiply-adds, or nothing."""
    assert request.milliseconds is None, "no share says what is to be saved for a time"
    if request.multiply_adds is not None:
        whole = sum(multiply_adds(spec, None) for spec in specs)
        share = 1 - float(request.multiply_adds)
        return Goal(share, "multiply-adds", whole, multiply_adds, lambda plan: saved_multiply_adds(specs, plan))
    share = DEFAULT_REDUCTION if request.reduction is None else float(request.reduction)
    return Goal(share, "parameters", parameters, block_parameters, lambda plan: plan.reduction)


def is_nearest(plan: Plan, specs: Sequence[BlockSpec], goal: Goal) -> bool:
    """Whether an allocation saves more than was asked for, and with one channel more, wherever, would save less: in
    narrow generators one is more than `TOLERANCE`."""
    if goal.saved(plan) < goal.share:
        return False
    for index, block in enumerate(plan.blocks):
        for inner, width in ((block.inner_width + 1, block.width), (block.inner_width, block.width + 1)):
            if max(inner, width) <= block.channels:
                excite = plan.method == "squeeze" and width < block.channels
                wider = replace(block, inner=inner, width=width, excite=excite, kept=None, kept_inner=None)
                blocks = (*plan.blocks[:index], wider, *plan.blocks[index + 1 :])
                if goal.saved(plan_of_blocks(specs, plan.parameters_before, plan.family, blocks)) >= goal.share:
                    return False
    return True


def block_of(spec: BlockSpec, width: int, method: str) -> BlockPlan:
    """A block of ``width`` channels behind conv1 and, where it is narrowed, behind conv0 as well."""
    narrow = method == "narrow"
    inner = width if narrow else None
    return BlockPlan(spec.name, spec.resolution, spec.channels, width, inner=inner, excite=not narrow)


def _checked_widths(specs: Sequence[BlockSpec], widths: Mapping[int, int]) -> Dict[str, int]:
    by_resolution = {spec.resolution: spec for spec in specs}
    if not widths:
        raise PlanError("widths is empty: nothing would be squeezed")
    chosen: Dict[str, int] = {}
    for resolution, width in widths.items():
        is_number = isinstance(width, numbers.Real) and not isinstance(width, bool) and math.isfinite(width)
        if not (isinstance(resolution, numbers.Integral) and is_number):
            raise PlanError(f"widths are {{resolution: channels}} in whole numbers, not {resolution!r}: {width!r}")
        spec = by_resolution.get(int(resolution))
        if spec is None:
            raise PlanError(f"widths names resolution {resolution}; this generator has {sorted(by_resolution)}")
        if int(width) != width or not 1 <= width <= spec.channels:
            raise PlanError(
                f"width {width} at resolution {resolution}: it has to be a whole number from 1 to {spec.channels}"
            )
        chosen[spec.name] = int(width)
    return chosen


def _nearest(
    uniform: Callable[[float, Optional[int]], Plan],
    channels: Sequence[int],
    multiple: Optional[int],
    goal: Goal,
    or_nearest: bool,
) -> Plan:
    """The plan nearest to ``goal``. In narrow generators multiples of 8 are coarse stairs; finer ones are taken, one
    after another, where the coarser miss the target by more than `TOLERANCE`."""
    best: Optional[Plan] = None
    reached: List[float] = []
    for step in (None, 4, 2, 1) if multiple is None else (multiple,):
        plans = [plan for plan in (uniform(r, step) for r in _ratios(channels, step)) if goal.saved(plan) > 0]
        reached += [goal.saved(plan) for plan in plans]
        best = min([best, *plans] if best else plans, key=lambda p: abs(goal.saved(p) - goal.share), default=None)
        if best is not None and goal.share > 0 and goal.is_met(best):
            return best
    if best is None:
        raise PlanError("no ratio makes this generator smaller: its blocks have too few channels")
    if not or_nearest and not min(reached) <= goal.share <= max(reached):
        in_what = "" if goal.of == "parameters" else f" in {goal.of}"
        raise PlanError(
            f"a reduction of {goal.share:.1%}{in_what} is out of reach: this generator can be made {min(reached):.1%} "
            f"to {max(reached):.1%} smaller by one ratio for all blocks. Ask for as much, or for a ratio (--ratio)"
        )
    return best


def _ratios(channels: Sequence[int], multiple: Optional[int]) -> List[float]:
    """One ratio for every set of widths that `width_for` can give, ascending: the widths are a staircase in the ratio,
    with steps where c / (step * ratio) + 1/2 is whole."""
    edges = {1.0}
    for c in set(channels):
        step = multiple or (MULTIPLE if c >= FEW * MULTIPLE else 1)
        edges.update(c / (step * (k + 0.5)) for k in range(c // step + 1) if c / (step * (k + 0.5)) > 1)
    ordered = [*sorted(edges), 2 * max(edges)]
    return [1.0] + [round((low + high) / 2, 6) for low, high in zip(ordered, ordered[1:])]
