"""Where the time of a call goes, block by block, and how much arithmetic is done in it."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.handing_on import on_gpu
from squeeze_patch.planning.cost import fused_multiply_adds
from squeeze_patch.planning.multiply_adds import multiply_adds
from squeeze_patch.progress import Progress
from squeeze_patch.sampling import draw, evaluation, latents
from squeeze_patch.timing import waiting_for


@dataclass(frozen=True)
class BlockTime:
    """One block of one generator.

    Attributes:
        height_width: of its features.
        seconds: median of a call, with waiting for the device before and behind the block.
        share: of the seconds of the whole call.
        multiply_adds: of one image.
        rate: multiply-adds a second, of all images of the call.
    """

    height_width: Tuple[int, int]
    seconds: float
    share: float
    multiply_adds: int
    rate: float

    @property
    def size(self) -> str:
        return "{}x{}".format(*self.height_width)


#: {generator: its blocks in running order; None where they cannot be timed}
BlockTimes = Dict[str, Optional[Tuple[BlockTime, ...]]]


def block_times(
    generators: Mapping[str, Located], batch: int, rounds: int, progress: Optional[Progress] = None
) -> BlockTimes:
    """Time the blocks of generators of equal z_dim and c_dim on one device, in turns.

    The clock is read in hooks, on the blocks themselves where those are modules, so that what is inside runs as it
    does unobserved. In families of flat layers the layers are hooked: dense and squeezed ones, not fused ones.

    Args:
        generators: {name: generator}, each in evaluation mode or brought into it meanwhile.
        batch: images a call.
        rounds: measured calls of each; one more comes first.
        progress: called with ("blocks", done, in all).
    """
    device = reference_of(next(iter(generators.values())).root).device
    sources = {name: found.sampler() for name, found in generators.items()}
    z, c = (x.to(device) for x in latents(next(iter(sources.values())), batch, seed=0))
    watches = {name: _Stopwatch(waiting_for(device)) for name in generators}
    with contextlib.ExitStack() as stack:
        for name, found in generators.items():
            stack.enter_context(evaluation(found.root))
            _hook(found, watches[name], stack)
        stack.enter_context(torch.inference_mode())
        for index in range(1 + rounds):
            for name in list(generators) if index % 2 else list(generators)[::-1]:
                with watches[name].whole_call(counts=index > 0):
                    draw(sources[name], z, c)
            if progress is not None:
                progress("blocks", index + 1, 1 + rounds)
    return {name: _summary(found, watches[name], batch) for name, found in generators.items()}


class _Stopwatch:
    """Seconds of blocks, one list entry a call; ``calls``: of whole calls."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize
        self.begun: Dict[str, float] = {}
        self.spent: Dict[str, float] = {}
        self.blocks: Dict[str, List[float]] = {}
        self.calls: List[float] = []

    def begin(self, name: str) -> None:
        self.synchronize()
        self.begun.setdefault(name, time.perf_counter())

    def end(self, name: str, following: Optional[str] = None) -> None:
        """The last end in a call counts."""
        self.synchronize()
        now = time.perf_counter()
        if name in self.begun:
            self.spent[name] = now - self.begun[name]
        if following is not None:
            self.begun[following] = time.perf_counter()

    @contextlib.contextmanager
    def whole_call(self, counts: bool) -> Iterator[None]:
        self.begun, self.spent = {}, {}
        self.synchronize()
        start = time.perf_counter()
        yield
        self.synchronize()
        if counts:
            self.calls.append(time.perf_counter() - start)
            for name, seconds in self.spent.items():
                self.blocks.setdefault(name, []).append(seconds)


