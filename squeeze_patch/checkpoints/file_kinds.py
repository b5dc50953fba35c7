"""Whether what a server sent is a checkpoint, told by its bytes, as servers send pages and messages for files."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Optional, Tuple

from squeeze_patch.checkpoints.addresses import Address, file_address
from squeeze_patch.checkpoints.safe_tensors import is_safetensors
from squeeze_patch.checkpoints.storages import LEGACY
from squeeze_patch.errors import CheckpointError

#: bytes that are looked at
_HEAD = 1 << 16
_LOOK = "look at the address in a browser: the link may have expired, or want a login"


def check_checkpoint(path: Path, address: Address) -> None:
    """Raise `CheckpointError` where a downloaded file is a page, a message or a pointer, and no checkpoint."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
    found = _kind(head)
    if found is not None:
        better = file_address(address)
        cure = f"the file itself is at {better}" if better and found[1] != _LOOK else found[1]
        raise CheckpointError(f"{address.shown} {found[0]}; {cure}")


def _kind(head: bytes) -> Optional[Tuple[str, str]]:
    """Words for what is no checkpoint, and the cure; or None."""
    if not head:
        return "is an empty file", _LOOK
    if head.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, which names a file, not the file",
            "use the site's download link, or clone the repository and git lfs pull",
        )
    if is_safetensors(head) or head.startswith((b"\x80", b"PK")):
        return None
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n")
    if re.match(r"<(!doctype html|html|head|body|!--)", text, flags=re.IGNORECASE) or (
        text.startswith("<") and re.search(r"<html[\s>]", text, flags=re.IGNORECASE)
    ):
        if "Google Drive" in text and re.search("virus scan|can't scan", text, flags=re.IGNORECASE):
            return (
                "is Google Drive's page about files too large for its virus scan, not the file",
                "download it in a browser and name that file",
            )
        return "is a web page, not a file", "use the address of the download itself"
    if re.match(r"<[?A-Za-z]", text):
        code = re.search(r"<code>([\w.-]{1,60})</code>", text, flags=re.IGNORECASE)
        return f"is an XML error message{f' ({code[1]})' if code else ''}, not a file", _LOOK
    if text[:1] in ("{", "[") and _is_json(head):
        return "is a JSON error message, not a file", _LOOK
    return None


def _is_json(head: bytes) -> bool:
    if len(head) < _HEAD:
        try:
            json.loads(head.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return False
        return True
    return head.isascii() and not re.search(rb"[\x00-\x08\x0e-\x1f]", head)


def ends_early(path: Path) -> bool:
    """Whether a file whose size nobody told lacks its end: that of a zip archive, of safetensors or of a pickle."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = stream.read(32)
        if is_safetensors(head):
            return size < _safetensors_size(head, path)
        if head.startswith(b"PK\x03\x04"):
            return not zipfile.is_zipfile(path)
        if not head or head.startswith(LEGACY) or not re.match(rb"\x80[\x02-\x05]", head):
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"."


def _safetensors_size(head: bytes, path: Path) -> int:
    """The bytes that a file has to have by its header."""
    length = int.from_bytes(head[:8], "little")
    with open(path, "rb") as stream:
        stream.seek(8)
        try:
            tensors = json.loads(stream.read(length))
            ends = [value["data_offsets"][1] for name, value in tensors.items() if name != "__metadata__"]
            return 8 + length + max(ends, default=0)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return 8 + length
