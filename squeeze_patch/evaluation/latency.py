"""How long generators take, measured in turns in one process, with the spread."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.evaluation.devices import device_name
from squeeze_patch.progress import Progress
from squeeze_patch.sampling import draw, evaluation, latents

REPEATS = 20
WARM_UP = 3


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
        ratio: squeezed / dense of the two calls of a pair, which ran one behind the other.
        batch: images a call.
        repeats: pairs that were measured.
        device: what it ran on, with threads and torch's version.
    """

    dense: Quartiles
    squeezed: Quartiles
    ratio: Quartiles
    batch: int
    repeats: int
    device: str

    @property
    def verdict(self) -> str:
        """ "faster" or "slower" where three quarters of the pairs agree, else "neither"."""
        return "faster" if self.ratio.upper < 1 else "slower" if self.ratio.lower > 1 else "neither"


def interleaved(
    actions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = 1,
    synchronize: Callable[[], None] = lambda: None,
    progress: Optional[Progress] = None,
) -> Dict[str, List[float]]:
    """Seconds of each action, run in turns, so that a noisy machine disturbs all of them alike.

    Every second round runs backwards: no action always follows the same other one.

    Args:
        actions: {name: what to run}.
        repeats: measured rounds.
        warm_up: rounds before, not measured: allocators, kernels and caches settle.
        synchronize: waits until the device is done; called before the clock is read.
        progress: called with ("rounds", done, in all).
    """
    seconds: Dict[str, List[float]] = {name: [] for name in actions}
    for index in range(warm_up + repeats):
        names = list(actions) if index % 2 == 0 else list(actions)[::-1]
        for name in names:
            gc.collect()
            synchronize()
            start = time.perf_counter()
            actions[name]()
            synchronize()
            if index >= warm_up:
                seconds[name].append(time.perf_counter() - start)
        if progress is not None:
            progress("rounds", index + 1, warm_up + repeats)
    return seconds


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> Quartiles:
    """Quartiles of the ratios of paired measurements."""
    return Quartiles.of([a / b for a, b in zip(over, under)])


def latency(
    dense: Any, squeezed: Any, batch: int = 1, repeats: int = REPEATS, progress: Optional[Progress] = None
) -> Latency:
    """Time two generators of equal z_dim and c_dim on one device, in evaluation mode, with constant noise.

    Args:
        dense, squeezed: generators.
        batch: images a call.
        repeats: pairs, 2 or more; `WARM_UP` further ones come first. CUDA is waited for before and after each call.
    """
    device = reference_of(dense).device
    sources = (sampler(dense), sampler(squeezed))
    z, c = (x.to(device) for x in latents(sources[0], batch, seed=0))
    actions = {"dense": lambda: draw(sources[0], z, c), "squeezed": lambda: draw(sources[1], z, c)}

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with evaluation(dense), evaluation(squeezed), torch.inference_mode():
        seconds = interleaved(actions, repeats, WARM_UP, synchronize, progress)
    return Latency(
        dense=Quartiles.of(seconds["dense"]),
        squeezed=Quartiles.of(seconds["squeezed"]),
        ratio=paired_ratio(seconds["squeezed"], seconds["dense"]),
        batch=batch,
        repeats=repeats,
        device=device_name(device),
    )
