"""Sizes of squeezed and narrowed blocks, and how many parameters they have. Pure arithmetic on block descriptions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.errors import PlanError
from squeeze_patch.planning.plans import BlockPlan, Plan


def shapes_of(specs: Sequence[BlockSpec], blocks: Sequence[BlockPlan]) -> Dict[str, BlockShape]:
    """{block name: sizes} of the blocks that a plan names.

    Args:
        specs: all blocks in the order in which they run; of blocks that the plan does not name their ``shape`` counts.
    """
    planned = {block.name: block for block in blocks}
    found: Dict[str, BlockShape] = {}
    handed: Optional[int] = None  # channels that the block before hands on
    for spec in specs:
        inputs = spec.dense_inputs if handed is None or not spec.dense_inputs else handed
        block = planned.get(spec.name)
        if block is not None:
            found[spec.name] = BlockShape(inputs, block.inner_width, block.width, block.excite)
        handed = block.width if block is not None and not block.excite else spec.channels
    return found


def completed(specs: Sequence[BlockSpec], blocks: Sequence[BlockPlan]) -> List[BlockPlan]:
    """With the blocks that have to follow: one that reads fewer channels than it did is another block."""
    planned = {block.name: block for block in blocks}
    found: List[BlockPlan] = []
    fewer = False
    for spec in specs:
        block = planned.get(spec.name)
        if block is None and fewer:
            block = BlockPlan(spec.name, spec.resolution, spec.channels, spec.channels, excite=False)
        found += [] if block is None else [block]
        fewer = block is not None and not block.excite and block.width < spec.channels
    return found


def block_parameters(spec: BlockSpec, shape: Optional[BlockShape]) -> int:
    """Parameters of a block, dense (None) or of another shape, as far as they depend on that.

    conv0 and conv1 have k k weights for every input and output, a style for every input, and a bias or more for every
    output; the constant of a first block without conv0 has a number for every position; torgb reads conv1's outputs;
    excite has q c weights and c biases.
    """
    c = spec.channels
    inputs, p, q = (spec.dense_inputs, c, c) if shape is None else (shape.inputs, shape.inner, shape.width)
    size, per_style, per_output = spec.kernel_size**2, spec.w_dim + 1, spec.output_parameters
    height, width = spec.height_width
    total = inputs * (size * p + per_style) + per_output * p if inputs else p * height * width
    total += p * (size * q + per_style) + per_output * q
    total += q * (spec.img_channels + per_style)
    if shape is not None and shape.excite:
        total += spec.added_parameters + (0 if spec.is_last else c * q + c)
    return total


def saved_parameters(spec: BlockSpec, shape: BlockShape) -> int:
    """Parameters that a block loses by getting another shape (negative: gains)."""
    return block_parameters(spec, None) - block_parameters(spec, shape)


def dense_parameters(G: torch.nn.Module, specs: Sequence[BlockSpec]) -> int:
    """Parameters of ``G``, or, where it is squeezed, of the dense generator that it came from."""
    now = sum(parameter.numel() for parameter in G.parameters())
    return now + sum(saved_parameters(spec, spec.shape) for spec in specs if spec.shape is not None)


def plan_of_blocks(
    specs: Sequence[BlockSpec],
    parameters: int,
    family: str,
    blocks: Sequence[BlockPlan],
    ratio: Optional[float] = None,
) -> Plan:
    """The Plan of ``blocks`` and what has to follow, for a generator of ``parameters`` parameters (dense)."""
    whole = completed(specs, blocks)
    shapes = shapes_of(specs, whole)
    saved = sum(saved_parameters(spec, shapes[spec.name]) for spec in specs if spec.name in shapes)
    return Plan(family, tuple(whole), parameters, parameters - saved, ratio)


def dense_of(spec: BlockSpec) -> BlockSpec:
    """The dense block that it came from."""
    as_it_was: Dict[str, Any] = {"width": None, "inner": None, "inputs": None, "excite": True}
    return replace(spec, **as_it_was)


def fits(specs: Sequence[BlockSpec], shapes: Mapping[str, BlockShape]) -> bool:
    """Whether the blocks are of these shapes, and the others dense."""
    return {spec.name: spec.shape for spec in specs if spec.shape is not None} == dict(shapes)


def check_fits(plan: Plan, specs: Sequence[BlockSpec]) -> None:
    """Raise `PlanError` where a plan cannot be carried out on a dense generator of blocks ``specs``."""
    known = {spec.name: spec for spec in specs}
    for block in plan.blocks:
        spec = known.get(block.name)
        if spec is None or spec.channels != block.channels or not 1 <= block.width <= block.channels:
            has = "no such block" if spec is None else f"{spec.channels} channels"
            raise PlanError(
                f"the plan does not fit this generator: {block.name} should go from {block.channels} to {block.width} "
                f"channels, the generator has {has} there"
            )
    if not plan.blocks:
        raise PlanError("the plan squeezes no block")
    names = [block.name for block in plan.blocks]
    if names != [name for name in known if name in names]:
        raise PlanError(
            f"the plan does not fit this generator: its blocks have to be named once, in the order {', '.join(known)}"
        )
    if [block.name for block in completed(specs, plan.blocks)] != names:
        raise PlanError("the plan does not fit this generator: behind a narrowed block it names no block that reads it")
