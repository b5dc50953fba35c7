"""Images of a disc: its place, size and colours are what the latent says."""

from __future__ import annotations

from pathlib import Path

import torch

from discs.network import Generator

WEIGHTS = Path(__file__).parent.parent / "weights"


def squeezed() -> Generator:
    """What this repository ships."""
    return stored(WEIGHTS / "squeezed.pt")


def dense() -> Generator:
    """What it came from."""
    return stored(WEIGHTS / "dense.pt")


def stored(path: Path) -> Generator:
    """The generator in a checkpoint, dense or squeezed."""
    checkpoint = torch.load(path, weights_only=True)
    G = Generator(checkpoint.get("squeeze_plan", {}))
    G.load_state_dict(checkpoint["G_ema"])
    return G.eval().requires_grad_(False)
