"""What a generator costs, dense and squeezed: parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.adapters.located import Located
from squeeze_patch.fused_convolution import pays
from squeeze_patch.planning.multiply_adds import BILINEAR_TAPS, CONVENTION, Shapes, multiply_adds
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.shapes import dense_parameters, saved_parameters, shapes_of

#: of `table`
LEGEND = (
    "(channels: c of the dense block -> q, or p/q; p and q are left behind its first and its second convolution, p = c "
    "unless said; ratio: multiply-adds after / before)"
)


@dataclass(frozen=True)
class BlockRow:
    """One block, before and after: channels behind conv1 (``width``) and conv0 (``inner``), and multiply-adds."""

    resolution: int
    channels: int
    width: int
    multiply_adds_before: int
    multiply_adds_after: int
    height_width: Tuple[int, int]
    inner: int


@dataclass(frozen=True)
class Report:
    """Cost of a generator without and with the squeeze connection."""

    parameters_before: int
    parameters_after: int
    multiply_adds_before: int
    multiply_adds_after: int
    blocks: Tuple[BlockRow, ...]
    convention: str = CONVENTION

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


def fused_multiply_adds(specs: Sequence[BlockSpec], shapes: Shapes, folds: bool = True) -> List[int]:
    """Multiply-adds of each block for one image, by `CONVENTION`, where the squeezed blocks run fused
    (`squeeze_patch.fuse`).

    excite then counts in the block that reads its features, if that is squeezed, too: folded into conv0 where that
    saves more than folding costs, which is counted.

    Args:
        specs: the blocks in the order in which they run.
        shapes: {block name: sizes} of those that are not dense.
        folds: False = excite is never folded, as on a GPU.
    """
    counts = [multiply_adds(spec, shapes.get(spec.name)) for spec in specs]
    for k, (before, spec) in enumerate(zip(specs, specs[1:]), start=1):
        giver, reader = shapes.get(before.name), shapes.get(spec.name)
        if giver is None or reader is None or not (giver.excite and reader.excite):
            continue
        q, inputs, size, bilinear = giver.width, reader.inputs, spec.kernel_size, spec.upsampling == "bilinear"
        pixels = spec.positions if bilinear else before.positions  # that conv0 reads
        excite = before.positions * inputs * q
        counts[k - 1] -= excite
        if folds and pays(torch.empty([reader.inner, inputs, size, size], device="meta"), q, pixels):
            counts[k] += size**2 * reader.inner * (pixels * (q + 1 - inputs) + inputs * (q + 1))
            counts[k] += pixels * BILINEAR_TAPS * (q - inputs) if bilinear else 0
        else:
            counts[k] += excite
    return counts


def report(found: Located, plan: Optional[Plan] = None) -> Report:
    """Cost of a generator dense and as ``plan`` squeezes it; ``plan=None`` takes the widths that it has now."""
    specs = found.specs
    now = {spec.name: spec.shape for spec in specs if spec.shape is not None}
    return cost(specs, dense_parameters(found.generator, specs), now if plan is None else shapes_of(specs, plan.blocks))


def cost(specs: Sequence[BlockSpec], parameters: int, shapes: Shapes) -> Report:
    """Cost of a generator of ``parameters`` (dense) with blocks ``specs``, dense and with {block name: sizes}."""
    rows = []
    saved = 0
    for spec in specs:
        shape = shapes.get(spec.name)
        saved += 0 if shape is None else saved_parameters(spec, shape)
        rows.append(
            BlockRow(
                spec.resolution,
                spec.channels,
                spec.channels if shape is None else shape.width,
                multiply_adds(spec, None),
                multiply_adds(spec, shape),
                spec.height_width,
                spec.channels if shape is None else shape.inner,
            )
        )
    before = sum(row.multiply_adds_before for row in rows)
    after = sum(row.multiply_adds_after for row in rows)
    return Report(parameters, parameters - saved, before, after, tuple(rows))


def table(result: Report) -> str:
    """The report as text: one line a block, then totals."""
    lines = [f"{'block':>9} {'channels':>14} {'multiply-adds':>27} {'ratio':>7}"]
    for row in result.blocks:
        lines.append(
            _line(
                "{}x{}".format(*row.height_width),
                f"{row.channels} -> {'' if row.inner == row.channels else f'{row.inner}/'}{row.width}",
                row.multiply_adds_before,
                row.multiply_adds_after,
            )
        )
    lines.append(_line("all", "", result.multiply_adds_before, result.multiply_adds_after))
    lines.append(LEGEND)
    lines.append(f"({result.convention})")
    return "\n".join(lines)


def _line(name: str, channels: str, before: int, after: int) -> str:
    amounts = f"{amount(before)} -> {amount(after)}"
    return f"{name:>9} {channels:>14} {amounts:>27} {after / before:>7.2f}"


def amount(value: float) -> str:
    """12345678 -> '12.35 M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"
