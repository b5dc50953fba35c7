"""SHA-256 of files, and whether it is the one that a user names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from squeeze_patch.errors import CheckpointError


def sha256_of(path: Path) -> str:
    """64 hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            found.update(chunk)
    return found.hexdigest()


def is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-fA-F]{64}", text) is not None


def check_sum(found: str, wanted: str, shown: str) -> None:
    """Raise `CheckpointError` unless a file, ``shown`` by this name, has the sum that is wanted."""
    if found != wanted.lower():
        raise CheckpointError(
            f"{shown}: its SHA-256 is {found}, not {wanted.lower()} as asked for: another file, or a changed one"
        )
