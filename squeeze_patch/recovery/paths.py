"""The files of a recovery: where they are, and that none of them replaces another or somebody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

from squeeze_patch.checkpoints.targets import check_target, same_place
from squeeze_patch.errors import CheckpointError


def state_path(target: Path) -> Path:
    """The state file of a recovery that writes ``target``."""
    return target.with_name(f"{target.name}.state")


def log_path(target: Path) -> Path:
    return target.with_suffix(".jsonl")


def check_paths(dense: Path, squeezed: Optional[Path], target: Path, log: Path, force: bool) -> None:
    """Raise `CheckpointError` where ``target`` or ``log`` cannot, or must not, be written."""
    state = state_path(target)
    sources = [dense, *([squeezed] if squeezed else [])]
    for path in sources:
        check_target(path, target, force=True)  # no source may be overwritten, whatever was said
    check_target(dense, state, force=True)  # before the work, whose first evaluation writes it
    check_target(dense, target, force or state.exists())  # a state is of an earlier run, which asked already
    for path in sources:
        check_target(path, log, force=True)
    if same_place(log, target) or same_place(log, state):
        raise CheckpointError(f"{log}: this is another file of the same recovery; name another one with --log")
    if log.exists() and not force and not _is_log(log):
        raise CheckpointError(
            f"{log}: the file exists and is no log of a recovery; --log names another, --force overwrites"
        )


def _is_log(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as stream:
            first = json.loads(stream.readline() or "{}")
    except ValueError:  # neither text nor JSON
        return False
    return isinstance(first, dict) and {"step", "psnr"} <= set(first)
