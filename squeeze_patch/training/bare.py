"""A checkpoint's weights for a host that unpickles what it is given: tensors in modules of torch's own class.

Hosts resume by the names of parameters and buffers, and ask nothing else of what they load. So that is all they get:
neither a class nor a source text of the file is in what is written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import torch

from squeeze_patch.adapters import reference_name
from squeeze_patch.adapters.records import is_module, table_of
from squeeze_patch.checkpoints.generators import generators
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.checkpoints.stored import StoredFile
from squeeze_patch.errors import CheckpointError
from squeeze_patch.training.common import Say

#: what hosts ask a file for; the first two are generators
_WANTED = ("G", "G_ema", "D")


def bare_copy(source: Path, target: Path, say: Say) -> Path:
    """Write ``target`` with the networks of ``source``, and nothing that could run.

    For a generator that the file lacks there is its other one; a discriminator that it lacks has no tensors, so that
    the host's own stays untrained. A file of state dicts is written as one.

    Raises:
        CheckpointError: the file cannot be read without trust, or holds what is no network.
    """
    data = read(source, trust=False)
    if isinstance(data, StoredFile):
        try:
            data = _bare_entries(data, say)
        except RecursionError as error:
            raise CheckpointError(f"{source}: an object in the file holds itself, or is nested too deep") from error
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error
    save(data, target, force=True)
    return target


def _bare_entries(data: StoredFile, say: Say) -> Dict[str, torch.nn.Module]:
    stored = data.entries()
    entries = stored if isinstance(stored, dict) else dict.fromkeys(data, stored)
    made: Dict[int, Optional[torch.nn.Module]] = {}
    found = {name: _bare_module(value, name, made) for name, value in entries.items() if is_module(value)}
    average = found[reference_name(generators(data))]
    for name in _WANTED:
        if name not in found:
            found[name] = torch.nn.Module() if name == _WANTED[-1] else average
            what = "it starts untrained" if name == _WANTED[-1] else "it starts as the file's other generator"
            say(f"squeeze_patch: there is no {name} in the file; {what}")
    return found


def _bare_module(stored: Any, where: str, made: Dict[int, Optional[torch.nn.Module]]) -> torch.nn.Module:
    """``made``: {id of a stored module: what became of it, None while it is being made}."""
    if id(stored) in made:
        module = made[id(stored)]
        if module is None:
            raise CheckpointError(f"{where} holds itself")
        return module
    if not is_module(stored):
        raise CheckpointError(f"{where} is a {type(stored).__name__}, no network")
    made[id(stored)] = None
    module = torch.nn.Module()
    # into the tables themselves, as a name may be one that add_module refuses
    for name, tensor in _items(stored, "_parameters", torch.Tensor, where):
        module._parameters[name] = torch.nn.Parameter(tensor.detach(), requires_grad=False)
    for name, tensor in _items(stored, "_buffers", torch.Tensor, where):
        module._buffers[name] = tensor.detach()
    for name, child in _items(stored, "_modules", object, where):
        module._modules[name] = _bare_module(child, f"{where}.{name}", made)
    made[id(stored)] = module
    return module


def _items(stored: Any, table: str, kind: type, where: str) -> Any:
    """What a table holds, but for places that are empty."""
    for name, value in table_of(stored, table).items():
        if not isinstance(name, str) or not isinstance(value, (kind, type(None))):
            raise CheckpointError(f"{where}.{name} is a {type(value).__name__}, which no network holds there")
        if value is not None:
            yield name, value
