"""How far apart the features between the blocks of two generators are, as their adapters show them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.errors import UnsupportedModelError


@dataclass(frozen=True)
class FeatureDistance:
    """``relative`` = |x_A - x_B| / |x_A|, Euclidean norms over all images, channels and pixels of the features x that
    the block of this resolution hands to the next block; 0 = equal."""

    resolution: int
    relative: float


class BlockFeatures:
    """Sums over the features of two generators that are run in turns, A first; a context manager.

    The last block is left out: nobody reads its features. Where blocks cannot be hooked, or cannot be compared, the
    reason is kept, and the generators run undisturbed.
    """

    def __init__(self, a: torch.nn.Module, b: torch.nn.Module) -> None:
        self.generators = (a, b)
        self.handles: List[Any] = []
        self.reasons: List[str] = []
        self.resolutions: List[int] = []
        self.waiting: Dict[int, torch.Tensor] = {}
        self.difference: Dict[int, float] = {}
        self.size: Dict[int, float] = {}

    def __enter__(self) -> BlockFeatures:
        try:
            self._watch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _watch(self) -> None:
        a, b = (_blocks(G, which, self.reasons) for G, which in zip(self.generators, "AB"))
        self.resolutions = sorted(set(a) & set(b))
        for resolution in self.resolutions:
            first, second = a[resolution], b[resolution]
            if first.channels != second.channels:
                self.reasons.append(
                    f"{resolution}x{resolution} has {first.channels} channels in A, {second.channels} in B"
                )
                continue
            for which, block, callback in (
                ("A", first, self._first(resolution)),
                ("B", second, self._second(resolution)),
            ):
                handle = block.watch(callback)
                if handle is None:  # an adapter may describe blocks that are no modules of the host
                    self.reasons.append(f"{resolution}x{resolution}: the block of {which} is no module to be hooked")
                else:
                    self.handles.append(handle)

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()
        self.waiting.clear()

    def distances(self) -> Tuple[Tuple[FeatureDistance, ...], str]:
        """One distance a resolution, and what is missing and why ('' = nothing)."""
        rows = []
        for resolution in self.resolutions:
            if self.size.get(resolution):
                relative = (self.difference[resolution] / self.size[resolution]) ** 0.5
                rows.append(FeatureDistance(resolution, relative))
            elif not any(reason.startswith(f"{resolution}x") for reason in self.reasons):
                self.reasons.append(
                    f"{resolution}x{resolution}: the blocks handed on no features [N, C, H, W], or zeros"
                )
        return tuple(rows), "; ".join(self.reasons)

    def _first(self, resolution: int) -> Any:
        def see(x: torch.Tensor) -> None:
            if x.dim() == 4:
                self.waiting[resolution] = x.detach()

        return see

    def _second(self, resolution: int) -> Any:
        def see(y: torch.Tensor) -> None:
            x = self.waiting.pop(resolution, None)
            if x is None or x.shape != y.shape:
                return
            x, y = x.double(), y.detach()
            difference = float((x - y.to(x)).square().sum())
            self.difference[resolution] = self.difference.get(resolution, 0.0) + difference
            self.size[resolution] = self.size.get(resolution, 0.0) + float(x.square().sum())

        return see


@dataclass(frozen=True)
class _Block:
    """A block that has a reader: channels that it hands on, and how its features are watched (`Surgery.watch`)."""

    channels: int
    watch: Callable[[Callable[[torch.Tensor], None]], Any]


def _blocks(G: torch.nn.Module, which: str, reasons: List[str]) -> Dict[int, _Block]:
    """{resolution: block} of every block that has a reader."""
    try:
        found = locate(G)
    except UnsupportedModelError:
        reasons.append(f"not compared: no adapter knows the blocks of {which} ({type(G).__name__})")
        return {}
    return {
        spec.resolution: _Block(spec.handed, functools.partial(found.surgery.watch, found.network, spec.name))
        for spec in found.specs
        if not spec.is_last
    }
