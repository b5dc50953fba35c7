"""What a generator costs, dense and squeezed: parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.adapters.located import Located
from squeeze_patch.fused_convolution import pays
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.solver import dense_parameters, saved_parameters

#: taps of StyleGAN2's resampling filter [1, 3, 3, 1] x [1, 3, 3, 1]
FIR_TAPS = 16
#: where upsampling is bilinear: its own taps, and those of the image's blur [1, 2, 1] x [1, 2, 1]
BILINEAR_TAPS, BLUR_TAPS = 4, 9
CONVENTION = (
    "multiply-adds of the synthesis network's convolutions for one image; up-convolutions count at input "
    "resolution (at output resolution where features are upsampled in front of them), 4x4 FIR filters count"
)


@dataclass(frozen=True)
class BlockRow:
    """One block, before and after: channels behind conv1 and multiply-adds."""

    resolution: int
    channels: int
    width: int
    multiply_adds_before: int
    multiply_adds_after: int
    height_width: Tuple[int, int]


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


def multiply_adds(spec: BlockSpec, width: Optional[int]) -> int:
    """Multiply-adds of one block for one image, squeezed to ``width`` or dense (None), by `CONVENTION`."""
    q = spec.channels if width is None else width
    pixels = spec.positions
    total = pixels * spec.kernel_size**2 * spec.channels * q  # conv1
    total += pixels * spec.img_channels * q  # torgb
    if spec.upsampling == "bilinear":
        inputs = spec.in_channels or spec.channels
        total += pixels * spec.kernel_size**2 * inputs * spec.channels  # conv0, behind its upsampling
        if spec.in_channels:
            total += pixels * (BILINEAR_TAPS * (inputs + spec.img_channels) + BLUR_TAPS * spec.img_channels)
    elif spec.in_channels:
        total += (pixels // 4) * spec.kernel_size**2 * spec.in_channels * spec.channels  # conv0, before its upsampling
        total += pixels * FIR_TAPS * (spec.channels + spec.img_channels)
    if width is not None and not spec.is_last:
        total += pixels * spec.channels * q  # excite
    return total


def fused_multiply_adds(specs: Sequence[BlockSpec], widths: Dict[str, Optional[int]], folds: bool = True) -> List[int]:
    """Multiply-adds of each block for one image, by `CONVENTION`, where the squeezed blocks run fused
    (`squeeze_patch.fuse`).

    excite then counts in the block that reads its features, if that is squeezed, too: folded into conv0 where that
    saves more than folding costs, which is counted. Behind bilinear upsampling nothing is folded.

    Args:
        specs: the blocks in the order in which they run.
        widths: {block name: q, or None = dense}.
        folds: False = excite is never folded, as on a GPU.
    """
    counts = [multiply_adds(spec, widths.get(spec.name)) for spec in specs]
    for k, (before, spec) in enumerate(zip(specs, specs[1:]), start=1):
        q = widths.get(before.name)
        if q is None or widths.get(spec.name) is None or spec.upsampling == "bilinear":
            continue
        inputs, pixels, size = spec.in_channels, before.positions, spec.kernel_size
        weight = torch.empty([spec.channels, inputs, size, size], device="meta")
        excite = pixels * inputs * q
        counts[k - 1] -= excite
        if folds and pays(weight, q, pixels):
            counts[k] += size**2 * spec.channels * (pixels * (q + 1 - inputs) + inputs * (q + 1))
        else:
            counts[k] += excite
    return counts


def report(found: Located, plan: Optional[Plan] = None) -> Report:
    """Cost of a generator dense and as ``plan`` squeezes it; ``plan=None`` takes the widths that it has now."""
    specs = found.specs
    widths = {s.name: s.width for s in specs} if plan is None else {b.name: b.width for b in plan.blocks}
    return cost(specs, dense_parameters(found.generator, specs), widths)


def cost(specs: Sequence[BlockSpec], parameters: int, widths: Dict[str, Any]) -> Report:
    """Cost of a generator of ``parameters`` (dense) with blocks ``specs``, dense and with {block name: q or None}."""
    rows = []
    saved = 0
    for spec in specs:
        width = widths.get(spec.name)
        saved += 0 if width is None else saved_parameters(spec, width)
        rows.append(
            BlockRow(
                spec.resolution,
                spec.channels,
                spec.channels if width is None else width,
                multiply_adds(spec, None),
                multiply_adds(spec, width),
                spec.height_width,
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
                f"{row.channels} -> {row.width}",
                row.multiply_adds_before,
                row.multiply_adds_after,
            )
        )
    lines.append(_line("all", "", result.multiply_adds_before, result.multiply_adds_after))
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
