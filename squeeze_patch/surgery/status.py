"""status: what was done to a generator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import torch

from squeeze_patch.adapters import EmaPair, locate, together
from squeeze_patch.errors import PlanError
from squeeze_patch.planning.planner import Plan, dense_parameters, describe_reduction


@dataclass(frozen=True)
class Status:
    """What `status` found.

    Attributes:
        state: "dense", "squeezed" (every block is as the Plan on the generator says) or "irregular".
        family: name of the adapter.
        plan: the Plan that travels on the generator, None where there is none.
        parameters_before: parameters of the dense generator.
        parameters_after: parameters now.
        blocks: number of blocks.
        squeezed_blocks: how many of them are squeezed.
        detail: what is irregular, else "".
    """

    state: str
    family: str
    plan: Optional[Plan]
    parameters_before: int
    parameters_after: int
    blocks: int
    squeezed_blocks: int
    detail: str = ""

    def __str__(self) -> str:
        if self.state == "dense":
            return f"dense: {self.parameters_before:,} parameters, {self.blocks} blocks"
        if self.state == "irregular":
            return f"irregular: {self.squeezed_blocks} of {self.blocks} blocks squeezed; {self.detail}"
        fewer = describe_reduction(1 - self.parameters_after / self.parameters_before)
        return (
            f"squeezed: {self.squeezed_blocks} of {self.blocks} blocks, "
            f"{self.parameters_before:,} -> {self.parameters_after:,} parameters ({fewer})"
        )


def status(G: torch.nn.Module) -> Status:
    """What state a generator is in; prints as one line.

    Raises:
        UnsupportedModelError: no adapter knows the generator.
    """
    pair = together(G)
    if pair is not None:
        return _status_of_pair(pair)
    adapter, network = locate(G)
    specs = adapter.specs(network)
    squeezed_now = {spec.name: spec.width for spec in specs if spec.width is not None}
    after = sum(parameter.numel() for parameter in G.parameters())
    stored = adapter.plan_of(network)
    plan: Optional[Plan] = None
    detail = ""
    if stored is not None:
        try:
            plan = Plan.from_dict(stored)
        except PlanError as error:
            detail = str(error)
    if stored is None and squeezed_now:
        detail = "no plan travels with it"
    elif plan is not None and {block.name: block.width for block in plan.blocks} != squeezed_now:
        detail = f"its plan squeezes {len(plan.blocks)} blocks, in other widths or places"
    state = "irregular" if detail else "squeezed" if squeezed_now else "dense"
    before = dense_parameters(G, specs)
    return Status(state, adapter.name, plan, before, after, len(specs), len(squeezed_now), detail)


def _status_of_pair(pair: EmaPair) -> Status:
    """Of the moving average, whose parameters are counted, unless the two differ."""
    average, trained = status(pair.average), status(pair.trained)
    if trained.state == "irregular" or (trained.state, trained.plan) == (average.state, average.plan):
        return trained if trained.state == "irregular" else average
    return replace(average, state="irregular", detail="the generator and its moving average are squeezed differently")
