"""Hosts' pickles read without the host: their generators have bodies of our own, everything else stays inert."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Dict, List, Mapping

import torch

from squeeze_patch.adapters import adapters
from squeeze_patch.adapters.records import Record
from squeeze_patch.adapters.roles import Pickles
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.state_dicts import WHOLE
from squeeze_patch.checkpoints.storages import TOO_LARGE
from squeeze_patch.errors import CheckpointError, UnsupportedModelError, shortened

#: what is said where a file holds more than can be read without running it
CURE = (
    "If you trust where the file came from, say so with --trust, and name the host's checkout with --host DIR (in "
    "Python: trust=True, host=...): that runs code which is stored in it"
)


@dataclass(frozen=True)
class Stored:
    """A generator as a file has it, and the role that knows it."""

    record: Record
    role: Pickles


class StoredFile(Dict[str, Any]):
    """The entries of a pickle, in its order, with a body (torch.nn.Module) for every generator.

    Attributes:
        stored: {entry: what its body was made of}.
    """

    stored: Mapping[str, Stored] = MappingProxyType({})

    def entries(self) -> Any:
        """What the file holds, as its host would store it."""
        made: Dict[int, Record] = {}  # G and G_ema may be one object, and stay so
        entries = dict(self)
        for name, stored in self.stored.items():
            body = self[name]
            if id(body) not in made:
                made[id(body)] = _written(stored, body)
            entries[name] = made[id(body)]
        return entries.get(WHOLE, entries)

    def save(self, stream: IO[bytes], protocol: int) -> None:
        """Write the file as its host would."""
        try:
            dump(self.entries(), stream, protocol)
        except RecursionError as error:
            raise CheckpointError("an object in the file holds itself, or is nested too deep to be written") from error
        except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
            raise CheckpointError(f"something in the file cannot be written: {error}") from error


def _written(stored: Stored, body: torch.nn.Module) -> Record:
    try:
        return stored.role.stored_of(body, stored.record)
    except Exception as error:  # attributes that are missing, or of another kind
        raise CheckpointError(f"the generator is damaged ({type(error).__name__}: {error})") from error


def read_stored(source: Path) -> StoredFile:
    """What a host's pickle holds, read without running anything in it.

    Raises:
        CheckpointError: it is damaged, or names something that is not known to be harmless.
        UnsupportedModelError: a generator in it has layers that only its host knows.
    """
    try:
        with open(source, "rb") as stream:
            data = inert.load(stream)
    except inert.UnknownName as error:
        refusal = next((r for r in (role.refuse(str(error).rpartition(".")[0]) for role in _roles()) if r), "")
        if refusal:
            raise CheckpointError(f"{source}: {refusal}") from error
        raise CheckpointError(
            f"{source}: the pickle names {error}, which is not known to be harmless, so it was not loaded. {CURE}"
        ) from error
    except RecursionError as error:
        raise CheckpointError(f"{source}: the pickle is nested too deep") from error
    except Exception as error:  # whatever a damaged file brings about
        known = {KeyError: "it has bytes that no pickle has", EOFError: "it ends too early", MemoryError: TOO_LARGE}
        what = shortened(known.get(type(error), f"{type(error).__name__}: {error}"))
        raise CheckpointError(f"{source}: this is no readable pickle ({what}); is the download complete?") from error
    entries = data if isinstance(data, dict) and all(isinstance(name, str) for name in data) else {WHOLE: data}
    found, bodies, stored = StoredFile(), {}, {}
    for name, value in entries.items():
        role = next((role for role in _roles() if role.is_generator(value)), None)
        if role is None:
            found[name] = value
            continue
        if id(value) not in bodies:
            bodies[id(value)] = _body(role, value, f"{source}: {name}: " if name else f"{source}: ")
        found[name], stored[name] = bodies[id(value)], Stored(value, role)
    found.stored = stored
    return found


def _body(role: Pickles, record: Record, where: str) -> torch.nn.Module:
    try:
        return role.body_of(record)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{where}{error}") from error
    except Exception as error:  # attributes that are missing, or of another kind
        raise CheckpointError(f"{where}the generator is damaged ({type(error).__name__}: {error})") from error


def _roles() -> List[Pickles]:
    return [adapter.pickles for adapter in adapters() if adapter.pickles is not None]
