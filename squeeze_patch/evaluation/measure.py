"""A dense generator and its squeezed counterpart, also fused, measured: cost, latency, memory, blocks."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Iterator, Optional, Tuple

from squeeze_patch.adapters import locate, sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import MeasurementError, StateError, UnsupportedModelError
from squeeze_patch.evaluation.block_times import BlockTimes, block_times, fused_counts, table_of
from squeeze_patch.evaluation.latency import REPEATS, Latency, latency, verdict_on
from squeeze_patch.evaluation.memory import Memory, memory
from squeeze_patch.planning.cost import Report, amount, report, table
from squeeze_patch.planning.planner import plan_for
from squeeze_patch.planning.plans import Plan, describe_reduction
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import dense_of
from squeeze_patch.process_settings import random_kept
from squeeze_patch.progress import Progress, own_settings
from squeeze_patch.sampling import draw, evaluation, latents
from squeeze_patch.surgery import fuse as fusing
from squeeze_patch.surgery.apply import apply_request
from squeeze_patch.surgery.status import status_of_part
from squeeze_patch.timing import Quartiles


@dataclass(frozen=True)
class FusedFigures:
    """The squeezed generator, fused; its time is in `Latency`.

    Attributes:
        multiply_adds: of one image, see `planning.cost.fused_multiply_adds`.
        memory: of one call.
        difference: largest one of its images to the squeezed generator's, relative to their largest pixel.
    """

    multiply_adds: int
    memory: Memory
    difference: float


@dataclass(frozen=True)
class Measurement:
    """Before (dense) and after (squeezed, and fused where that was asked for); prints as a table.

    Attributes:
        fused: None = not measured.
        runs_fused: whether the squeezed generator itself was fused when it was measured.
        block_times: of calls of their own.
        block_rounds: how many those were.
    """

    cost: Report
    latency: Latency
    memory_before: Memory
    memory_after: Memory
    fused: Optional[FusedFigures] = None
    runs_fused: bool = False
    block_times: BlockTimes = field(default_factory=dict)
    block_rounds: int = 0

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts; seconds and bytes."""
        ratio = self.latency.fused_ratio
        return {
            **asdict(self),
            "verdict": self.latency.verdict,
            "fused_verdict": None if ratio is None else verdict_on(ratio),
        }

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
            *self._lines_of_fused(),
            *([table_of(self.block_times, self.block_rounds)] if self.block_times else []),
            *self._verdicts(),
        ]
        return "\n".join(lines)

    def _lines_of_fused(self) -> Iterator[str]:
        time = self.latency
        if self.fused is not None and time.fused is not None:
            yield f"fused        {_milliseconds(time.fused)} ms, {_megabytes(self.fused.memory)}"
            yield f"             fused / dense {time.fused_ratio}, fused / squeezed {time.fused_to_squeezed}"
            yield (
                f"             {amount(self.fused.multiply_adds)} multiply-adds; largest difference to the squeezed "
                f"generator's images {self.fused.difference:.1e} of their peak"
            )

    def _verdicts(self) -> Iterator[str]:
        cost, time = self.cost, self.latency
        before, after = cost.multiply_adds_before, cost.multiply_adds_after
        if self.runs_fused:
            yield _verdict("squeezed and fused", time.ratio, "")
        else:
            yield _verdict("squeezed", time.ratio, _saved(before, after))
        if self.fused is not None and time.fused_ratio is not None:
            yield _verdict("fused", time.fused_ratio, _saved(before, self.fused.multiply_adds))


