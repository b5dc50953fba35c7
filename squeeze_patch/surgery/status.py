"""status: what was done to a generator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Optional

import torch

from squeeze_patch.adapters import search, unwrapped
from squeeze_patch.adapters.located import Located, Target
from squeeze_patch.errors import PlanError, StateError
from squeeze_patch.planning.plans import Plan, describe_reduction
from squeeze_patch.planning.shapes import dense_parameters, shapes_of


@dataclass(frozen=True)
class Status:
    """What `status` found.

    Attributes:
        state: "dense", "squeezed" (every block is as the Plan on the generator says, by whichever method) or
            "irregular".
        family: name of the adapter.
        plan: the Plan that travels on the generator, None where there is none.
        parameters_before: parameters of the dense generator, mapping and synthesis, whatever holds it.
        parameters_after: parameters now.
        blocks: number of blocks.
        squeezed_blocks: how many of them are squeezed, or narrowed.
        detail: what is irregular, else "".
        place: where in the module that was passed the generator is, "" = it is the generator.
        fused_blocks: how many of the squeezed blocks run fused where nothing is trained; see `squeeze_patch.fuse`.
    """

    state: str
    family: str
    plan: Optional[Plan]
    parameters_before: int
    parameters_after: int
    blocks: int
    squeezed_blocks: int
    detail: str = ""
    place: str = ""
    fused_blocks: int = 0

    def __str__(self) -> str:
        where = f", in {self.place}" if self.place else ""
        if self.state == "dense":
            return f"dense: {self.parameters_before:,} parameters, {self.blocks} blocks{where}"
        if self.state == "irregular":
            return f"irregular: {self.squeezed_blocks} of {self.blocks} blocks squeezed; {self.detail}{where}"
        fewer = describe_reduction(1 - self.parameters_after / self.parameters_before)
        done = "squeezed" if self.plan is None or self.plan.may_be_by("squeeze") else "narrowed"
        return (
            f"{done}: {self.squeezed_blocks} of {self.blocks} blocks, "
            f"{self.parameters_before:,} -> {self.parameters_after:,} parameters ({fewer})"
            f"{', fused' if self.fused_blocks else ''}{where}"
        )


def status(G: torch.nn.Module) -> Status:
    """What state a generator is in; prints as one line.

    Raises:
        UnsupportedModelError: no adapter knows the generator.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> print(squeeze_patch.status(trained_generator()))
        dense: 263,531 parameters, 4 blocks
    """
    return status_of(search(unwrapped(G)))


def kept_channels(G: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """Which channels of the dense generator a squeezed one has kept, to carry over what was found on the dense one.

    The styles of convolutions, and the features between blocks, have all c channels as before: directions and channel
    numbers for them stay what they are. What has q channels is conv1's output and toRGB's style: entry i of theirs was
    entry ``kept[i]``. Behind narrowed blocks, so have the features and the style of the convolution that reads them; of
    what is narrower inside, ``status(G).plan.kept_inner`` says the channels.

    Args:
        G: a generator that was squeezed with a trained start, also a copy, or one out of a file.

    Returns:
        {block name: channels [q], int64, ascending}.

    Raises:
        StateError: G is dense or half squeezed, or has no record of them (random layers, a bare state dict).

    Example:
        >>> import torch
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.apply(trained_generator(), ratio=4, init="weights")
        >>> kept = squeeze_patch.kept_channels(G)["b4"]
        >>> direction = torch.randn(64)  # for the dense generator's b4.torgb style
        >>> direction[kept].shape == G.synthesis.b4.torgb.affine.bias.shape
        True
    """
    found = status(G)
    if found.state == "irregular":
        raise StateError(f"the generator is half squeezed ({found.detail}); load it anew")
    if found.plan is None:
        raise StateError("the generator is dense: it has all of its channels")
    if not found.plan.kept:
        raise StateError(
            "this squeezed generator has no record of the channels that it kept: it has random layers, or comes from a "
            "bare state dict"
        )
    return {name: torch.tensor(channels) for name, channels in found.plan.kept.items()}


def status_of(target: Target) -> Status:
    """Of a training wrapper: of the moving average, whose parameters are counted, unless the two differ."""
    average, *others = (status_of_part(part) for part in target.parts)
    for trained in others:
        if trained.state == "irregular":
            return trained
        if (trained.state, trained.plan) != (average.state, average.plan):
            detail = "the generator and its moving average are squeezed differently"
            return replace(average, state="irregular", detail=detail)
    return average


def status_of_part(found: Located) -> Status:
    """Of one generator, as it was when it was found."""
    squeezed_now = {spec.name: spec.shape for spec in found.specs if spec.shape is not None}
    after = sum(parameter.numel() for parameter in found.generator.parameters())
    stored = found.surgery.plan_of(found.network)
    plan: Optional[Plan] = None
    detail = ""
    if stored is not None:
        try:
            plan = Plan.from_dict(stored)
        except PlanError as error:
            detail = str(error)
    if stored is None and squeezed_now:
        detail = "no plan travels with it"
    elif plan is not None and shapes_of(found.specs, plan.blocks) != squeezed_now:
        detail = f"its plan squeezes {len(plan.blocks)} blocks, in other widths or places"
    state = "irregular" if detail else "squeezed" if squeezed_now else "dense"
    before = dense_parameters(found.generator, found.specs)
    fusing = found.adapter.fusing
    fused = 0 if fusing is None else sum(fusing.fused(found.network, s.name) for s in found.specs if s.is_squeezed)
    return Status(
        state, found.adapter.name, plan, before, after, len(found.specs), len(squeezed_now), detail, found.place, fused
    )
