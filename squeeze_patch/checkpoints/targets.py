"""Whether a file can be written, before the work whose result it is to hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from squeeze_patch.checkpoints.atomic import refuse_special, system_errors
from squeeze_patch.errors import CheckpointError


def check_target(source: Path, target: Path, force: bool) -> None:
    """Raise `CheckpointError` where ``target`` cannot or must not be written."""
    refuse_dash(str(target))
    with system_errors(target):  # of a name that is too long, any look at it is one
        _check_target(source, target, force)


def _check_target(source: Path, target: Path, force: bool) -> None:
    if target.is_dir() or not target.parent.is_dir():
        what = "this is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise CheckpointError(f"{target}: {what}; the target has to be a file in a folder that exists")
    refuse_special(target)
    if Path(os.path.realpath(target)).is_symlink():
        raise CheckpointError(f"{target}: this is a link that leads to itself; remove it, or name another target")
    if not Path(os.path.realpath(target)).parent.is_dir():
        raise CheckpointError(f"{target}: this is a link into a folder that does not exist; name another target")
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(
            f"{target}: source and target are the same file, which would be lost; name another target"
        )
    if target.exists() and not force:
        raise CheckpointError(f"{target}: the file exists; --force overwrites it")
    check_writable(target)


def refuse_dash(target: str) -> None:
    """Raise `CheckpointError` for the name that other programs take for stdout."""
    if target == "-":
        raise CheckpointError("-: this is written to a file, not to stdout; name one (./- is the file of that name)")


def refuse_relative(like: Path, target: Path) -> None:
    """Raise `CheckpointError` where ``target`` is the relative itself."""
    if target.exists() and like.exists() and target.samefile(like):
        raise CheckpointError(f"{target}: this is the relative (--like), which would be lost; name another target")


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are one file once it is written: also by another way to its folder, and where the folder takes
    names in upper and lower case for the same, as those of macOS and Windows do."""
    one, other = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    if one == other or (one.exists() and other.exists() and one.samefile(other)):
        return True
    folders = one.parent, other.parent
    alike = one.name.casefold() == other.name.casefold()
    return alike and all(map(os.path.isdir, folders)) and folders[0].samefile(folders[1]) and _ignores_case(folders[0])


def _ignores_case(folder: Path) -> bool:
    """Asked with a file that is there for a moment: it is a matter of the folder, not of the system."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".squeeze-") as file:
        return os.path.exists(folder / Path(file.name).name.swapcase())
    return False


def check_writable(target: Path) -> None:
    """Raise `CheckpointError` where nothing can be written into the folder of ``target``, or it is write-protected."""
    target = Path(os.path.realpath(target))
    if target.exists() and not target.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        cure = "chmod u+w" if os.name == "posix" else "attrib -r"
        raise CheckpointError(f"{target}: the file is write-protected; take that off ({cure}), or name another")
    with system_errors(target), tempfile.TemporaryFile(dir=target.parent):
        pass


def check_space(source: Path, target: Path) -> None:
    """Raise `CheckpointError` where the disk has no room for a file as large as ``source``."""
    needed, free = source.stat().st_size, shutil.disk_usage(os.path.dirname(os.path.realpath(target))).free
    if needed > free:
        raise CheckpointError(
            f"{target}: there is no room for it: it needs up to {needed / 1e6:,.1f} MB, and its disk has "
            f"{free / 1e6:,.1f} MB left"
        )
