"""A clock that tells what a generator would take on a machine where time is a straight line in the multiply-adds."""

from __future__ import annotations

import contextlib
import random
from typing import Any, Callable, Dict, Iterator

import pytest

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.located import Located
from squeeze_patch.planning import stopwatch
from squeeze_patch.planning.multiply_adds import saved_multiply_adds
from squeeze_patch.planning.plans import Plan
from squeeze_patch.timing import Seconds

#: seconds of a dense call, and the share of them that no squeezing saves
DENSE, FIXED = 0.1, 0.3


def line_clock(monkeypatch: pytest.MonkeyPatch, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> None:
    """Let budgets in milliseconds be measured by it.

    Args:
        noise: standard deviation of the logarithm of a call's time.
        drift: the whole machine slows down by up to this share and comes back, every forty calls.
        seed: of the noise.
    """
    now: Dict[str, float] = {"calls": 0}
    chance = random.Random(seed)
    carried_out = stopwatch._carried_out

    @contextlib.contextmanager
    def watched(dense: Located, plan: Plan) -> Iterator[Sampler]:
        now["share"] = 1 - saved_multiply_adds(dense.specs, plan)
        with carried_out(dense, plan) as source:
            yield source

    def seconds_of(action: Callable[[], Any], synchronize: Callable[[], None]) -> Seconds:
        share = 1.0 if action() == "dense" else now["share"]
        now["calls"] += 1
        slow = 1 + drift * abs(now["calls"] % 40 / 20 - 1)
        took = DENSE * (FIXED + (1 - FIXED) * share) * slow * chance.lognormvariate(0, noise)
        return Seconds(took, took)

    names: Dict[str, Callable[[], str]] = {"dense": lambda: "dense", "squeezed": lambda: "squeezed"}
    monkeypatch.setattr(stopwatch, "_carried_out", watched)
    monkeypatch.setattr(stopwatch, "calls", lambda sources, device: names)
    monkeypatch.setattr(stopwatch, "seconds_of", seconds_of)


def share_within(limit: float) -> float:
    """The share of the multiply-adds that takes ``limit`` milliseconds by that clock, without noise."""
    return (limit / (1000 * DENSE) - FIXED) / (1 - FIXED)
