"""Which channels stayed: between a Plan, which records them in plain numbers, and starts, which choose them."""

from __future__ import annotations

from typing import Dict, Mapping

import torch

from squeeze_patch.adapters.content import Kept
from squeeze_patch.planning.plans import Plan


def recorded(plan: Plan, kept: Mapping[str, Kept]) -> Plan:
    """The plan with a record of ``kept``, {block name: channels}, or without where that is empty."""
    inner = {name: each.inner.tolist() for name, each in kept.items() if each.inner is not None}
    return plan.with_kept({name: each.outputs.tolist() for name, each in kept.items()}, inner)


def kept_of(plan: Plan) -> Dict[str, Kept]:
    """{block name: channels} as the plan has recorded them; {} where it has not.

    What a block reads of a narrowed one before it is what that one kept.
    """
    found: Dict[str, Kept] = {}
    inner = plan.kept_inner
    before = None
    for block in plan.blocks:
        if block.kept is None:
            return {}
        inputs = (
            None if before is None or before.excite or before.width == before.channels else found[before.name].outputs
        )
        chosen = torch.tensor(inner[block.name]) if block.name in inner else None
        found[block.name] = Kept(torch.tensor(block.kept), chosen, inputs)
        before = block
    return found
