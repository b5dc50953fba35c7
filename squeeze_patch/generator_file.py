"""One generator out of a checkpoint file, to run it."""

from __future__ import annotations

from typing import Any, Optional

import torch

from squeeze_patch.checkpoint import REFERENCES, PathLike, read
from squeeze_patch.errors import CheckpointError, MeasurementError, UnsupportedModelError
from squeeze_patch.state import status


def load_generator(source: PathLike, key: Optional[str] = None, *, trust: bool) -> Any:
    """The network stored under ``key`` in a file, or the file's only one where it is no dict; by default the averaged
    generator, under whichever of `checkpoint.REFERENCES` the file has.

    Capitals count only where another name is spelt like ``key`` but for them: rosinality's files have g and g_ema. Of a
    state dict, the network is a stand-in that makes the same images.

    Returns:
        The network on the CPU, in evaluation mode, without gradients.

    Raises:
        CheckpointError: as for `checkpoint.read`, or no network has that name; the message lists those there are.
    """
    data = read(source, trust=trust)
    found = data
    if isinstance(data, dict):
        key = key or next((name for name in REFERENCES if name in data), REFERENCES[0])
        wanted = key.lower()
        alike = (name for name in data if str(name).lower() == wanted)
        found = data.get(key if key in data else next(alike, key))
    if not isinstance(found, torch.nn.Module):
        entries = data.items() if isinstance(data, dict) else []
        names = [str(name) for name, value in entries if isinstance(value, torch.nn.Module)]
        has = f"it has {', '.join(names)}; choose one with --key" if names else "it has no networks"
        raise CheckpointError(f"{source}: there is no network {key} in this file; {has}")
    return found.eval().requires_grad_(False)


def describe(G: torch.nn.Module) -> str:
    """One line: dense or squeezed, and parameters; the class where no adapter knows the generator."""
    try:
        return str(status(G))
    except UnsupportedModelError:
        return f"{type(G).__name__}: {sum(parameter.numel() for parameter in G.parameters()):,} parameters"


def device_named(name: str) -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1"); "auto" = CUDA where there is any, else the CPU.

    Raises:
        MeasurementError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty([0], device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise MeasurementError(f"device {name} cannot be used: {reason}. --device cpu always can") from error
    return device
