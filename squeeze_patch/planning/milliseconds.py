"""Budgets in milliseconds: the widest plan whose generator answers in time here. Time is no sum over blocks, so that
plans of several shares of the multiply-adds are built and timed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Dict, List, Optional, Tuple

from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.registry import SEED
from squeeze_patch.planning.allocation import Losses
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import dense_parameters
from squeeze_patch.planning.solver import Goal, goal_of, solve
from squeeze_patch.planning.spectral import allocated, better_start, losses_of
from squeeze_patch.planning.stopwatch import Stopwatch, TimedPlan
from squeeze_patch.progress import Progress

#: shares of the multiply-adds that the search tells apart
RESOLUTION = 0.03
#: what is kept free of the time, for the spread of later measurements
MARGIN = 0.02
#: times as long by the clock as by the processor's time: then it is told
BUSY = 1.15
#: a share of the multiply-adds that no plan goes below
NARROWEST = 1e-9
#: plans that are timed, as progress has it, and at most
USUAL, MOST_PLANS = 6, 12


@dataclass(frozen=True)
class Timing:
    """What was measured for a budget in milliseconds. A call is ``G(z, c)`` for one image, mapping network included.

    Attributes:
        milliseconds: that were asked for.
        dense: milliseconds of a dense call, median of all.
        squeezed: of a squeezed call: the median ratio to the dense calls beside it, times ``dense``.
        multiply_adds: share of the dense generator's that the plan leaves, 0 to 1.
        where: device and threads.
        plans: how many were timed.
        waiting: what a dense call took by the clock, over ``dense``: more than 1 where the processor's time counts, see
            `Stopwatch`, and other work wanted it.
    """

    milliseconds: float
    dense: float
    squeezed: float
    multiply_adds: float
    where: str
    plans: int
    waiting: float = 1.0

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        busy = f"; other work makes calls {self.waiting:.1f} times as long now" if self.waiting > BUSY else ""
        return (
            f"{_words(self.dense)} -> {_words(self.squeezed)} for an image here ({self.where}), of "
            f"{self.milliseconds:g} ms asked for; {self.multiply_adds:.2f} of the multiply-adds{busy}"
        )


class _Candidates:
    """Plans by their share of the dense generator's multiply-adds."""

    def __init__(self, observed: Observation, request: Request, multiple: Optional[int], has_inner: bool) -> None:
        self.observed, self.multiple, self.has_inner = observed, multiple, has_inner
        self.found = found = observed.found
        self.request = replace(request, milliseconds=None)
        self.before = dense_parameters(found.generator, found.specs)

    @cached_property
    def losses(self) -> Losses:
        """Once for all plans."""
        return losses_of(self.observed)

    def at(self, share: float) -> Plan:
        """The plan nearest to ``share``, as the request allocates it."""
        if self.request.allocate != "spectral":
            return self.uniform(share)
        return allocated(self.found, self.losses, self._goal(share), self.request, self.multiple, self.has_inner)

    def uniform(self, share: float) -> Plan:
        """As `at`, with one ratio for all blocks."""
        request = replace(self.request.uniform(), multiply_adds=share)
        return solve(self.found.specs, self.before, self.found.adapter.name, request, self.multiple, or_nearest=True)

    def rival_of(self, best: TimedPlan) -> Optional[Plan]:
        """One ratio for all blocks, where losses said what each gets (see `allocate_spectrally`), of so many fewer
        multiply-adds that it is likely to keep to the time as well."""
        if self.request.allocate != "spectral":
            return None
        plan = self.uniform(max(best.share - RESOLUTION / 2, NARROWEST))
        return None if plan.same_widths(best.plan) else plan

    def better(self, plan: Plan, rival: Plan) -> Plan:
        """The one whose start comes nearer to the dense images."""
        return better_start(self.observed, [plan, rival])

    def _goal(self, share: float) -> Goal:
        return goal_of(self.found.specs, self.before, replace(self.request, multiply_adds=share))


