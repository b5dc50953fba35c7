"""Where the moving averages of a training are kept, and tensors as they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import torch


def average_file(state: Path, kimg: float) -> Path:
    """Where the moving average is kept that the training in ``state`` had at ``kimg``."""
    return state.with_name(f"{state.stem}.{kimg:g}.ema")


def kept_averages(state: Path) -> Dict[float, Path]:
    """{kimg: file}, in the order of the training."""
    files = {float(file.name[len(state.stem) + 1 : -4]): file for file in state.parent.glob(f"{state.stem}.*.ema")}
    return dict(sorted(files.items()))


def on_cpu(state: Any) -> Any:
    """The same dicts and lists, with all tensors on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return type(state)((key, on_cpu(value)) for key, value in state.items())
    return [on_cpu(value) for value in state] if isinstance(state, list) else state
