"""Multiply-adds of blocks, dense and of other shapes. Pure arithmetic on block descriptions."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.shapes import shapes_of

Shapes = Mapping[str, BlockShape]
#: taps of StyleGAN2's resampling filter [1, 3, 3, 1] x [1, 3, 3, 1]
FIR_TAPS = 16
#: where upsampling is bilinear: its own taps, and those of the image's blur [1, 2, 1] x [1, 2, 1]
BILINEAR_TAPS, BLUR_TAPS = 4, 9
CONVENTION = (
    "multiply-adds of the synthesis network's convolutions for one image; up-convolutions count at input "
    "resolution (at output resolution where features are upsampled in front of them), 4x4 FIR filters count"
)


def multiply_adds(spec: BlockSpec, shape: Optional[BlockShape]) -> int:
    """Multiply-adds of one block for one image, of ``shape`` or dense (None), by `CONVENTION`."""
    c = spec.channels
    inputs, p, q = (spec.dense_inputs, c, c) if shape is None else (shape.inputs, shape.inner, shape.width)
    pixels, taps = spec.positions, spec.kernel_size**2
    total = pixels * taps * p * q  # conv1
    total += pixels * spec.img_channels * q  # torgb
    if spec.upsampling == "bilinear":
        total += pixels * taps * inputs * p  # conv0, behind its upsampling
        if spec.in_channels:
            total += pixels * (BILINEAR_TAPS * (inputs + spec.img_channels) + BLUR_TAPS * spec.img_channels)
    elif spec.in_channels:
        total += (pixels // 4) * taps * inputs * p  # conv0, before its upsampling
        total += pixels * FIR_TAPS * (p + spec.img_channels)
    if shape is not None and shape.excite and not spec.is_last:
        total += pixels * c * q  # excite
    return total


def saved_multiply_adds(specs: Sequence[BlockSpec], plan: Plan) -> float:
    """Share of the dense generator's multiply-adds that a plan saves, 0 to 1."""
    shapes = shapes_of(specs, plan.blocks)
    after = sum(multiply_adds(spec, shapes.get(spec.name)) for spec in specs)
    return 1 - after / sum(multiply_adds(spec, None) for spec in specs)
