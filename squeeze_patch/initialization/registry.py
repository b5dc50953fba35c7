"""Which start a squeezed generator gets, and the starts that a trained one gives it."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

import torch

from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.content import SqueezedStart
from squeeze_patch.errors import PlanError, SqueezeError
from squeeze_patch.initialization.calibrated import calibrated_starts
from squeeze_patch.initialization.from_weights import Progress, one_thread, starts_from_weights
from squeeze_patch.planning.planner import Plan

INITS = ("calibrated", "weights", "random")
#: of the latents of a trained start: a number that nobody takes for images, so that these are not what was fitted
SEED = 1_397_836_357


def check_init(init: str) -> None:
    """Raise `PlanError` where there is no such start."""
    if init not in INITS:
        raise PlanError(f"init has to be one of {', '.join(INITS)}, not {init!r}")


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
    start = calibrated_starts if init == "calibrated" else starts_from_weights
    with torch.inference_mode(False):  # gradients can be taken
        with one_thread():
            blocks = [adapter.dense_block(network, spec.name) for spec in adapter.specs(network)]
        return start(blocks, widths, lambda n: adapter.sample_w(G, network, n, SEED), kept, progress)
