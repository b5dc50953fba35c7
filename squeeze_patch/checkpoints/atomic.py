"""Files that appear whole or not at all, and what a run that was killed leaves behind."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import secrets
import stat
import sys
import time
from pathlib import Path
from typing import IO, Any, Callable, Iterator, List, Optional, Tuple

from squeeze_patch.errors import CheckpointError

#: what our unfinished files are called: hidden, beside the target
MARK = ".squeeze-"
SUFFIX = ".part"
#: characters of the target's name in it: of a long name it shall not be too long
LONGEST = 50
#: what the system says of a file, in words
_WORDS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.EROFS: "its file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EFBIG: "the file would be larger than may be written there",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "a folder has taken its place meanwhile",
    errno.ENOENT: "its folder is there no longer",
    errno.ENOTDIR: "its folder is there no longer",
    errno.EIO: "the disk reports an error",
}
POSIX = os.name == "posix"
#: seconds between tries to replace a file that another program has open: a virus scanner does for a moment
WAITS = (0.1, 0.2, 0.4, 0.8)


@contextlib.contextmanager
def atomic_write(
    path: Path, *, force: bool = True, check: Optional[Callable[[Path], None]] = None
) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at ``path`` only when the block ends without an error.

    It is written beside the target, flushed to the disk and renamed; an interruption leaves the target as it was.
    What earlier runs that were killed have left beside the target is removed.

    Args:
        path: the target; behind a link, the file that it points to.
        force: replace a file that is there when the new one is finished; else `CheckpointError`, and it stays.
        check: called with the finished file, before it is renamed; raises where something is wrong with it.

    Raises:
        CheckpointError: the target is no ordinary file, or the system does not let it be written.
    """
    path = Path(os.path.realpath(path))
    refuse_special(path)
    with system_errors(path):  # around the closing, too, which writes what is left
        sweep(path)
        part, handle = _part(path)
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(handle)
                if check is not None:
                    check(part)
                if POSIX:  # still locked, so that no other run takes it for left behind
                    _keep_owner(part, path)
                    with contextlib.suppress(OSError):  # our own file: its file system knows no permissions
                        os.chmod(part, _mode_for(path))
                    _keep_attributes(part, path)
                    _rename(part, path, force)
            if not POSIX:  # an open file cannot be renamed there
                _rename(part, path, force)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise


def sweep(path: Path) -> None:
    """Remove the unfinished files for ``path`` that no run is writing any more."""
    ours = re.compile(rf"\.{re.escape(path.name[:LONGEST])}{re.escape(MARK)}[0-9a-f]{{8}}{re.escape(SUFFIX)}")
    names: List[str] = []
    with contextlib.suppress(PermissionError):  # a folder that may be written to, and not be looked into
        names = os.listdir(path.parent)
    for name in filter(ours.fullmatch, names):
        with contextlib.suppress(OSError):  # another run has renamed it meanwhile, or holds it
            if stat.S_ISREG(os.lstat(path.parent / name).st_mode):
                _remove_unlocked(path.parent / name)


def refuse_special(path: Path) -> None:
    """Raise `CheckpointError` where something else than an ordinary file is at ``path``: it must not be replaced."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    devices = ((stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    kind = next((words for is_kind, words in (*kinds, *devices) if is_kind(mode)), None)
    if kind is not None:
        raise CheckpointError(f"{path}: this is {kind}; what is written has to be an ordinary file")


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Say in words what the system does not let be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WORDS:
            raise
        raise CheckpointError(f"{path} could not be written: {_WORDS[error.errno]}") from error


def _remove_unlocked(part: Path) -> None:
    if not POSIX:  # an open file cannot be removed there
        os.unlink(part)
        return
    with open(part, "rb") as stream:
        if _lock(stream.fileno()):
            os.unlink(part)


def _part(path: Path) -> Tuple[Path, int]:
    """A new file beside ``path``, open and locked."""
    while True:
        part = path.with_name(f".{path.name[:LONGEST]}{MARK}{secrets.token_hex(4)}{SUFFIX}")
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600)
        if _lock(handle) is not False and part.exists():  # else another run has swept it between the two lines
            return part, handle
        os.close(handle)


def _lock(handle: int) -> Optional[bool]:
    """Lock an open file for this process: whether it is; None where there are no locks, so that nothing is swept."""
    if not POSIX:
        return None
    fcntl: Any = importlib.import_module("fcntl")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _rename(part: Path, path: Path, force: bool) -> None:
    """The finished file to its place, and the folder's entry to the disk."""
    if force:
        replace(part, path)
    else:
        _rename_to_new(part, path)
    if POSIX:
        with contextlib.suppress(OSError):  # some file systems cannot flush folders, some folders cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def replace(part: Path, path: Path) -> None:
    """``os.replace``, which Windows refuses while a program has one of the two files open.

    Raises:
        CheckpointError: it does so for longer than a moment; ``path`` is as it was.
    """
    for seconds in WAITS:
        try:
            os.replace(part, path)
            return
        except PermissionError:
            if POSIX:  # there it is a matter of permissions, which waiting does not change
                raise
        time.sleep(seconds)
    try:
        os.replace(part, path)
    except PermissionError as error:
        raise CheckpointError(
            f"{path}: this file cannot be replaced and is as it was: a program has it open, or it is write-protected. "
            "Close that program (a viewer, a training run), take the protection off, or name another file"
        ) from error


def _rename_to_new(part: Path, path: Path) -> None:
    """The same where nothing may be replaced. A link is made or not, in one step; where there are no links, an empty
    file of that name is."""
    try:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            replace(part, path)
        else:
            os.unlink(part)
    except FileExistsError as error:
        raise CheckpointError(
            f"{path}: a file of this name has appeared meanwhile, and stays as it is; --force overwrites it"
        ) from error


def _keep_owner(part: Path, path: Path) -> None:
    """Give the new file the owner and the group of the one that it replaces, as far as this user may: its permissions
    are meant for them."""
    if not path.exists():
        return
    new, old = os.stat(part), os.stat(path)
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        if owner not in (-1, new.st_uid) or group not in (-1, new.st_gid):
            with contextlib.suppress(OSError):
                os.chown(part, owner, group)


def _keep_attributes(part: Path, path: Path) -> None:
    """Give the new file the access list of the one that it replaces, and the attributes that users have put on that."""
    if sys.platform != "linux" or not path.exists():
        return
    names: List[str] = []
    with contextlib.suppress(OSError):  # a file system without them
        names = os.listxattr(path)
    for name in names:
        if name.startswith("user.") or name == "system.posix_acl_access":
            with contextlib.suppress(OSError):  # one that cannot be had costs no other
                os.setxattr(part, name, os.getxattr(path, name))


def _mode_for(path: Path) -> int:
    """Permissions of the file that is replaced, or those of any new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
