"""A dense generator and its squeezed counterpart, measured: cost, latency, memory."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import MeasurementError, StateError
from squeeze_patch.evaluation.latency import REPEATS, Latency, Quartiles, latency
from squeeze_patch.evaluation.memory import Memory, memory
from squeeze_patch.planning.cost import Report, amount, report, table
from squeeze_patch.planning.plans import Plan, describe_reduction
from squeeze_patch.planning.request import Request
from squeeze_patch.progress import Progress
from squeeze_patch.surgery.apply import apply_request
from squeeze_patch.surgery.status import status_of_part


@dataclass(frozen=True)
class Measurement:
    """Before (dense) and after (squeezed); prints as a table."""

    cost: Report
    latency: Latency
    memory_before: Memory
    memory_after: Memory

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts; seconds and bytes."""
        return {**asdict(self), "verdict": self.latency.verdict}

    def __str__(self) -> str:
        cost, time = self.cost, self.latency
        fewer = describe_reduction(1 - cost.parameters_after / cost.parameters_before)
        lines = [
            table(cost),
            f"parameters   {cost.parameters_before:,} -> {cost.parameters_after:,} ({fewer})",
            f"latency      {_milliseconds(time.dense)} -> {_milliseconds(time.squeezed)} ms for {_images(time.batch)}, "
            "median (quartiles)",
            f"             squeezed / dense {time.ratio} in {time.repeats} pairs; {time.device}",
            f"memory       {_megabytes(self.memory_before)} -> {_megabytes(self.memory_after)}",
            f"             ({self.memory_after.method})",
            _verdict(cost, time),
        ]
        return "\n".join(lines)


def measure(
    dense: Any, squeezed: Any, batch: int = 1, repeats: int = REPEATS, progress: Optional[Progress] = None
) -> Measurement:
    """Measure two generators of one shape, one of them squeezed, on the device where they are.

    Args:
        dense, squeezed: generators; see `pair`.
        batch: images a call.
        repeats: timed pairs of calls, 2 or more.
        progress: called with (what, done, in all).

    Raises:
        MeasurementError: an argument is out of range, or the two are not of one shape.
        StateError: ``dense`` is not dense, or ``squeezed`` not squeezed.
        UnsupportedModelError: no adapter knows the generators.
    """
    if batch < 1 or repeats < 2:
        raise MeasurementError(f"batch has to be 1 or more and repeats 2 or more, not {batch} and {repeats}")
    found = locate(squeezed)
    _check_pair(locate(dense), found)
    return Measurement(
        cost=report(found),
        latency=latency(dense, squeezed, batch, repeats, progress),
        memory_before=memory(dense, batch),
        memory_after=memory(squeezed, batch),
    )


def pair(
    G: Any,
    against: Optional[Any] = None,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    plan: Optional[Plan] = None,
    allocate: str = "uniform",
) -> Tuple[Any, Any]:
    """(dense, squeezed) to measure, from either one. The other gets random weights: cost does not depend on them.

    Args:
        G: dense, to be squeezed in a copy; or squeezed.
        against: the dense generator of a squeezed G; default: one is made by G's own constructor call.
        reduction, ratio, plan, allocate: as for `squeeze_patch.apply`, for a dense G.

    Raises:
        PlanError, UnsupportedModelError: as for `squeeze_patch.apply`, or no dense generator can be made.
        StateError: the arguments do not fit G's state.
    """
    return pair_for(G, Request(reduction, ratio, None, plan, allocate), against)


def pair_for(G: Any, request: Request, against: Optional[Any] = None) -> Tuple[Any, Any]:
    """As `pair`."""
    found = locate(G)
    now = status_of_part(found)
    if now.state == "irregular":
        raise StateError(f"the generator is half squeezed ({now.detail}); load it anew")
    with torch.random.fork_rng(devices=[]):
        if now.state == "dense":
            if against is not None:
                raise StateError("the generator is dense; a dense one to measure against belongs to a squeezed one")
            other = copy.deepcopy(G)
            # its cost is measured, whatever its images: convert is where a fork is refused
            apply_request(other, request, "random", keep_original=False, verify=False)
            return G, other.eval().requires_grad_(False)
        if not request.is_default:
            raise StateError(
                f"the generator is squeezed already ({now}); a ratio, reduction, plan or allocation is for dense ones"
            )
        if against is None:
            dense = found.surgery.dense_like(G, found.network)
            against = dense.to(reference_of(G).device).eval().requires_grad_(False)
    _check_pair(locate(against), found)
    return against, G


def _check_pair(dense: Located, squeezed: Located) -> None:
    for state, found in (("dense", dense), ("squeezed", squeezed)):
        now = status_of_part(found)
        if now.state != state:
            raise StateError(f"the generator to measure as {state} is {now}")
    shapes = []
    for found in (dense, squeezed):
        blocks = [dataclasses.replace(spec, width=None) for spec in found.specs]
        source = found.sampler()
        shapes.append((blocks, source.z_dim, source.c_dim))
    if shapes[0] != shapes[1]:
        raise MeasurementError(
            "the dense and the squeezed generator are not of one shape (latents, classes, resolutions, channels); "
            "measure a squeezed generator against the dense one that it came from"
        )


def _verdict(cost: Report, time: Latency) -> str:
    if time.verdict == "faster":
        return f"The squeezed generator is faster here: {1 - time.ratio.median:.0%} less time.".replace("%", " %")
    saved = f"although it needs {amount(cost.multiply_adds_after)} instead of {amount(cost.multiply_adds_before)} "
    if time.verdict == "slower":
        return f"The squeezed generator is NOT faster here, but slower, {saved}multiply-adds."
    return f"The squeezed generator is NOT faster here beyond the spread of the timings, {saved}multiply-adds."


def _milliseconds(time: Quartiles) -> str:
    return f"{1000 * time.median:.1f} ({1000 * time.lower:.1f} to {1000 * time.upper:.1f})"


def _megabytes(found: Memory) -> str:
    return f"{found.peak / 1e6:.1f} MB (weights {found.weights / 1e6:.1f}, one call {found.working / 1e6:.1f})"


def _images(batch: int) -> str:
    return "1 image" if batch == 1 else f"{batch} images"
