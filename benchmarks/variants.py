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


def narrowed(to: Callable[[Dense], int]) -> Variant:
    """The dense generator with every channel count scaled until it has ``to`` parameters: what a user would do instead.

    Of all pairs of widest and last width near one scale, the one that comes nearest."""

    def build(dense: Dense) -> Any:
        wide, target = dense(), to(dense)
        resolution = wide.img_resolution
        cap, last = (int(getattr(wide.synthesis, f"b{r}").conv1.weight.shape[0]) for r in (4, resolution))
        pairs = [
            (a, b) for a in range(cap // 4, cap) for b in range(last // 4, last + 1) if abs(a / cap - b / last) < 0.05
        ]
        sizes = [{"channel_max": a, "channel_base": b * resolution} for a, b in pairs]
        return dense(**min(sizes, key=lambda size: abs(count(dense(**size)) - target)))

    return build


def as_large_as(variant: Variant) -> Callable[[Dense], int]:
    return lambda dense: count(variant(dense))


VARIANTS: Dict[str, Variant] = {
    "dense": lambda dense: dense(),
    "squeezed": squeezed(),
    "narrowed": narrowed(as_large_as(squeezed())),
    "half": narrowed(lambda dense: count(dense()) // 2),
    "ratio 4": squeezed(ratio=4),
    "narrowed as ratio 4": narrowed(as_large_as(squeezed(ratio=4))),
}
