"""Pictures of what fell short: expected, got, difference."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checks.baseline import shown
from squeeze_patch.evaluation.grids import labelled


def failure_picture(expected: bytes, got: torch.Tensor, path: Path) -> None:
    """Write a PNG with three rows: the recorded images, those made now, their difference, amplified to be seen.

    Args:
        expected: PNG of the recorded images, one beside the other.
        got: images [N, C, R, R] in [-1, 1].
    """
    before, now = _open(expected), _open(shown(got.nan_to_num(0.0)))
    if before.shape != now.shape:
        rows = [("expected (recorded)", before), ("got", now)]
    else:
        difference = np.abs(before.astype(np.float64) - now.astype(np.float64))
        gain = max(1.0, min(255.0 / max(difference.max(), 1.0), 32.0))
        amplified = (difference * gain).clip(0, 255).astype(np.uint8)
        rows = [("expected (recorded)", before), ("got", now), (f"|difference| x {gain:.0f}", amplified)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        labelled(rows).save(stream, format="PNG")


def _open(png: bytes) -> Any:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
