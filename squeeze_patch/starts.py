"""Which start a squeezed generator gets, and the starts that a trained one gives it."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

import torch

from squeeze_patch.adapters.base import Adapter, SqueezedStart
from squeeze_patch.calibrate import calibrated_starts, is_quick
from squeeze_patch.errors import PlanError, SqueezeError, UnsupportedModelError
from squeeze_patch.initialize import Progress, one_thread, starts_from_weights
from squeeze_patch.planner import Plan

INITS = ("calibrated", "weights", "random")
#: latents sampled for a trained start; any fixed number will do
SEED = 0


def chosen_init(init: Optional[str], adapter: Adapter, network: torch.nn.Module) -> str:
    """The start that ``init`` stands for: without a wish, calibrated where the network can be run in seconds.

    Raises:
        PlanError: there is no such start.
        UnsupportedModelError: a calibrated start is wanted for a network that cannot be run.
    """
    if init is not None and init not in INITS:
        raise PlanError(f"init has to be one of {', '.join(INITS)}, not {init!r}")
    runs = adapter.runs(network)
    if init == "calibrated" and not runs:
        raise UnsupportedModelError(
            "a calibrated start runs the generator, which is not possible here (a state dict, or an adapter that does "
            "not run its hosts). Use init='weights'"
        )
    return init or ("calibrated" if runs and is_quick(adapter, network) else "weights")


def trained_starts(
    G: torch.nn.Module,
    adapter: Adapter,
    network: torch.nn.Module,
    plan: Plan,
    init: str,
    kept: Optional[Mapping[str, torch.Tensor]],
    progress: Optional[Progress],
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks of ``plan``, calibrated or from the weights; ``G`` and its ``network`` stay as they are.

    Args:
        init: "calibrated" or "weights".
        kept: {block name: kept channels}, where they are given.

    Raises:
        SqueezeError: parameters are not finite.
    """
    with one_thread():
        for name, parameter in network.named_parameters():
            if not torch.isfinite(parameter).all():
                raise SqueezeError(f"{name} holds values that are not finite: this generator has diverged")
    widths = {block.name: block.width for block in plan.blocks}
    if init == "calibrated":
        return calibrated_starts(adapter, G, network, widths, kept, progress, SEED)
    with one_thread():
        blocks = [adapter.dense_block(network, spec.name) for spec in adapter.specs(network)]
    return starts_from_weights(blocks, widths, lambda n: adapter.sample_w(G, network, n, SEED), kept, progress)
