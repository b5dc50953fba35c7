"""What hosts' training scripts have in common once an adapter has got hold of a generator that they have just built."""

from __future__ import annotations

from typing import Any, Dict, TypeVar

import torch

Module = TypeVar("Module", bound=torch.nn.Module)


def squeeze_new(G: Module, wish: Dict[str, Any]) -> Module:
    """Squeeze a generator, or a wrapper as for `squeeze_patch.apply`, at fresh random weights, for good.

    Args:
        G: before optimisers see it; changed in place.
        wish: arguments of `squeeze_patch.apply`, a plan as a plain dict, as `launch.Start` has them.
    """
    from squeeze_patch.planning.planner import Plan
    from squeeze_patch.surgery.apply import apply

    plan = {"plan": Plan.from_dict(wish["plan"])} if "plan" in wish else {}
    return apply(G, init="random", keep_original=False, **{**wish, **plan})