@own_settings()
def measure(
    dense: Any,
    squeezed: Any,
    batch: int = 1,
    repeats: int = REPEATS,
    progress: Optional[Progress] = None,
    *,
    fuse: bool = False,
) -> Measurement:
    """Measure two generators of one shape, one of them squeezed, on the device where they are.

    Args:
        dense, squeezed: generators; see `pair`. Neither is changed.
        batch: images a call.
        repeats: timed rounds of calls, 2 or more.
        progress: called with (what, done, in all).
        fuse: measure a copy of the squeezed generator, too, that is fused (`squeeze_patch.fuse`); one that is fused
            already is then measured both ways.

    Raises:
        MeasurementError: an argument is out of range, or the two are not of one shape.
        StateError: ``dense`` is not dense, or ``squeezed`` not squeezed.
        ProofError: the fused generator makes other images.
        UnsupportedModelError: no adapter knows the generators, or how to fuse them.
    """
    check_counts(batch, repeats)
    _check_pair(locate(dense), locate(squeezed))
    fused = None
    if fuse:
        fused = fusing.fuse(copy.deepcopy(squeezed).eval())
        if status_of_part(locate(squeezed)).fused_blocks:
            squeezed = fusing.unfuse(copy.deepcopy(squeezed))
    found = locate(squeezed)
    measured = {"dense": locate(dense), "squeezed": found, **({"fused": locate(fused)} if fused is not None else {})}
    rounds = max(2, repeats // 2)
    return Measurement(
        cost=report(found),
        latency=latency(dense, squeezed, batch, repeats, progress, fused),
        memory_before=memory(dense, batch),
        memory_after=memory(squeezed, batch),
        fused=None if fused is None else _figures_of(fused, squeezed, batch),
        runs_fused=status_of_part(found).fused_blocks > 0,
        block_times=block_times(measured, batch, rounds, progress),
        block_rounds=rounds,
    )


def check_counts(batch: int, repeats: int) -> None:
    """Raise `MeasurementError` where there are too few images a call, or rounds of calls."""
    for name, count, least in (("batch", batch, 1), ("repeats", repeats, 2)):
        if count < least:
            raise MeasurementError(f"{name} has to be {least} or more, not {count}")


def _figures_of(fused: Any, squeezed: Any, batch: int) -> FusedFigures:
    found = locate(fused)
    images = []
    for G in (squeezed, fused):
        source = sampler(G)
        with evaluation(G):
            images.append(draw(source, *latents(source, batch, seed=0)))
    difference = (images[1] - images[0]).abs().max() / images[0].abs().max()
    return FusedFigures(sum(fused_counts(found)), memory(fused, batch), float(difference))


def pair(
    G: Any,
    against: Optional[Any] = None,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    plan: Optional[Plan] = None,
    allocate: Optional[str] = None,
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    milliseconds: Optional[float] = None,
) -> Tuple[Any, Any]:
    """(dense, squeezed) to measure, from either one. The other gets random weights: cost does not depend on them.

    Args:
        G: dense, to be squeezed in a copy; or squeezed.
        against: the dense generator of a squeezed G; default: one is made by G's own constructor call.
        reduction, ratio, plan, allocate, method, multiply_adds, milliseconds: as for `squeeze_patch.apply`, for a
            dense G.

    Raises:
        PlanError, UnsupportedModelError: as for `squeeze_patch.apply`, or no dense generator can be made.
        StateError: the arguments do not fit G's state.
    """
    request = Request(reduction, ratio, None, plan, allocate, None, method, multiply_adds, milliseconds)
    return pair_for(G, request, against)


def pair_for(
    G: Any, request: Request, against: Optional[Any] = None, progress: Optional[Progress] = None
) -> Tuple[Any, Any]:
    """As `pair`; ``progress`` as for `plan_for`."""
    found = locate(G)
    now = status_of_part(found)
    if now.state == "irregular":
        raise StateError(f"the generator is half squeezed ({now.detail}); load it anew")
    with random_kept():
        if now.state == "dense":
            if against is not None:
                raise StateError("the generator is dense; a dense one to measure against belongs to a squeezed one")
            other = copy.deepcopy(G)
            # its cost is measured, whatever its images: convert is where a fork is refused
            planned = Request(plan=_converted(found, request, progress))
            apply_request(other, planned, "random", keep_original=False, verify=False)
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


def _converted(found: Located, request: Request, progress: Optional[Progress]) -> Plan:
    """The Plan with the start that convert gives a generator, or the one without, where it knows no other."""
    try:
        return plan_for(found, request, progress=progress)
    except UnsupportedModelError:
        return plan_for(found, request, "random")


def _check_pair(dense: Located, squeezed: Located) -> None:
    for state, found in (("dense", dense), ("squeezed", squeezed)):
        now = status_of_part(found)
        if now.state != state:
            raise StateError(f"the generator to measure as {state} is {now}")
    shapes = []
    for found in (dense, squeezed):
        blocks = [dense_of(spec) for spec in found.specs]
        source = found.sampler()
        shapes.append((blocks, source.z_dim, source.c_dim))
    if shapes[0] != shapes[1]:
        raise MeasurementError(
            "the dense and the squeezed generator are not of one shape (latents, classes, resolutions, channels); "
            "measure a squeezed generator against the dense one that it came from"
        )


def _verdict(which: str, ratio: Quartiles, saved: str) -> str:
    found = verdict_on(ratio)
    if found == "faster":
        return f"The {which} generator is faster here: {1 - ratio.median:.0%} less time.".replace("%", " %")
    if found == "slower":
        return f"The {which} generator is NOT faster here, but slower{saved}."
    return f"The {which} generator is NOT faster here beyond the spread of the timings{saved}."


def _saved(before: int, after: int) -> str:
    return f", although it needs {amount(after)} instead of {amount(before)} multiply-adds"


def _milliseconds(time: Quartiles) -> str:
    return f"{1000 * time.median:.1f} ({1000 * time.lower:.1f} to {1000 * time.upper:.1f})"


def _megabytes(found: Memory) -> str:
    return f"{found.peak / 1e6:.1f} MB (weights {found.weights / 1e6:.1f}, one call {found.working / 1e6:.1f})"


def _images(batch: int) -> str:
    return "1 image" if batch == 1 else f"{batch} images"
