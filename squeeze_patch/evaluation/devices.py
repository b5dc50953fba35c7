"""Where generators run: devices by name, and what they are called in reports."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from squeeze_patch.errors import MeasurementError


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


def device_name(device: torch.device) -> str:
    """The processor's or the card's name, CPU threads, torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    described = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    if described.is_file():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()
