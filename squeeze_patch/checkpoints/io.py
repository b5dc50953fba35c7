"""Files: read, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import IO, Any, Iterator

from squeeze_patch.checkpoints.pickles import PICKLE_PROTOCOL, NeverRun, PathLike, read_pickle
from squeeze_patch.checkpoints.state_dicts import Archive, read_archive
from squeeze_patch.checkpoints.stored import HostedFile, StoredFile, read_stored
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.errors import CheckpointError


def read(source: PathLike, *, trust: bool) -> Any:
    """Load a host's pickle, or a file of torch.save (`Archive`), with all tensors on the CPU; a pickle that is not
    trusted without running anything in it (`StoredFile`).

    Raises:
        CheckpointError: the file is missing, not trusted, not a pickle, or needs a module that is not there.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: {'this is a folder' if source.is_dir() else 'there is no such file'}")
    if is_archive(source):
        return read_archive(source, trust=trust)
    if trust:
        with contextlib.suppress(NeverRun):
            return read_pickle(source)
    return read_stored(source)


def write(data: Any, stream: IO[bytes]) -> None:
    """Write what `read` returned, in the file format that it came in."""
    if isinstance(data, Archive):
        data.save(stream)
        return
    if isinstance(data, (StoredFile, HostedFile)):
        data.save(stream, PICKLE_PROTOCOL)
        return
    pickle.dump(data, stream, protocol=PICKLE_PROTOCOL)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at ``path`` only when the block ends without an error.

    It is written beside the target, flushed to the disk and renamed; an interruption leaves the target as it was.
    """
    path = Path(os.path.realpath(path))  # behind a link, the file it points to is replaced
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, _mode_for(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _mode_for(path: Path) -> int:
    """Permissions of the file that is replaced, or those of any new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def check_target(source: Path, target: Path, force: bool) -> None:
    """Raise `CheckpointError` where ``target`` cannot or must not be written."""
    if target.is_dir() or not target.parent.is_dir():
        what = "this is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise CheckpointError(f"{target}: {what}; the target has to be a file in a folder that exists")
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(
            f"{target}: source and target are the same file, which would be lost; name another target"
        )
    if target.exists() and not force:
        raise CheckpointError(f"{target}: the file exists; --force overwrites it")
