"""How long generators take, measured in turns in one process, with the spread."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.evaluation.devices import device_name
from squeeze_patch.progress import Progress, one_thread
from squeeze_patch.sampling import draw, evaluation, latents

REPEATS = 20
WARM_UP = 3
#: seconds that a measurement of `timed_pairs` takes at least
SHORTEST = 0.05


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of repeated measurements, in the unit of what was measured."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Of two values or more."""
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lower:.2f} to {self.upper:.2f})"


@dataclass(frozen=True)
class Latency:
    """Seconds of one call ``G(z, c)``, mapping network included, without gradients.

    Attributes:
        dense, squeezed: seconds a batch.
        ratio: squeezed / dense of the two calls of a pair, which ran in one round.
        batch: images a call.
        repeats: rounds that were measured, of a call of each.
        device: what it ran on, with threads and torch's version.
        fused: seconds a batch of the squeezed generator, fused; None = not measured.
        fused_ratio, fused_to_squeezed: fused / dense and fused / squeezed of calls of one round.
    """

    dense: Quartiles
    squeezed: Quartiles
    ratio: Quartiles
    batch: int
    repeats: int
    device: str
    fused: Optional[Quartiles] = None
    fused_ratio: Optional[Quartiles] = None
    fused_to_squeezed: Optional[Quartiles] = None

    @property
    def verdict(self) -> str:
        """Of squeezed against dense; see `verdict_on`."""
        return verdict_on(self.ratio)


def verdict_on(ratio: Quartiles) -> str:
    """ "faster" or "slower" where three quarters of the pairs agree, else "neither"."""
    return "faster" if ratio.upper < 1 else "slower" if ratio.lower > 1 else "neither"


def interleaved(
    actions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = 1,
    synchronize: Callable[[], None] = lambda: None,
    progress: Optional[Progress] = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[str, List[float]]:
    """Seconds of each action, run in turns, so that a noisy machine disturbs all of them alike.

    Every second round runs backwards: no action always follows the same other one.

    Args:
        actions: {name: what to run}.
        repeats: measured rounds.
        warm_up: rounds before, not measured: allocators, kernels and caches settle.
        synchronize: waits until the device is done; called before the clock is read.
        progress: called with ("rounds", done, in all).
        clock: what tells the seconds; `time.process_time` leaves out what other processes take.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in actions}
    gc.collect()
    for index in range(warm_up + repeats):
        names = list(actions) if index % 2 == 0 else list(actions)[::-1]
        for name in names:
            gc.collect(1)  # what calls have left; all of a process that has imported much takes longer than a call
            synchronize()
            start = clock()
            actions[name]()
            synchronize()
            if index >= warm_up:
                seconds[name].append(clock() - start)
        if progress is not None:
            progress("rounds", index + 1, warm_up + repeats)
    return seconds


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> Quartiles:
    """Quartiles of the ratios of paired measurements."""
    return Quartiles.of([a / b for a, b in zip(over, under)])


def latency(
    dense: Any,
    squeezed: Any,
    batch: int = 1,
    repeats: int = REPEATS,
    progress: Optional[Progress] = None,
    fused: Optional[Any] = None,
) -> Latency:
    """Time generators of equal z_dim and c_dim on one device, in evaluation mode, with constant noise.

    Args:
        dense, squeezed: generators.
        batch: images a call.
        repeats: rounds, 2 or more; `WARM_UP` further ones come first. CUDA is waited for before and after each call.
        progress: called with (what, done, in all).
        fused: a third one, measured in the same rounds.
    """
    device = reference_of(dense).device
    generators = {"dense": dense, "squeezed": squeezed, **({} if fused is None else {"fused": fused})}
    actions, synchronize = _calls(generators, batch)
    with contextlib.ExitStack() as stack:
        for G in generators.values():
            stack.enter_context(evaluation(G))
        stack.enter_context(torch.inference_mode())
        seconds = interleaved(actions, repeats, WARM_UP, synchronize, progress)
    times = {name: Quartiles.of(values) for name, values in seconds.items()}
    return Latency(
        dense=times["dense"],
        squeezed=times["squeezed"],
        ratio=paired_ratio(seconds["squeezed"], seconds["dense"]),
        batch=batch,
        repeats=repeats,
        device=device_name(device),
        fused=times.get("fused"),
        fused_ratio=None if fused is None else paired_ratio(seconds["fused"], seconds["dense"]),
        fused_to_squeezed=None if fused is None else paired_ratio(seconds["fused"], seconds["squeezed"]),
    )


@dataclass(frozen=True)
class TimedPair:
    """Seconds of a dense and a squeezed call that ran one behind the other: by the wall clock, and of the processor
    (equal to them on CUDA, where it waits)."""

    wall: Tuple[float, float]
    processor: Tuple[float, float]


def timed_pairs(dense: Any, squeezed: Any, batch: int = 1) -> Iterator[TimedPair]:
    """Pairs without end, every second one the other way round. On the CPU in one thread, which other work on
    the machine disturbs least; calls that take no `SHORTEST` are timed several at a time."""
    actions, synchronize = _calls({"dense": dense, "squeezed": squeezed}, batch)
    on_cpu = reference_of(dense).device.type == "cpu"

    def timed(name: str, times: int) -> Tuple[float, float]:
        with one_thread() if on_cpu else contextlib.nullcontext(), torch.inference_mode():
            synchronize()
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(times):
                actions[name]()
            synchronize()
            spent = time.perf_counter() - wall
            return spent, time.process_time() - processor if on_cpu else spent

    with evaluation(dense), evaluation(squeezed):
        once = min(timed(name, 1)[0] for _ in range(WARM_UP) for name in actions)
    times = max(1, round(SHORTEST / max(once, 1e-9)))
    gc.collect()
    while True:
        gc.collect(1)  # what the pair before has left
        for names in (("dense", "squeezed"), ("squeezed", "dense")):
            with evaluation(dense), evaluation(squeezed):
                found = {name: timed(name, times) for name in names}
            wall, processor = ((found["dense"][k], found["squeezed"][k]) for k in (0, 1))
            yield TimedPair(wall, processor)


def _calls(generators: Mapping[str, Any], batch: int) -> Tuple[Dict[str, Callable[[], Any]], Callable[[], None]]:
    """A call of each, on the same latents, and what waits for their device."""
    sources = {name: sampler(G) for name, G in generators.items()}
    device = reference_of(next(iter(generators.values()))).device
    z, c = (x.to(device) for x in latents(next(iter(sources.values())), batch, seed=0))

    def call(name: str) -> Callable[[], Any]:
        return lambda: draw(sources[name], z, c)

    return {name: call(name) for name in sources}, waiting_for(device)


def waiting_for(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done all that it was given."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None
