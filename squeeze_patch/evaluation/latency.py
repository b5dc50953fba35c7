"""How long generators take, measured in turns in one process, with the spread."""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.evaluation.devices import device_name
from squeeze_patch.progress import Progress, one_thread
from squeeze_patch.sampling import evaluation
from squeeze_patch.timing import Quartiles, calls, interleaved, paired_ratio, waiting_for

REPEATS = 20
WARM_UP = 3
#: seconds that a measurement of `timed_pairs` takes at least
SHORTEST = 0.05


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
    device = reference_of(next(iter(generators.values()))).device
    return calls({name: sampler(G) for name, G in generators.items()}, device, batch), waiting_for(device)