def _hook(found: Located, watch: _Stopwatch, stack: contextlib.ExitStack) -> None:
    """Hooks that read the clock, until the stack closes; none where blocks cannot be timed."""
    modules = set(found.network.modules())
    names = [spec.name for spec in found.specs]
    blocks = {name: found.get_block(name) for name in names}

    def begin(name: str) -> Callable[..., None]:
        return lambda _module, _inputs: watch.begin(name)

    def end(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, _output: watch.end(name)

    if modules.issuperset(blocks.values()):
        pairs = [(block, name) for name, block in blocks.items()]
        first, last = pairs, pairs
    elif _is_fused(found):
        return
    else:  # each begins where the features of the block before are handed on
        first, last = (
            [(child, name) for child in blocks[name].children() if child in modules] for name in (names[0], names[-1])
        )
    for module, name in first:
        stack.callback(module.register_forward_pre_hook(begin(name)).remove)
    for module, name in last:
        stack.callback(module.register_forward_hook(end(name)).remove)
    if first is not last:
        for pair in zip(names, names[1:]):
            stack.callback(_boundary(found, watch, *pair).remove)


def _boundary(found: Located, watch: _Stopwatch, name: str, following: str) -> Any:
    return found.surgery.watch(found.network, name, lambda _: watch.end(name, following))


def _is_fused(found: Located) -> bool:
    fusing = found.adapter.fusing
    return fusing is not None and any(fusing.fused(found.network, s.name) for s in found.specs if s.is_squeezed)


def fused_counts(found: Located) -> List[int]:
    """Multiply-adds of the blocks of a fused generator where it is."""
    shapes = {spec.name: spec.shape for spec in found.specs if spec.shape is not None}
    return fused_multiply_adds(found.specs, shapes, folds=not on_gpu(reference_of(found.network)))


def _summary(found: Located, watch: _Stopwatch, batch: int) -> Optional[Tuple[BlockTime, ...]]:
    if any(len(watch.blocks.get(spec.name, [])) != len(watch.calls) for spec in found.specs):
        return None
    fused = _is_fused(found)
    counts = fused_counts(found) if fused else [multiply_adds(spec, spec.shape) for spec in found.specs]
    call = statistics.median(watch.calls)
    rows = []
    for spec, count in zip(found.specs, counts):
        seconds = statistics.median(watch.blocks[spec.name])
        rows.append(BlockTime(spec.height_width, seconds, seconds / call, count, batch * count / seconds))
    return tuple(rows)


def table_of(times: BlockTimes, rounds: int) -> str:
    """The times as text: a line a block, and for each generator the block that is furthest from its arithmetic."""
    title = "where the time goes, by block: median of {} further calls, share of the call, multiply-adds (MAC) a second"
    lines = [title.format(rounds)]
    lines.append(f"{'block':>9}" + "".join(f"{name:>30}" for name in times))
    sizes = next((rows for rows in times.values() if rows), ())
    for index, size in enumerate(row.size for row in sizes):
        lines.append(f"{size:>9}" + "".join(_cell(rows[index] if rows else None) for rows in times.values()))
    rest = (1 - sum(row.share for row in rows) if rows else None for rows in times.values())
    lines.append(f"{'the rest':>9}" + "".join(_padded("" if share is None else f"{share:.0%}") for share in rest))
    lines += [f"{name}: {found}" for name, rows in times.items() if rows for found in [_furthest(rows)]]
    missing = [name for name, rows in times.items() if not rows]
    if missing:
        lines.append(f"({' and '.join(missing)}: the blocks of this family cannot be timed from outside)")
    return "\n".join(lines)


def _cell(row: Optional[BlockTime]) -> str:
    if row is None:
        return f"{'-':>30}"
    return f"{1000 * row.seconds:>9.1f} ms {row.share:>4.0%} {row.rate / 1e9:>5.1f} GMAC/s"


def _padded(share: str) -> str:
    return f"{share:>17}{'':>13}"


def _furthest(rows: Sequence[BlockTime]) -> str:
    """The block that would save the most time, did it compute as fast as the fastest."""
    best = max(rows, key=lambda row: row.rate)
    worst = max(rows, key=lambda row: row.seconds * (1 - row.rate / best.rate))
    at_best = 1000 * worst.seconds * worst.rate / best.rate
    rates = f"{worst.size} at {worst.rate / 1e9:.1f} GMAC/s, the best block ({best.size}) at {best.rate / 1e9:.1f}"
    return f"{rates}, which would make it {at_best:.1f} ms"
