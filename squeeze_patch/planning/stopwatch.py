"""Plans on the clock: each is carried out in a copy, with random layers, and timed against the dense generator."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.planning.multiply_adds import saved_multiply_adds
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.shapes import shapes_of
from squeeze_patch.process_settings import random_kept
from squeeze_patch.sampling import evaluation
from squeeze_patch.timing import Quartiles, Seconds, calls, seconds_of, waiting_for

#: pairs of a dense and a squeezed call that are timed at a time, and how often where they do not decide
LEAST_PAIRS, MOST_PAIRS, LOOKS = 5, 50, 3
#: seconds that the dense calls of one look take, if `MOST_PAIRS` are enough for it
LOOK = 0.25
#: when a ratio is clear: a limit's side is chosen by chance no more often, or the median is known so well
CHANCE, NEAR = 0.07, 0.01
#: seconds that a clock has to tell apart
FINE = 1e-4


@dataclass(frozen=True)
class TimedPlan:
    """A plan that was timed.

    Attributes:
        share: of the dense generator's multiply-adds, 0 to 1.
        ratios: squeezed / dense time of every pair of calls.
        is_confirmed: whether it was chosen, and timed once more for that: what is chosen for its time looks faster than
            it is.
    """

    plan: Plan
    share: float
    ratios: Tuple[float, ...]
    is_confirmed: bool = False

    @property
    def ratio(self) -> float:
        """Squeezed / dense, the median."""
        return statistics.median(self.ratios)


class Stopwatch:
    """Times plans against the dense generator ``found``, in turns with it, on its device with torch's threads.

    Plans are carried out, with random layers, in a copy; ``found`` itself is only called. Where one thread of a CPU
    does the work, it is its processor time that counts, as long as a call takes while nothing else wants the core;
    else it is the clock.
    """

    def __init__(self, found: Located) -> None:
        self.found = found
        self.copy = locate(copy.deepcopy(found.root))
        self.device = reference_of(found.network).device
        fine = time.get_clock_info("thread_time").resolution <= FINE
        self.by_processor = fine and self.device.type == "cpu" and torch.get_num_threads() == 1
        self.dense_calls: List[Seconds] = []

    @property
    def dense(self) -> float:
        """Milliseconds, median of all dense calls so far."""
        return 1000 * statistics.median(map(self._counted, self.dense_calls))

    @property
    def waiting(self) -> float:
        """Dense calls by the clock, over what counts of them; medians."""
        return 1000 * statistics.median(call.wall for call in self.dense_calls) / self.dense

    @property
    def where(self) -> str:
        """Device and threads."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"{self.device}, {threads} thread{'s' if threads > 1 else ''}"

    def trial(self, plan: Plan, milliseconds: float) -> TimedPlan:
        """Time a plan, until it is clear whether it takes ``milliseconds``, or after `LOOKS` looks."""
        with contextlib.ExitStack() as stack:
            sources = {"dense": self.found.sampler(), "squeezed": stack.enter_context(_carried_out(self.copy, plan))}
            for root in (self.found.root, self.copy.root):
                stack.enter_context(evaluation(root))
            stack.enter_context(torch.inference_mode())
            ratios = self._ratios(calls(sources, self.device), milliseconds)
        share = 1 - saved_multiply_adds(self.found.specs, plan)
        return TimedPlan(plan, share, tuple(ratios))

    def _ratios(self, actions: Dict[str, Callable[[], Any]], milliseconds: float) -> List[float]:
        synchronize = waiting_for(self.device)
        once = max(seconds_of(action, synchronize).wall for action in actions.values())  # warms up, too
        pairs = min(max(LEAST_PAIRS, round(LOOK / max(once, 1e-9))), MOST_PAIRS)
        ratios: List[float] = []
        gc.collect()
        for index in range(LOOKS * pairs):
            gc.collect(1)  # what calls have left
            order = list(actions) if index % 2 else list(actions)[::-1]
            took = {name: seconds_of(actions[name], synchronize) for name in order}
            self.dense_calls.append(took["dense"])
            ratios.append(self._counted(took["squeezed"]) / self._counted(took["dense"]))
            if (index + 1) % pairs == 0 and _is_clear(ratios, milliseconds / self.dense):
                break
        return ratios

    def _counted(self, call: Seconds) -> float:
        return call.processor if self.by_processor else call.wall


def _is_clear(ratios: List[float], limit: float) -> bool:
    """Whether it is known on which side of the limit the median lies, by the sign test at `CHANCE`; or the median
    itself, to a standard error of `NEAR`, as the quartiles of normal numbers tell it."""
    n, above = len(ratios), sum(ratio > limit for ratio in ratios)
    chance = 2 * sum(math.comb(n, k) for k in range(min(above, n - above) + 1)) / 2**n
    found = Quartiles.of(ratios)
    error = math.sqrt(math.pi / 2 / n) * (found.upper - found.lower) / 1.349
    return chance <= CHANCE or error <= NEAR * found.median


@contextlib.contextmanager
def _carried_out(dense: Located, plan: Plan) -> Iterator[Sampler]:
    """How ``dense`` is run as ``plan`` squeezes it, with random layers, for the length of a block."""
    shapes = shapes_of(dense.specs, plan.blocks)
    before = {name: dense.get_block(name) for name in shapes}
    with random_kept(), torch.inference_mode(False):
        blocks = {name: dense.surgery.build(dense.network, name, shape) for name, shape in shapes.items()}
    try:
        for name, block in blocks.items():
            dense.set_block(name, block)
        dense.surgery.attach_plan(dense.root, dense.network, plan.to_dict())
        yield dense.sampler()
    finally:
        for name, block in before.items():
            dense.set_block(name, block)
        if dense.surgery.plan_of(dense.network) is not None:
            dense.surgery.detach_plan(dense.root, dense.network)
