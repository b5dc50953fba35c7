"""The Plan: what a squeeze does to a generator, in a form that travels with it and with its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from squeeze_patch.errors import PlanError

SCHEMA = 1
#: no layer has more
MOST_CHANNELS = 1 << 20


@dataclass(frozen=True)
class BlockPlan:
    """One squeezed block: ``channels`` c become ``width`` q behind conv1.

    ``kept``: which of the c they were in the dense generator, ascending; None where no start has chosen them (a plan
    that has not been carried out, random layers). Plans of other channels are equal.
    """

    name: str
    resolution: int
    channels: int
    width: int
    kept: Optional[Tuple[int, ...]] = field(default=None, compare=False)

    def to_dict(self) -> Dict[str, Any]:
        data = {"name": self.name, "resolution": self.resolution, "channels": self.channels, "width": self.width}
        return data if self.kept is None else {**data, "kept": list(self.kept)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BlockPlan:
        """Inverse of `to_dict`; raises KeyError, TypeError or ValueError where it is damaged."""
        kept = data.get("kept")
        found = None if kept is None else tuple(map(int, kept))
        if not 0 < int(data["width"]) <= int(data["channels"]) <= MOST_CHANNELS:
            raise ValueError(f"{str(data['name'])[:40]} has impossible channels")
        block = cls(str(data["name"]), int(data["resolution"]), int(data["channels"]), int(data["width"]), found)
        if found is not None and not (
            len(found) == block.width
            and list(found) == sorted(set(found))
            and all(0 <= channel < block.channels for channel in found)
        ):
            raise ValueError(f"kept channels of {block.name} are not {block.width} of {block.channels}")
        return block


@dataclass(frozen=True)
class Plan:
    """What `squeeze_patch.apply` does to a generator. Blocks that are not listed stay dense.

    Attributes:
        family: name of the adapter.
        blocks: squeezed blocks in running order.
        parameters_before: parameters of the dense generator.
        parameters_after: parameters of the squeezed generator.
        ratio: c / q before rounding, None where widths were given block by block.
        schema: version of the JSON form.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> plan = squeeze_patch.plan(trained_generator())
        >>> squeeze_patch.Plan.from_json(plan.to_json()) == plan
        True
    """

    family: str
    blocks: Tuple[BlockPlan, ...]
    parameters_before: int
    parameters_after: int
    ratio: Optional[float] = None
    schema: int = SCHEMA

    @property
    def reduction(self) -> float:
        """Share of the parameters that goes, 0 to 1 (negative at ratios near 1, where excite outweighs it)."""
        return 1 - self.parameters_after / self.parameters_before

    @property
    def widths(self) -> Dict[int, int]:
        """{resolution: q}."""
        return {block.resolution: block.width for block in self.blocks}

    @property
    def kept(self) -> Dict[str, Tuple[int, ...]]:
        """{block name: channels of the dense generator that stayed}, {} where no record of them is there."""
        return {block.name: block.kept for block in self.blocks if block.kept is not None}

    @property
    def fingerprint(self) -> str:
        """Of the channels kept: equal in generators whose weights can be averaged and swapped; "" without record."""
        if not self.kept:
            return ""
        return hashlib.sha256(json.dumps(self.kept).encode()).hexdigest()[:8]

    def with_kept(self, kept: Mapping[str, Sequence[int]]) -> Plan:
        """The same plan with a record of the channels kept, or without where ``kept`` is empty."""
        chosen = {name: tuple(map(int, channels)) for name, channels in kept.items()}
        return replace(self, blocks=tuple(replace(block, kept=chosen.get(block.name)) for block in self.blocks))

    def same_widths(self, other: Plan) -> bool:
        """Whether both plans make the same network of the same generator."""
        return self.family == other.family and self.blocks == other.blocks

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts: what travels on a generator."""
        return {**asdict(self), "blocks": [block.to_dict() for block in self.blocks]}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Inverse of `to_dict`.

        Raises:
            PlanError: written by a newer squeeze_patch, or not a plan.
        """
        schema = data.get("schema")
        if not isinstance(schema, int) or schema < 1:
            raise PlanError("this is no squeeze plan: it has no schema number")
        if schema > SCHEMA:
            raise PlanError(f"the plan has schema {schema}, this squeeze_patch knows {SCHEMA}; update squeeze_patch")
        try:
            blocks = tuple(map(BlockPlan.from_dict, data["blocks"]))
            ratio = None if data["ratio"] is None else float(data["ratio"])
            before, after = int(data["parameters_before"]), int(data["parameters_after"])
            if min(before, after) <= 0:
                raise ValueError("no parameters")
            return cls(str(data["family"]), blocks, before, after, ratio, schema)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise PlanError(f"the squeeze plan is damaged: {error!r}") from error

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of `to_json`; raises `PlanError` like `from_dict`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"the squeeze plan is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise PlanError("the squeeze plan is no JSON object")
        return cls.from_dict(data)

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"ratio {self.ratio:.3g}, "
        widths = ", ".join(f"{b.resolution}: {b.channels}->{b.width}" for b in self.blocks)
        return (
            f"{ratio}{self.parameters_before:,} -> {self.parameters_after:,} parameters "
            f"({describe_reduction(self.reduction)}); channels {widths}"
        )


def describe_reduction(reduction: float) -> str:
    return f"{abs(reduction):.2%} {'fewer' if reduction >= 0 else 'more'}".replace("%", " %")
