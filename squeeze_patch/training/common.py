"""What hosts' training scripts have in common: what a run begins with, and a generator that has just been built."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, TypeVar

import torch

from squeeze_patch.errors import SqueezeError
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.apply import apply_request

#: names the host's script to spawned processes
SCRIPT_VARIABLE = "SQUEEZE_PATCH_SCRIPT"

Module = TypeVar("Module", bound=torch.nn.Module)
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunStart:
    """What a run begins with: how its generators are squeezed, and the checkpoint to load, None for scratch."""

    request: Request
    checkpoint: Optional[str]


#: checkpoint that the user's own options name, or None -> what the run begins with
PrepareStart = Callable[[Optional[str]], RunStart]


def squeeze_new(G: Module, request: Dict[str, Any], record: bool = False) -> Module:
    """Squeeze a generator, or a wrapper as for `squeeze_patch.apply`, at fresh random weights, for good.

    Args:
        G: before optimisers see it; changed in place.
        request: as of `Request.to_dict`.
        record: as for `apply_request`.
    """
    apply_request(G, Request.from_dict(request), "random", keep_original=False, record=record)
    return G


def import_script() -> Any:
    """The host's script as a module, by the environment, which spawned processes inherit."""
    script = Path(os.environ[SCRIPT_VARIABLE])
    if str(script.parent) not in sys.path:
        sys.path.insert(0, str(script.parent))
    try:
        return importlib.import_module(script.stem)
    except ModuleNotFoundError as error:
        raise SqueezeError(f"{script.name} needs the module {error.name}: install what the host asks for") from error
