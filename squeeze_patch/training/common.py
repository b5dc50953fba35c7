"""What hosts' training scripts have in common: what a run begins with, and a generator that has just been built."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

import torch

from squeeze_patch.errors import PlanError, ScriptError, SqueezeError, StateError, UnsupportedModelError, module_cure
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.apply import apply_request

#: names the host's script to spawned processes
SCRIPT_VARIABLE = "SQUEEZE_PATCH_SCRIPT"

#: what torch and hosts say where there is no GPU, no driver or no compiler for it
_NO_CUDA = re.compile(r"CUDA_HOME|not compiled with CUDA|No CUDA GPUs|(NVIDIA|CUDA) driver|Nvidia GPU", re.IGNORECASE)

Module = TypeVar("Module", bound=torch.nn.Module)
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunStart:
    """What a run begins with.

    Attributes:
        request: how its generators are squeezed, None = they stay dense.
        checkpoint: to load, None for scratch.
        source: the file that the plan is of, in the user's words, "" = none.
    """

    request: Optional[Request]
    checkpoint: Optional[str]
    source: str = ""


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


def try_new(G: torch.nn.Module, start: RunStart) -> None:
    """Squeeze a generator as one of these sizes is going to be squeezed, before the script makes folders, or deletes an
    earlier run's; torch's random numbers stay as they are.

    Raises:
        SqueezeError: it cannot be squeezed so.
    """
    if start.request is None:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            apply_request(G, start.request, "random", keep_original=False, verify=False)
    except PlanError as error:
        if not start.source:
            raise
        raise PlanError(
            f"{start.source} does not go with what the script builds: {error}. It takes files of its own "
            "family that were trained with the same size and channels"
        ) from error


@contextlib.contextmanager
def first_steps(*folders: Any) -> Iterator[None]:
    """For the length of a block in which a run begins, in folders that the script has made already: errors of building
    and filling generators, which come before the first training step, say what is left."""
    try:
        yield
    except (PlanError, StateError, UnsupportedModelError) as error:
        left = " and ".join(str(folder) for folder in folders if folder and Path(folder).is_dir())
        if not left:
            raise
        end = "" if str(error).endswith((".", "?")) else "."
        raise type(error)(f"{error}{end} Nothing was trained; {left}, which the script made, stays") from error


def import_script() -> Any:
    """The host's script as a module, by the environment, which spawned processes inherit."""
    script = Path(os.environ[SCRIPT_VARIABLE])
    if sys.path[:1] != [str(script.parent)]:  # as where Python runs it: ahead of others that have a train.py
        sys.path.insert(0, str(script.parent))
    with host_code(script.name):
        return _imported(script) if script.suffix == ".py" else importlib.import_module(script.stem)


def _imported(script: Path) -> Any:
    """The module in this very file, whatever else has its name."""
    loaded = sys.modules.get(script.stem)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == script:
            return loaded
        raise SqueezeError(
            f"{script.name}: a module called {script.stem} is in use here already "
            f"({getattr(loaded, '__file__', None) or 'built in'}); give the script another name"
        )
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[script.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[script.stem]
        raise
    return module


@contextlib.contextmanager
def host_code(script: str) -> Iterator[None]:
    """For the length of a block in which the host's ``script`` runs: its errors say that they are its own.

    Raises:
        ScriptError: the script stopped, with its own words behind ours.
        SqueezeError: a module is missing; or one of ours, raised in there or in a process that the script has spawned.
    """
    try:
        yield
    except (SqueezeError, BrokenPipeError):
        raise
    except ModuleNotFoundError as error:
        cure = module_cure(error.name) or "install what the host asks for"
        raise SqueezeError(f"{script} needs the module {error.name}: {cure}") from error
    except Exception as error:
        ours = _of_ours(error)
        raise ScriptError(_told(script, error)) if ours is None else SqueezeError(ours) from error


def _of_ours(error: Exception) -> Optional[str]:
    """The words of an error of ours in a spawned process, whose traceback as text is all that comes of it."""
    text = str(error) if type(error).__name__ == "ProcessRaisedException" else ""
    found = re.findall(rf"^{re.escape(SqueezeError.__module__)}\.\w+: (.*)", text, flags=re.MULTILINE)
    return found[-1] if found else None


def _told(script: str, error: Exception) -> str:
    """Ours first: the host's words may be long."""
    text, name = str(error).strip(), f"{type(error).__name__}: "
    if type(error).__name__ == "ProcessRaisedException":  # a whole traceback, which ends with name and words
        text, name = text.splitlines()[-1], ""
    why = (
        ": dense or squeezed, it wants CUDA, which is missing here, in part or as a whole; convert, info, plan, "
        "compare, report and recover do without"
        if _NO_CUDA.search(text)
        else ""
    )
    return f"{script}, the host's script, stopped{why}. Its own words: {name}{text or 'none'}"
