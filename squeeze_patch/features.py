"""How far apart the features between the blocks of two generators are, seen by hooks on the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.errors import UnsupportedModelError


@dataclass(frozen=True)
class FeatureDistance:
    """``relative`` = |x_A - x_B| / |x_A|, Euclidean norms over all images, channels and pixels of the features x that
    the block of this resolution hands to the next block; 0 = equal."""

    resolution: int
    relative: float


class Taps:
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

    def __enter__(self) -> Taps:
        blocks = [_blocks(G, which, self.reasons) for G, which in zip(self.generators, "AB")]
        self.resolutions = sorted(set(blocks[0]) & set(blocks[1]))
        for resolution in self.resolutions:
            (block_a, channels_a), (block_b, channels_b) = (found[resolution] for found in blocks)
            if channels_a != channels_b:
                self.reasons.append(f"{resolution}x{resolution} has {channels_a} channels in A, {channels_b} in B")
                continue
            self.handles.append(block_a.register_forward_hook(self._first(resolution)))
            self.handles.append(block_b.register_forward_hook(self._second(resolution)))
        return self

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
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            x = _features(output)
            if x is not None:
                self.waiting[resolution] = x

        return hook

    def _second(self, resolution: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            y, x = _features(output), self.waiting.pop(resolution, None)
            if x is None or y is None or x.shape != y.shape:
                return
            x = x.double()
            difference = float((x - y.to(x)).square().sum())
            self.difference[resolution] = self.difference.get(resolution, 0.0) + difference
            self.size[resolution] = self.size.get(resolution, 0.0) + float(x.square().sum())

        return hook


def _features(output: Any) -> Any:
    """x of a block's output, which is x or (x, image); None where there is none."""
    x = output[0] if isinstance(output, (tuple, list)) and output else output
    return x.detach() if isinstance(x, torch.Tensor) and x.dim() == 4 else None


def _blocks(G: torch.nn.Module, which: str, reasons: List[str]) -> Dict[int, Tuple[torch.nn.Module, int]]:
    """{resolution: (block, channels)} of every block that has a reader and can be hooked."""
    try:
        adapter, network = locate(G)
    except UnsupportedModelError:
        reasons.append(f"not compared: no adapter knows the blocks of {which} ({type(G).__name__})")
        return {}
    inside = {id(module) for module in G.modules()}
    found = {}
    for spec in adapter.specs(network):
        block = adapter.block(network, spec.name)
        if spec.is_last:
            continue
        if id(block) not in inside:  # an adapter may describe blocks that are no modules of the host
            reasons.append(f"not compared: the blocks of {which} ({adapter.name}) are no modules that could be hooked")
            return {}
        found[spec.resolution] = (block, spec.channels)
    return found