def plan_within(
    found: Located,
    request: Request,
    *,
    multiple: Optional[int] = None,
    has_inner: bool = True,
    progress: Optional[Progress] = None,
    observed: Optional[Observation] = None,
) -> Tuple[Plan, Timing]:
    """The widest Plan, to `RESOLUTION`, whose generator answers within ``request.milliseconds``, and what was measured.

    Args:
        found: dense; it is called, and not changed.
        request: with ``milliseconds``, and settled.
        multiple: as for `plan`.
        has_inner: whether an allocation may leave fewer channels behind conv0.
        progress: called with ("timing", plans timed, about how many in all).
        observed: ``found`` on random latents, where an allocation is to share what it does on them.

    Raises:
        PlanError: ``found`` is squeezed, is fast enough as it is, or cannot be made so fast.
        UnsupportedModelError: nothing is known of how generators of its family are run.
    """
    assert request.milliseconds is not None
    limit = float(request.milliseconds)
    if any(spec.width is not None for spec in found.specs):
        raise PlanError(
            "milliseconds are measured from a dense generator on, this one is squeezed already. Call "
            "squeeze_patch.remove(G) first, or start from the dense checkpoint; plan=squeeze_patch.status(G).plan "
            "names what was done to it"
        )
    candidates = _Candidates(observed or Observation(found, SEED), request, multiple, has_inner)
    watch = Stopwatch(found)
    trials = _search(candidates, watch, limit, progress or (lambda what, done, total: None))
    goal = limit * (1 - MARGIN)
    best = _around(trials, goal / watch.dense)[0]
    rival = candidates.rival_of(best)
    if rival is not None:
        trials.append(watch.trial(rival, goal))
        if trials[-1].ratio * watch.dense <= goal and candidates.better(best.plan, rival) is rival:
            best = trials[-1]
    return best.plan, Timing(
        limit, watch.dense, best.ratio * watch.dense, best.share, watch.where, len(trials), watch.waiting
    )


def _search(candidates: _Candidates, watch: Stopwatch, limit: float, tell: Progress) -> List[TimedPlan]:
    """Trials, until none is missing between the widest within ``limit`` milliseconds and the next wider one.

    Time is nearly a straight line in the share: where the line between the two nearest trials meets the limit, the next
    one is made, then the one that is `RESOLUTION` off on the other side. Times may be noisy: every trial counts by its
    ratio to the dense calls beside it, and by the median of all dense calls so far.
    """
    tell("timing", 0, USUAL)
    trials = [watch.trial(candidates.uniform(NARROWEST), limit)]
    if watch.dense > limit and trials[0].ratio * watch.dense > limit and candidates.request.allocate == "spectral":
        trials = [watch.trial(candidates.at(NARROWEST), limit)]  # an allocation goes further than one ratio
    while True:
        _check_reach(watch, trials[0], limit, candidates.request.method)
        goal = limit * (1 - MARGIN) / watch.dense
        tell("timing", len(trials), max(USUAL, len(trials) + 1))
        plan = _next_plan(candidates, trials, goal) if len(trials) < MOST_PLANS else None
        if plan is not None:
            trials.append(watch.trial(plan, goal * watch.dense))
            continue
        best = _around(trials, goal)[0]
        if best.is_confirmed:
            tell("timing", len(trials), len(trials))
            return trials
        again = watch.trial(best.plan, goal * watch.dense)
        trials[trials.index(best)] = replace(best, ratios=best.ratios + again.ratios, is_confirmed=True)


def _next_plan(candidates: _Candidates, trials: List[TimedPlan], goal: float) -> Optional[Plan]:
    """A plan to be timed, between the widest that stays within ``goal`` (squeezed / dense) and the next wider one."""
    low, high, above = _around(trials, goal)
    gap = high - low.share
    if gap <= RESOLUTION:
        return None
    middle = (low.share + high) / 2
    guess = low.share + gap * (goal - low.ratio) / max(above - low.ratio, 1e-9)
    beside = min(max(guess, low.share + RESOLUTION), high - RESOLUTION)
    first = middle if gap < 2 * RESOLUTION or len(trials) >= USUAL else beside
    return next((plan for plan in map(candidates.at, (first, middle)) if _is_new(plan, trials)), None)


def _check_reach(watch: Stopwatch, narrowest: TimedPlan, limit: float, method: str) -> None:
    if watch.dense <= limit:
        raise PlanError(
            f"the dense generator answers in {_words(watch.dense)} here ({watch.where}), which is within {limit:g} ms: "
            "nothing has to be squeezed for it. Ask for less time, or for a reduction, ratio or share of multiply-adds"
        )
    fastest = narrowest.ratio * watch.dense
    if fastest > limit:
        cures = ["more threads", "a generator of a lower resolution"]
        if method == "squeeze":
            cures = ["method='narrow' (--method narrow)", *cures]
        raise PlanError(
            f"{limit:g} ms are out of reach: here ({watch.where}) an image takes the dense generator "
            f"{_words(watch.dense)}, and the narrowest one {_words(fastest)}. What helps: {', '.join(cures)}"
        )


def _around(trials: List[TimedPlan], limit: float) -> Tuple[TimedPlan, float, float]:
    """The widest trial within the limit (or the narrowest), and share and ratio of the next wider one."""
    within = [trial for trial in trials if trial.ratio <= limit] or trials[:1]
    low = max(within, key=lambda trial: trial.share)
    wider = [(trial.share, trial.ratio) for trial in trials if trial.share > low.share]
    return (low, *min([*wider, (1.0, 1.0)]))


def _is_new(plan: Plan, trials: List[TimedPlan]) -> bool:
    return bool(plan.blocks) and not any(plan.same_widths(trial.plan) for trial in trials)


def _words(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
