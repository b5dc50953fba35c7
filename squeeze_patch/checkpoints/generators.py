"""One generator out of a checkpoint file, to run it."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import torch

from squeeze_patch.adapters import reference_name, roles
from squeeze_patch.checkpoints.convert import PathLike, read
from squeeze_patch.errors import CheckpointError, MeasurementError, UnsupportedModelError
from squeeze_patch.surgery.status import status


def load_generator(source: PathLike, key: Optional[str] = None, *, trust: bool) -> Any:
    """The network stored under ``key`` in a file, or the file's only one where it is no dict.

    ``key`` names an entry, also but for capitals, or what it is: "G" and "G_ema" are "params" and "params_ema" in
    basicsr's files. None = the moving average, or the only generator. Of a state dict, the network is a stand-in that
    makes the same images.

    Returns:
        The network on the CPU, in evaluation mode, without gradients.

    Raises:
        CheckpointError: as for `checkpoint.read`, or no network has that name; the message lists those there are.
    """
    data = read(source, trust=trust)
    found = data
    if isinstance(data, dict):
        networks = {str(name): value for name, value in data.items() if isinstance(value, torch.nn.Module)}
        name = _entry(list(networks), key)
        if name is None:
            what = "generator of a usual name" if key is None else f"network {key}"
            has = f"it has {', '.join(networks)}; choose one with --key" if networks else "it has no networks"
            raise CheckpointError(f"{source}: there is no {what} in this file; {has}")
        found = networks[name]
    if not isinstance(found, torch.nn.Module):
        raise CheckpointError(f"{source}: there is no network in this file; it holds a {type(found).__name__}")
    return found.eval().requires_grad_(False)


def _entry(names: Sequence[str], key: Optional[str]) -> Optional[str]:
    """The one of a file's networks that ``key`` means, None where it means none."""
    known = roles()
    if key is None:
        usual = [name for name in names if name in known] or (list(names) if len(names) == 1 else [])
        return reference_name(usual) if usual else None
    alike = [name for name in names if name.lower() == key.lower()]
    same_role = [name for name in names if key in known and known.get(name) == known[key]]
    return next((name for name in (key, *alike, *same_role) if name in names), None)


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
