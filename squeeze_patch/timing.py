"""Calls of several generators in turns, in one process, and the quartiles of their times."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.progress import Progress
from squeeze_patch.sampling import draw, latents


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


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> Quartiles:
    """Quartiles of the ratios of paired measurements."""
    return Quartiles.of([a / b for a, b in zip(over, under)])


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


@dataclass(frozen=True)
class Seconds:
    """Of one call: by the wall clock, and of the processor in the calling thread."""

    wall: float
    processor: float


def seconds_of(action: Callable[[], Any], synchronize: Callable[[], None]) -> Seconds:
    """Time one call; ``synchronize`` waits until the device is done."""
    synchronize()
    wall, processor = time.perf_counter(), time.thread_time()
    action()
    synchronize()
    return Seconds(time.perf_counter() - wall, time.thread_time() - processor)


def calls(
    sources: Mapping[str, Sampler], device: torch.device, batch: int = 1
) -> Dict[str, Callable[[], torch.Tensor]]:
    """{name: one call for ``batch`` images}, on the same latents, with constant noise.

    Args:
        sources: {name: how it is run}, of equal z_dim and c_dim.
        device: where all of them are.
        batch: images a call.
    """
    z, c = (x.to(device) for x in latents(next(iter(sources.values())), batch, seed=0))

    def call(source: Sampler) -> Callable[[], torch.Tensor]:
        return lambda: draw(source, z, c)

    return {name: call(source) for name, source in sources.items()}


def waiting_for(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done all that it was given."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "cpu":
        return lambda: None
    return lambda: _read(torch.zeros([1], device=device))


def _read(x: torch.Tensor) -> None:
    """A value is there when what the device was given before it is done."""
    x.cpu()
