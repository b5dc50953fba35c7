"""A comparison as sections of a page."""

from __future__ import annotations

from typing import List, Mapping

import torch

from squeeze_patch.evaluation.compare import HALVES, Comparison
from squeeze_patch.evaluation.grids import to_pixels
from squeeze_patch.reporting.page import Curve, Pictures, Row, Section, Table


def comparison_sections(found: Comparison, images: Mapping[str, torch.Tensor]) -> List[Section]:
    """Images, figures, and what of them are curves over resolutions.

    Args:
        found: of `squeeze_patch.compare`.
        images: {what made them: images [N, C, H, W] in [-1, 1] of its first latents}, as `grids.first_images` gives
            them; of at least two generators, or more that are to be seen beside them.
    """
    latents = len(next(iter(images.values())))
    note = f"Of the first {latents} of {found.images} latents." if latents < found.images else ""
    rows = [Row(name, value, f"halves {halves}" if halves else "") for name, value, halves in found.rows()]
    sections: List[Section] = [
        Pictures("Images", {name: to_pixels(layer) for name, layer in images.items()}, note),
        Table("Figures", rows, ("figure", "value", "what chance makes"), f"{HALVES[0].upper()}{HALVES[1:]}."),
    ]
    features = [(row.resolution, 100 * row.relative) for row in found.features]
    if len(features) > 1:
        what = "How far apart the features are that a block hands on, relative to their size."
        missing = f"\nMissing: {found.features_missing}" if found.features_missing else ""
        sections.append(
            Curve(
                "Features between blocks",
                "resolution",
                "distance, %",
                {"A to B": features},
                log_x=True,
                note=what + missing,
            )
        )
    levels = found.sliced_wasserstein
    if len(levels) > 1:
        series = {
            "A to B": [(resolution, level.value) for resolution, level in levels.items()],
            "two halves of A's images": [
                (resolution, level.halves) for resolution, level in levels.items() if level.halves is not None
            ],
        }
        series = {name: points for name, points in series.items() if points}
        sections.append(Curve("Sliced Wasserstein", "level of the pyramid", "distance", series, log_x=True))
    return sections
