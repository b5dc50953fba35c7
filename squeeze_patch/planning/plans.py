"""The Plan: what a squeeze does to a generator, in a form that travels with it and with its files."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from squeeze_patch.errors import PlanError

SCHEMA = 1
#: no layer has more
MOST_CHANNELS = 1 << 20


Channels = Optional[Tuple[int, ...]]


def _whole(value: Any) -> int:
    """A number of a plan's JSON; one that was edited to 31.9, "32" or true is not taken for what it is near to."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool):
        raise ValueError(f"{value} is no whole number")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{value!r:.40} is no whole number") from None


#: {block name: channels}
Record = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class BlockPlan:
    """One squeezed block: ``channels`` c become ``width`` q behind conv1; or one that is narrowed.

    Attributes:
        name: of the block within the synthesis network.
        resolution: of its features.
        channels: c, of the dense block.
        width: q, channels behind conv1.
        kept: which of the c they were in the dense generator, ascending; None where no start has chosen them (a plan
            that has not been carried out, random layers). Plans of other channels are equal.
        inner: p, channels behind conv0 (or of the constant); None = c, as in the dense block.
        excite: True = squeezed, excite makes c channels again; False = narrowed, the next block reads q channels.
        kept_inner: as ``kept``, of the p.
    """

    name: str
    resolution: int
    channels: int
    width: int
    kept: Channels = field(default=None, compare=False)
    inner: Optional[int] = None
    excite: bool = True
    kept_inner: Channels = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.inner == self.channels:
            object.__setattr__(self, "inner", None)

    @property
    def inner_width(self) -> int:
        """p."""
        return self.channels if self.inner is None else self.inner

    def to_dict(self) -> Dict[str, Any]:
        """What is as in the paper's block is left out."""
        data = {"name": self.name, "resolution": self.resolution, "channels": self.channels, "width": self.width}
        more = {"kept": self.kept and list(self.kept), "inner": self.inner, "excite": None if self.excite else False}
        more["kept_inner"] = self.kept_inner and list(self.kept_inner)
        return {**data, **{name: value for name, value in more.items() if value is not None}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BlockPlan:
        """Inverse of `to_dict`; raises KeyError, TypeError or ValueError where it is damaged."""
        kept, kept_inner = (
            None if data.get(k) is None else tuple(map(_whole, data[k])) for k in ("kept", "kept_inner")
        )
        resolution, channels_before, width_now = (_whole(data[name]) for name in ("resolution", "channels", "width"))
        inner = None if data.get("inner") is None else _whole(data["inner"])
        excite = data.get("excite", True)
        block = cls(str(data["name"]), resolution, channels_before, width_now, kept, inner, excite, kept_inner)
        if not 0 < block.channels <= MOST_CHANNELS or not isinstance(excite, bool):
            raise ValueError(f"{block.name[:40]} has impossible channels")
        for width, channels in ((block.width, kept), (block.inner_width, kept_inner)):
            if not 0 < width <= block.channels:
                raise ValueError(f"{block.name[:40]} has impossible channels")
            if channels is not None and not (
                len(channels) == width
                and list(channels) == sorted(set(channels))
                and all(0 <= channel < block.channels for channel in channels)
            ):
                raise ValueError(f"kept channels of {block.name} are not {width} of {block.channels}")
        return block

    def __str__(self) -> str:
        inner = "" if self.inner is None else f"{self.inner}/"
        return f"{self.resolution}: {self.channels}->{inner}{self.width}"


@dataclass(frozen=True)
class Plan:
    """What `squeeze_patch.apply` does to a generator. Blocks that are not listed stay dense; where one is narrowed, so
    are all that read its channels.

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
        """{resolution: q}; see ``blocks`` for what is behind conv0."""
        return {block.resolution: block.width for block in self.blocks}

    @property
    def kept(self) -> Dict[str, Tuple[int, ...]]:
        """{block name: channels of the dense generator that stayed}, {} where no record of them is there."""
        return {block.name: block.kept for block in self.blocks if block.kept is not None}

    @property
    def kept_inner(self) -> Dict[str, Tuple[int, ...]]:
        """As `kept`, of the channels behind conv0, for blocks that do not have all of them."""
        return {block.name: block.kept_inner for block in self.blocks if block.kept_inner is not None}

    @property
    def method(self) -> str:
        """ "narrow" where no block has excite, else "squeeze"."""
        return "squeeze" if any(block.excite for block in self.blocks) else "narrow"

    def may_be_by(self, method: str) -> bool:
        """Whether ``method`` can have made it: blocks that keep all channels behind conv1 are the same by either."""
        if method == "narrow":
            return not any(block.excite for block in self.blocks)
        return all(block.excite or block.width == block.channels for block in self.blocks)

    @property
    def is_told_by_shapes(self) -> bool:
        """Whether the sizes of a generator's layers say what was done to it: all its blocks are the paper's."""
        return all(block.excite and block.inner is None for block in self.blocks)

    @property
    def fingerprint(self) -> str:
        """Of the channels kept: equal in generators whose weights can be averaged and swapped; "" without record."""
        if not self.kept:
            return ""
        record = [self.kept, self.kept_inner] if self.kept_inner else self.kept
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:8]

    def with_kept(
        self, kept: Mapping[str, Sequence[int]], inner: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> Plan:
        """The same plan with a record of the channels kept, or without where ``kept`` is empty."""
        chosen, chosen_inner = ({name: tuple(map(int, c)) for name, c in each.items()} for each in (kept, inner))
        blocks = (
            replace(block, kept=chosen.get(block.name), kept_inner=chosen_inner.get(block.name))
            for block in self.blocks
        )
        return replace(self, blocks=tuple(blocks))

    def same_channels(self, other: Plan) -> bool:
        """Whether both have kept the same channels."""
        return (self.kept, self.kept_inner) == (other.kept, other.kept_inner)

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
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise PlanError("this is no squeeze plan: it has no schema number")
        if schema > SCHEMA:
            raise PlanError(f"the plan has schema {schema}, this squeeze_patch knows {SCHEMA}; update squeeze_patch")
        try:
            blocks = tuple(map(BlockPlan.from_dict, data["blocks"]))
            ratio = None if data["ratio"] is None else float(data["ratio"])
            before, after = _whole(data["parameters_before"]), _whole(data["parameters_after"])
            if ratio is not None and not (math.isfinite(ratio) and ratio >= 1):
                raise ValueError(f"ratio {ratio} is not 1 or more")
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
        widths = ", ".join(map(str, self.blocks))
        legend = " (c->p/q: p behind the first convolution)" if any(block.inner for block in self.blocks) else ""
        return (
            f"{ratio}{self.parameters_before:,} -> {self.parameters_after:,} parameters "
            f"({describe_reduction(self.reduction)}); channels {widths}{legend}"
        )


def describe_reduction(reduction: float) -> str:
    return f"{abs(reduction):.2%} {'fewer' if reduction >= 0 else 'more'}".replace("%", " %")
