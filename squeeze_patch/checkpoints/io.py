"""Files: read, and written whole or not at all."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import IO, Any

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.inert import load
from squeeze_patch.checkpoints.inert_values import UnknownName
from squeeze_patch.checkpoints.pickles import PICKLE_PROTOCOL, NeverRun, PathLike, read_pickle
from squeeze_patch.checkpoints.safe_tensors import (
    TensorFile,
    in_order_of,
    is_tensor_file,
    read_tensor_file,
    read_tensors,
)
from squeeze_patch.checkpoints.state_dicts import Archive, HoldsMore, read_archive, read_back
from squeeze_patch.checkpoints.stored import HostedFile, StoredArchive, StoredFile, read_stored, read_stored_archive
from squeeze_patch.checkpoints.tensor_files import is_archive, load_inert
from squeeze_patch.checkpoints.verification import difference
from squeeze_patch.errors import CheckpointError


def read(source: PathLike, *, trust: bool) -> Any:
    """Load a host's pickle, or a file of torch.save or safetensors (`Archive`), with all tensors on the CPU; a pickle
    that is not trusted without running anything in it (`StoredFile`).

    Raises:
        CheckpointError: the file is missing, not trusted, not a pickle, or needs a module that is not there.
    """
    source = Path(source)
    if not source.is_file():
        kind = "this is a folder" if source.is_dir() else "this is no ordinary file"
        raise CheckpointError(f"{source}: {kind if source.exists() else 'there is no such file'}")
    if is_tensor_file(source):
        return read_tensor_file(source)
    if is_archive(source):
        return _archive(source, trust)
    if trust:
        with contextlib.suppress(NeverRun):
            return read_pickle(source)
    return read_stored(source)


def _archive(source: Path, trust: bool) -> Any:
    """A file of torch.save: of one that is not trusted, whole modules as far as they are known."""
    try:
        return read_archive(source, trust=trust)
    except HoldsMore as error:
        try:
            return read_stored_archive(source)
        except UnknownName:
            raise error from None


def write(data: Any, stream: IO[bytes]) -> None:
    """Write what `read` returned, in the file format that it came in."""
    if isinstance(data, Archive):
        data.save(stream)
        return
    if isinstance(data, (StoredFile, HostedFile)):
        data.save(stream, PICKLE_PROTOCOL)
        return
    pickle.dump(data, stream, protocol=PICKLE_PROTOCOL)


def save(data: Any, target: Path, *, force: bool) -> None:
    """Write what `read` returned to ``target``, whole or not at all; it is read back first, and compared.

    Raises:
        CheckpointError: it cannot be written, or what is on the disk is something else; or ``target`` has appeared
            meanwhile, without ``force``.
    """

    def check(part: Path) -> None:
        wrong = difference(as_stored(data), _as_read(part, data))
        if wrong:
            raise CheckpointError(f"{target}: what was written is not what is read back ({wrong}); is the disk sound?")

    with atomic_write(target, force=force, check=check) as stream:
        write(data, stream)


def as_stored(data: Any) -> Any:
    """What the file of ``data`` holds: state dicts and records in the places of bodies."""
    return data.entries() if isinstance(data, (Archive, StoredFile, HostedFile)) else data


def _as_read(part: Path, data: Any) -> Any:
    """What the file that was made of ``data`` holds, by the reader that it came through."""
    if isinstance(data, TensorFile):
        return in_order_of(read_tensors(part), data)
    if isinstance(data, Archive):
        return read_back(part, data)
    if isinstance(data, StoredArchive):
        return load_inert(part)
    if isinstance(data, StoredFile):
        with open(part, "rb") as stream:
            return load(stream)
    return read_pickle(part)  # of a host's own code, or trusted by the user
