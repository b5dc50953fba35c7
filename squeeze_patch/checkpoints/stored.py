"""Hosts' pickles read without the host: their generators have bodies of our own, everything else stays inert."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import IO, Any, Callable, Dict, Mapping, Optional, Union

import torch

from squeeze_patch.adapters import pickle_families
from squeeze_patch.adapters.records import Record
from squeeze_patch.adapters.roles import Foreign, Pickles
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.bodies import WHOLE
from squeeze_patch.checkpoints.inert_values import UnknownName
from squeeze_patch.checkpoints.inert_writing import InertPickler, dump
from squeeze_patch.checkpoints.pickles import PathLike, host_is_named, warn_of_more
from squeeze_patch.checkpoints.scanning_files import CURES, PICKLE, UNKNOWN_FORM, form_of
from squeeze_patch.checkpoints.state_dicts import check_names
from squeeze_patch.checkpoints.storages import TOO_LARGE
from squeeze_patch.checkpoints.tensor_files import load_inert, save_tensors, unreadable
from squeeze_patch.errors import TRUST_CURE, CheckpointError, UnsupportedModelError, shortened

#: what is said where a file holds more than can be read without running it
CURE = (
    "squeeze-patch scan says what loading it would run. If you trust where it came from, "
    f"{TRUST_CURE}: that runs code which is stored in it"
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
        foreign: what the file is where it is of a form that is not written.
    """

    stored: Mapping[str, Stored] = MappingProxyType({})
    foreign: Optional[Foreign] = None

    def check_writable(self, source: PathLike) -> None:
        """Raise `CheckpointError` where the file cannot be written in the form that it was read from."""
        if self.foreign is not None:
            raise CheckpointError(f"{source}: {self.foreign.words}")

    def entries(self) -> Any:
        """What the file holds, as its host would store it."""
        self.check_writable("the file")
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
            self.dump(self.entries(), stream, protocol)
        except RecursionError as error:
            raise CheckpointError("an object in the file holds itself, or is nested too deep to be written") from error
        except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
            raise CheckpointError(f"something in the file cannot be written: {error}") from error

    def dump(self, entries: Any, stream: IO[bytes], protocol: int) -> None:
        """Write the entries, of which some are inert."""
        dump(entries, stream, protocol)


class StoredArchive(StoredFile):
    """The same of a file of torch.save that holds whole modules."""

    def dump(self, entries: Any, stream: IO[bytes], protocol: int) -> None:
        module: Any = SimpleNamespace(__name__="inert", Pickler=InertPickler)
        save_tensors(entries, stream, pickle_module=module, pickle_protocol=protocol)


class HostedFile(Dict[str, Any]):
    """The entries of a `Foreign` file with networks that the named host's own code has built."""

    def entries(self) -> Dict[str, Any]:
        """What the file holds, as its host would store it."""
        return dict(self)

    def save(self, stream: IO[bytes], protocol: int) -> None:
        """Write the file as its host would."""
        pickle.dump(self.entries(), stream, protocol)


def _written(stored: Stored, body: torch.nn.Module) -> Record:
    try:
        return stored.role.stored_of(body, stored.record)
    except Exception as error:  # attributes that are missing, or of another kind
        raise CheckpointError(f"the generator is damaged ({type(error).__name__}: {error})") from error


def read_stored(source: Path) -> Union[StoredFile, HostedFile]:
    """What a host's pickle holds, read without running anything in it.

    Raises:
        CheckpointError: it is damaged, or names something that is not known to be harmless.
        UnsupportedModelError: a generator in it has layers that only its host knows.
    """
    try:
        with open(source, "rb") as stream:
            data = inert.load(stream)
            warn_of_more(source, stream)
    except UnknownName as error:
        modules = (*error.named, str(error).rpartition(".")[0])
        refusal = next(filter(None, (role.refuse(module) for module in modules for role in pickle_families())), "")
        cure = f"There is no way to load it: {refusal}" if refusal else CURE
        raise CheckpointError(
            f"{source}: the pickle names {error}, which is not known to be harmless, so it was not loaded. {cure}"
        ) from error
    except RecursionError as error:
        raise CheckpointError(f"{source}: the pickle is nested too deep") from error
    except Exception as error:  # whatever a damaged file brings about
        known = {KeyError: "it has bytes that no pickle has", EOFError: "it ends too early", MemoryError: TOO_LARGE}
        what = shortened(known.get(type(error), f"{type(error).__name__}: {error}"))
        refuse_other_forms(source, error)
        raise CheckpointError(f"{source}: this is no readable pickle ({what}); is the download complete?") from error
    return _with_bodies(source, data, StoredFile())


def refuse_other_forms(source: Path, error: Optional[Exception] = None) -> None:
    """Raise `CheckpointError`, with the cure where there is one, of a file that is known to be something else."""
    other = _other_form(source)
    if other:
        cure = f"; {CURES[other]}" if other in CURES else ""
        raise CheckpointError(f"{source}: this is {other}, and no checkpoint{cure}") from error


def _other_form(source: Path) -> str:
    """What a file is that is no pickle, by its beginning: a text, a picture, an archive; "" where it may be one."""
    with open(source, "rb") as stream:
        head = stream.read(1 << 16)
    if head.startswith(b"\x80"):  # as pickles do
        return ""
    form = form_of(memoryview(head))
    return "" if form in (PICKLE, UNKNOWN_FORM) else form


def read_stored_archive(source: Path) -> StoredArchive:
    """The same of a file of torch.save that holds whole modules.

    Raises:
        UnknownName: it names something that is not known to be harmless.
        UnsupportedModelError, CheckpointError: as for `read_stored`.
    """
    try:
        data = load_inert(source)
    except UnknownName:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise unreadable(source, error) from error
    return _with_bodies(source, data, StoredArchive())  # type: ignore[return-value]


def _with_bodies(source: Path, data: Any, found: StoredFile) -> Union[StoredFile, HostedFile]:
    """``found`` filled with the entries of a file, and with a body for every generator among them."""
    foreign = next(filter(None, (_judged(role.foreign, data, f"{source}: ") for role in pickle_families())), None)
    if foreign is not None:
        return _foreign(source, foreign)
    named = isinstance(data, dict) and all(isinstance(name, str) for name in data)
    entries = data if named else {WHOLE: data}
    if named:
        check_names(data, f"{source}: ")
    bodies: Dict[int, torch.nn.Module] = {}
    stored: Dict[str, Stored] = {}
    for name, value in entries.items():
        role = next((role for role in pickle_families() if role.is_generator(value)), None)
        if role is None:
            found[name] = value
            continue
        if id(value) not in bodies:
            where = f"{source}: {name}: " if name else f"{source}: "
            bodies[id(value)] = _judged(role.body_of, value, where, "the generator is damaged")
        found[name], stored[name] = bodies[id(value)], Stored(value, role)
    found.stored = stored
    return found


def _foreign(source: Path, foreign: Foreign) -> Union[StoredFile, HostedFile]:
    """The generators as bodies of our own; where a host was named, all networks as its."""
    if host_is_named():
        words = "the host's own code stopped while it built the networks"
        return HostedFile(_judged(lambda file: file.hosted(), foreign, f"{source}: ", words))
    found = StoredFile(foreign.entries)
    found.foreign = foreign
    return found


def _judged(make: Callable[[Any], Any], value: Any, where: str, damage: str = "the file is damaged") -> Any:
    """``make(value)``, whose errors say where."""
    try:
        return make(value)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{where}{error}") from error
    except Exception as error:  # attributes that are missing, or of another kind
        raise CheckpointError(f"{where}{damage} ({type(error).__name__}: {error})") from error
