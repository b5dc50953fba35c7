"""From a wish (a reduction, a ratio, widths) to a `Plan`: how many channels each block keeps between conv1 and its
readers. Pure arithmetic on block descriptions; nothing here touches a generator's weights.
"""

from __future__ import annotations

import json
import math
import numbers
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.errors import PlanError

#: the paper's figure: 12.1 % fewer generator parameters
DEFAULT_REDUCTION = 0.121
#: squeezed widths are multiples of this where a block has at least `FEW` times as many channels
MULTIPLE = 8
FEW = 4
#: how far a reduction may be from what was asked for before finer multiples are tried
TOLERANCE = 0.003
SCHEMA = 1
ALLOCATIONS = ("uniform", "spectral")


@dataclass(frozen=True)
class BlockPlan:
    """One squeezed block: ``channels`` c become ``width`` q behind conv1."""

    name: str
    resolution: int
    channels: int
    width: int


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

    def same_widths(self, other: Plan) -> bool:
        """Whether both plans make the same network of the same generator."""
        return self.family == other.family and self.blocks == other.blocks

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts: what travels on a generator."""
        return {**asdict(self), "blocks": [asdict(block) for block in self.blocks]}

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
            blocks = tuple(
                BlockPlan(str(b["name"]), int(b["resolution"]), int(b["channels"]), int(b["width"]))
                for b in data["blocks"]
            )
            ratio = None if data["ratio"] is None else float(data["ratio"])
            before, after = int(data["parameters_before"]), int(data["parameters_after"])
            return cls(str(data["family"]), blocks, before, after, ratio, schema)
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"the squeeze plan is damaged: {error!r}") from error

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of `to_json`; raises `PlanError` like `from_dict`."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
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


def width_for(channels: int, ratio: float, multiple: Optional[int] = None) -> int:
    """q for a block of c channels: c / ratio, rounded to a multiple, never below one multiple nor above c.

    The multiple is 8 (tensor cores like it) where c is at least 32, else 1.
    """
    step = multiple or (MULTIPLE if channels >= FEW * MULTIPLE else 1)
    return min(max(math.floor(channels / (step * ratio) + 0.5) * step, step), channels)


def saved_parameters(spec: BlockSpec, width: int) -> int:
    """Parameters that block ``spec`` loses when its c channels are squeezed to ``width`` (negative: gains).

    conv1 and what goes with its outputs lose c - q of them; torgb's weight and the affine layer of its style lose c - q
    inputs; excite adds c q weights and c biases, in every block but the last.
    """
    c, q = spec.channels, width
    per_channel = spec.kernel_size**2 * c + spec.output_parameters + spec.img_channels + spec.w_dim + 1
    excite = 0 if spec.is_last else c * q + c
    return (c - q) * per_channel - excite - spec.added_parameters


def check_wish(
    reduction: Optional[float] = None, ratio: Optional[float] = None, widths: Optional[Mapping[int, int]] = None
) -> None:
    """Raise `PlanError` for what no generator could be given: several wishes, or one that is out of range."""
    if sum(wish is not None for wish in (reduction, ratio, widths)) > 1:
        raise PlanError("give one of reduction, ratio and widths, not several")
    for name, wish in (("ratio", ratio), ("reduction", reduction)):
        if wish is not None and not isinstance(wish, numbers.Real):
            raise PlanError(f"{name} has to be a number, not {wish!r}")
    if ratio is not None and not (math.isfinite(ratio) and ratio >= 1):
        raise PlanError(f"ratio is c / q: a number from 1 (all channels kept, excite added) upwards, not {ratio}")
    if reduction is not None and not reduction < 1:
        raise PlanError(f"a reduction of {reduction:.1%} is out of reach (a reduction is a share: 0.121 means 12.1 %)")


def solve(
    specs: Sequence[BlockSpec],
    parameters: int,
    family: str,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    multiple: Optional[int] = None,
) -> Plan:
    """The Plan for a generator of ``parameters`` parameters (dense) with blocks ``specs``.

    Exactly one of ``reduction`` (0 to 1), ``ratio`` (>= 1) and ``widths`` ({resolution: q}) is used; none of them means
    ``reduction=DEFAULT_REDUCTION``. The reduction that comes out is the nearest that one ratio for all blocks can give.

    Raises:
        PlanError: contradictory or impossible wishes; the message states what can be reached.
    """
    check_wish(reduction, ratio, widths)
    if multiple is not None and multiple < 1:
        raise PlanError(f"multiple has to be a positive whole number, not {multiple}")

    def build(chosen: Mapping[str, int], at_ratio: Optional[float]) -> Plan:
        blocks = tuple(BlockPlan(s.name, s.resolution, s.channels, chosen[s.name]) for s in specs if s.name in chosen)
        saved = sum(saved_parameters(s, chosen[s.name]) for s in specs if s.name in chosen)
        return Plan(family, blocks, parameters, parameters - saved, at_ratio)

    def uniform(at_ratio: float, step: Optional[int]) -> Plan:
        return build({s.name: width_for(s.channels, at_ratio, step) for s in specs}, at_ratio)

    if widths is not None:
        return build(_checked_widths(specs, widths), None)
    if ratio is not None:
        return uniform(float(ratio), multiple)
    target = DEFAULT_REDUCTION if reduction is None else float(reduction)
    return _nearest(uniform, [s.channels for s in specs], multiple, target)


def _checked_widths(specs: Sequence[BlockSpec], widths: Mapping[int, int]) -> Dict[str, int]:
    by_resolution = {spec.resolution: spec for spec in specs}
    if not widths:
        raise PlanError("widths is empty: nothing would be squeezed")
    chosen: Dict[str, int] = {}
    for resolution, width in widths.items():
        if not (isinstance(resolution, numbers.Integral) and isinstance(width, numbers.Real)):
            raise PlanError(f"widths are {{resolution: channels}} in whole numbers, not {resolution!r}: {width!r}")
        spec = by_resolution.get(int(resolution))
        if spec is None:
            raise PlanError(f"widths names resolution {resolution}; this generator has {sorted(by_resolution)}")
        if int(width) != width or not 1 <= width <= spec.channels:
            raise PlanError(
                f"width {width} at resolution {resolution}: it has to be a whole number from 1 to {spec.channels}"
            )
        chosen[spec.name] = int(width)
    return chosen


def _nearest(
    uniform: Callable[[float, Optional[int]], Plan], channels: Sequence[int], multiple: Optional[int], target: float
) -> Plan:
    """The plan nearest to ``target``. In narrow generators multiples of 8 are coarse stairs; finer ones are taken, one
    after another, where the coarser miss the target by more than `TOLERANCE`."""
    best: Optional[Plan] = None
    reached: List[float] = []
    for step in (None, 4, 2, 1) if multiple is None else (multiple,):
        candidates = [plan for plan in (uniform(r, step) for r in _ratios(channels, step)) if plan.reduction > 0]
        reached += [plan.reduction for plan in candidates]
        best = min([best, *candidates] if best else candidates, key=lambda p: abs(p.reduction - target), default=None)
        if best is not None and target > 0 and abs(best.reduction - target) <= TOLERANCE:
            return best
    if best is None:
        raise PlanError("no ratio makes this generator smaller: its blocks have too few channels")
    if not min(reached) <= target <= max(reached):
        raise PlanError(
            f"a reduction of {target:.1%} is out of reach: this generator can be made {min(reached):.1%} to "
            f"{max(reached):.1%} smaller by one ratio for all blocks"
        )
    return best


def _ratios(channels: Sequence[int], multiple: Optional[int]) -> List[float]:
    """One ratio for every set of widths that `width_for` can give, ascending: the widths are a staircase in the ratio,
    with steps where c / (step * ratio) + 1/2 is whole."""
    edges = {1.0}
    for c in set(channels):
        step = multiple or (MULTIPLE if c >= FEW * MULTIPLE else 1)
        edges.update(c / (step * (k + 0.5)) for k in range(c // step) if c / (step * (k + 0.5)) > 1)
    ordered = [*sorted(edges), 2 * max(edges)]
    return [1.0] + [round((low + high) / 2, 6) for low, high in zip(ordered, ordered[1:])]


def plan(
    G: torch.nn.Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    multiple: Optional[int] = None,
    allocate: str = "uniform",
) -> Plan:
    """Plan the squeeze of a generator, dense or already squeezed; changes nothing.

    Args:
        G: a generator, or a module that holds exactly one, or a training wrapper as for `squeeze_patch.apply`.
        reduction: share of G's parameters to save, 0 to 1; default 0.121, the paper's figure.
        ratio: c / q for every block instead.
        widths: {resolution: q} instead; blocks that are not named stay dense.
        multiple: squeezed widths are multiples of this; default 8, or 1 in blocks of fewer than 32 channels.
        allocate: "uniform" = one ratio for all blocks; "spectral" = the same number of parameters, saved where a
            trained dense G's images change least by it. Blocks may stay dense.

    Raises:
        UnsupportedModelError: no adapter knows the generator.
        PlanError: the wish is impossible or contradictory; the message states what can be reached.
    """
    from squeeze_patch.adapters import locate, together

    if allocate not in ALLOCATIONS:
        raise PlanError(f"allocate has to be one of {', '.join(ALLOCATIONS)}, not {allocate!r}")
    pair = together(G)
    G = G if pair is None else pair.average
    adapter, network = locate(G)
    specs = adapter.specs(network)
    parameters = dense_parameters(G, specs)
    uniform = solve(specs, parameters, adapter.name, reduction, ratio, widths, multiple)
    if allocate == "uniform":
        return uniform
    if widths is not None:
        raise PlanError("widths say what each block gets; allocate='spectral' would choose it. Give one of them")
    if any(spec.width is not None for spec in specs):
        raise PlanError("allocate='spectral' reads a dense generator's activations; this one is squeezed already")
    from squeeze_patch.planning.spectral import allocate as spend

    return spend(adapter, G, network, uniform, multiple)


def dense_parameters(G: torch.nn.Module, specs: Sequence[BlockSpec]) -> int:
    """Parameters of ``G``, or, where it is squeezed, of the dense generator that it came from."""
    now = sum(parameter.numel() for parameter in G.parameters())
    return now + sum(saved_parameters(spec, spec.width) for spec in specs if spec.width is not None)
