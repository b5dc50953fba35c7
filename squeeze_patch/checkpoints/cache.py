"""Downloaded files on the disk: whole ones, and what came of those that were broken off.

Of an address the cache holds KEY_NAME, whole, with KEY_NAME.json, which says where it came from; and KEY_NAME.part with
KEY_NAME.part.json while it is on its way. SHA256_NAME is a file that was asked for by its sum. A file without such a
record is not the cache's: it is neither used nor removed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
import stat
import warnings
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Iterator, List, Optional

import filelock
import platformdirs

from squeeze_patch.checkpoints.addresses import Address
from squeeze_patch.checkpoints.atomic import replace as replace_file
from squeeze_patch.checkpoints.checksums import sha256_of
from squeeze_patch.checkpoints.transport import Validators
from squeeze_patch.errors import CheckpointError, DownloadWarning

_MARK = "squeeze_patch_cache"
_LOCKS = "locks"
#: seconds between two looks whether another process is done
_POLL = 0.1
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def cache_dir() -> Path:
    """``$SQUEEZE_CACHE``, or squeeze_patch in the user's cache folder.

    Raises:
        CheckpointError: there is neither.
    """
    named = os.environ.get("SQUEEZE_CACHE") or platformdirs.user_cache_dir("squeeze_patch", appauthor=False)
    folder = os.path.expanduser(named)
    if folder.startswith("~"):
        raise CheckpointError("this user has no home folder to keep downloads in; SQUEEZE_CACHE names a folder")
    return Path(os.path.abspath(folder))


@dataclass(frozen=True)
class CacheRecord:
    """What is known of a file in the cache.

    Attributes:
        address: without what gives access.
        etag, last_modified: of the server's answer, "" where it had none; of a part, what it can be continued by.
        size: bytes of the whole file; 0 = unknown.
        sha256, date: of the whole file, and when it was there (ISO 8601, UTC).
    """

    address: str
    etag: str = ""
    last_modified: str = ""
    size: int = 0
    sha256: str = ""
    date: str = ""

    @property
    def validators(self) -> Validators:
        return Validators(self.etag, self.last_modified)


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache, whole or not."""

    path: Path
    record: CacheRecord
    whole: bool = True

    @property
    def name(self) -> str:
        """The file's own name, without the key."""
        name = self.path.name.partition("_")[2]
        return name if self.whole else name[: -len(".part")]

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    def remove(self) -> None:
        """Without its record, no half of it counts as a file."""
        for path in (_record_path(self.path), _unwritten(self.path), _unlinked(self.path), self.path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


class CacheSlot:
    """The place of one address in a folder."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.folder, self.shown = folder, address.shown
        self.name = address.name
        self.path = folder / f"{address.key}_{address.name}"
        self.part = folder / f"{self.path.name}.part"
        self._key = address.key

    @contextlib.contextmanager
    def locked(self, longest: float) -> Iterator[None]:
        """While this process alone works on the address; others wait, for at most ``longest`` seconds.

        Raises:
            OSError: the folder cannot be written to.
        """
        lock = _lock_file(self.folder, self._key)
        try:
            lock.acquire(timeout=0)
        except NotImplementedError:
            raise OSError(0, "its file system has no locks") from None
        except filelock.Timeout:
            warnings.warn(
                DownloadWarning(f"{self.shown} is being downloaded by another process; waiting"), stacklevel=2
            )
            try:
                lock.acquire(timeout=longest, poll_interval=_POLL)
            except filelock.Timeout:
                raise CheckpointError(
                    f"{self.shown}: another process has been downloading it for {longest / 3600:.1f} hours; end it"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def whole(self) -> Optional[CachedFile]:
        return _cached(self.path, whole=True)

    def unfinished(self) -> Optional[CachedFile]:
        """What an earlier try left that can be continued."""
        found = _cached(self.part, whole=False)
        if found is None or not _is_own(self.part):
            return None
        return found if (found.record.etag or found.record.last_modified) and found.bytes else None

    def begin(self, record: CacheRecord) -> None:
        """Start the part anew."""
        self.discard()
        _write_record(self.part, record, whole=False)
        os.close(_create(self.part))

    def open_part(self) -> BinaryIO:
        """The part, for reading and writing.

        Raises:
            OSError: it is none of ours.
        """
        stream = open(os.open(self.part, os.O_RDWR | _NO_LINK), "r+b")  # noqa: SIM115 - the caller closes it
        if not _is_own(self.part):
            stream.close()
            raise OSError(0, f"{self.part.name} is a link")
        return stream

    def discard(self) -> None:
        CachedFile(self.part, CacheRecord(self.shown), whole=False).remove()

    def finish(self, record: CacheRecord) -> Path:
        """The part becomes the file, in the place of an older one.

        The record goes first and comes last: a file that a crash left without one is downloaded anew.
        """
        with contextlib.suppress(FileNotFoundError):
            _record_path(self.path).unlink()
        replace_file(self.part, self.path)
        _write_record(self.path, record, whole=True)
        self.discard()
        return self.path

    def held(self, sha256: str) -> Optional[CachedFile]:
        """A file with this sum, under a name that no other file gets; None where there is none, or a damaged one."""
        found = _cached(self.folder / f"{sha256}_{self.name}", whole=True)
        return found if found is not None and sha256_of(found.path) == sha256 else None

    def hold(self, file: CachedFile, sha256: str) -> Optional[Path]:
        """Give the address's file, which the next download replaces, a second name by its sum; None where it has
        another sum. That takes room where the file system has no links only.

        Raises:
            OSError: the folder cannot be written to.
        """
        path = self.folder / f"{sha256}_{self.name}"
        with _lock_file(self.folder, sha256):
            new = _unlinked(path)
            new.unlink(missing_ok=True)
            try:
                _link(file.path, new)
                if sha256_of(new) != sha256:
                    return None
                replace_file(new, path)
            finally:
                new.unlink(missing_ok=True)  # two names of one file are not renamed into each other
            _write_record(path, replace(file.record, sha256=sha256, size=path.stat().st_size), whole=True)
        return path


def cached_files(folder: Path) -> List[CachedFile]:
    """Everything in the cache, by name."""
    found = []
    for path in folder.glob("*.json") if folder.is_dir() else ():
        file = path.with_name(path.name[: -len(".json")])
        one = _cached(file, whole=not file.name.endswith(".part")) or _cached(file, whole=True)
        if one is not None and re.match("([0-9a-f]{16}|[0-9a-f]{64})_.", file.name):
            found.append(one)
    return sorted(found, key=lambda one: (one.name, one.path.name))


def room_of(files: List[CachedFile]) -> int:
    """Bytes of files, one with two names counted once."""
    found = (one.path.stat() for one in files)
    return sum({(one.st_dev, one.st_ino): one.st_size for one in found}.values())


def matching(files: List[CachedFile], pattern: str) -> List[CachedFile]:
    """Those whose name, in the cache or before, or whose address fits a pattern with ``*``, ``?`` and ``[...]``."""
    return [
        one
        for one in files
        if any(fnmatch.fnmatchcase(text, pattern) for text in (one.name, one.path.name, one.record.address))
    ]


def remove_unused(one: CachedFile) -> bool:
    """Remove a file unless a process is downloading it; whether it was removed."""
    try:
        lock = _lock_file(one.path.parent, one.path.name.partition("_")[0])
        with lock.acquire(timeout=0):
            one.remove()
    except filelock.Timeout:
        return False
    return True


def _lock_file(folder: Path, key: str) -> filelock.BaseFileLock:
    path = folder / _LOCKS / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():  # the file that it leads to would be emptied
        path.unlink()
    return filelock.FileLock(str(path))


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _unwritten(path: Path) -> Path:
    """The record while it is being written."""
    return path.with_name(f"{path.name}.json.new")


def _unlinked(path: Path) -> Path:
    """The file by its sum while it is being checked."""
    return path.with_name(f"{path.name}.new")


def _write_record(path: Path, record: CacheRecord, whole: bool) -> None:
    text = json.dumps({_MARK: "whole" if whole else "part", **asdict(record)}, indent=2)
    with contextlib.suppress(FileNotFoundError):
        _unwritten(path).unlink()
    with open(_create(_unwritten(path)), "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    replace_file(_unwritten(path), _record_path(path))


def _create(path: Path) -> int:
    """A file of our own, open for writing. In a folder that others write to, a link may have been put there that would
    lead into somebody's file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has no links."""
    try:
        os.link(source.resolve(), target)
    except (OSError, NotImplementedError):
        with open(source, "rb") as old, open(_create(target), "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)


def _is_own(path: Path) -> bool:
    """Whether it is a file under this name alone, neither a link to one nor another name of one."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _cached(path: Path, whole: bool) -> Optional[CachedFile]:
    """The file with its record; None where either is missing or they do not fit."""
    try:
        if not (_record_path(path).is_file() and path.is_file()):
            return None  # nothing is there, or a pipe that would be waited for
        data: Any = json.loads(_record_path(path).read_text(encoding="utf-8"))
        size = path.stat().st_size
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.pop(_MARK, None) != ("whole" if whole else "part"):
        return None
    types = {field.name: int if field.name == "size" else str for field in fields(CacheRecord)}
    if set(data) != set(types) or not all(isinstance(data[name], types[name]) for name in types):
        return None
    if whole and data["size"] != size:
        return None
    return CachedFile(path, CacheRecord(**data), whole)
