"""The generators that benchmarks/quality.py trains: dense, squeezed and narrowed.

Every variant is a function of ``dense``, which builds the host's dense generator (channel sizes as keywords), and
returns the generator to train, at fresh random weights.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

import squeeze_patch

#: builds the host's dense generator
Dense = Callable[..., Any]
Variant = Callable[[Dense], Any]


def count(G: Any) -> int:
    return sum(parameter.numel() for parameter in G.parameters())


def squeezed(**request: Any) -> Variant:
    """``request``: how far, as `squeeze_patch.apply` takes it."""
    return lambda dense: squeeze_patch.apply(dense(), init="random", keep_original=False, **request)


def narrowed(dense: Dense) -> Any:
    """The dense generator with every channel count scaled until it has the squeezed one's parameters: what a user would
    do instead. Of all pairs of widest and last width near the scale, the one that comes nearest."""
    wide = dense()
    target = count(squeezed()(dense))
    resolution = wide.img_resolution
    cap, last = (int(getattr(wide.synthesis, f"b{r}").conv1.weight.shape[0]) for r in (4, resolution))
    pairs = [(a, b) for a in range(cap // 2, cap) for b in range(last // 2, last + 1) if abs(a / cap - b / last) < 0.05]
    sizes = [{"channel_max": a, "channel_base": b * resolution} for a, b in pairs]
    return dense(**min(sizes, key=lambda size: abs(count(dense(**size)) - target)))


VARIANTS: Dict[str, Variant] = {"dense": lambda dense: dense(), "squeezed": squeezed(), "narrowed": narrowed}
