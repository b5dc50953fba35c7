"""What the bytes of a file, or of a file inside a file, are, and what is in them."""

from __future__ import annotations

import ast
import io
import struct
import tarfile
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional

from squeeze_patch.checkpoints.scanning_archives import look_into_tar, look_into_zip
from squeeze_patch.checkpoints.scanning_findings import UNKNOWN, USUAL, Finding, Notes, Part, Unreadable, within
from squeeze_patch.checkpoints.scanning_opcodes import Words
from squeeze_patch.checkpoints.scanning_pickles import Inner, Machine
from squeeze_patch.checkpoints.scanning_source import reads_like_source
from squeeze_patch.checkpoints.scanning_values import raw_of
from squeeze_patch.checkpoints.scanning_walk import try_as_pickle, walk
from squeeze_patch.checkpoints.storages import LEGACY as OLDER_TORCH
from squeeze_patch.progress import Progress

PICKLE, ZIP, TAR = "a pickle", "a zip archive", "a tar archive"
OLDER, ARRAY, SAFETENSORS = "a file of torch.save, older format", "a NumPy array", "a file of safetensors"
UNKNOWN_FORM = "data of no known form"
#: {first bytes: what such a file is}
_OPEN = {b"PK\x03\x04": ZIP, b"PK\x05\x06": ZIP, OLDER_TORCH: OLDER, b"\x93NUMPY": ARRAY}
#: bytes that may be a file
SHORTEST = 4
#: the same of files that are not looked into
_CLOSED = {
    b"\x1f\x8b": "data compressed by gzip",
    b"BZh": "data compressed by bzip2",
    b"\xfd7zXZ\x00": "data compressed by xz",
    b"\x28\xb5\x2f\xfd": "data compressed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GGUF": "a GGUF file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"version https://git-lfs": "a pointer of Git LFS",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
}
#: what to do about some of them
CURES = {
    "a pointer of Git LFS": "the file itself is elsewhere; git lfs pull gets it",
    "a web page": "take the address of the download itself",
    "an empty file": "download it again",
}
#: bytes of a header that are read
_HEADER = 1 << 16


def look_into(part: Part, notes: Notes, progress: Optional[Progress] = None) -> str:
    """Note what is in a part, and let the parts of it wait; returns what it is."""
    try:
        view = part.load()
    except Unreadable as error:
        notes.gap(str(error), part.place)
        return "unreadable"
    if not notes.has_room(len(view)):
        notes.gap("parts behind more than is looked into of one file", part.place)
        return "unreadable"
    form = part.form or form_of(view, part.required)
    if form == PICKLE:
        _look_into_pickle(view, part, notes, progress)
        return form
    if form in _READERS:
        _READERS[form](view, part, notes)
    elif part.required:
        notes.gap(form, part.place, why=CURES.get(form, "nothing is known of what is in it"))
    for other in [] if part.again else _other_forms(view, form, part.depth == 0):
        what, place = f"{form} that is {other}, too", within(part.place, f"as {other}")
        notes.add(Finding(UNKNOWN, "data", what, "what it is depends on the reader", part.place))
        notes.wait(Part(place, lambda: view, part.depth + 1, other, other == OLDER, again=True))
    return form


def _other_forms(view: memoryview, form: str, is_file: bool) -> List[str]:
    """What other readers can take bytes for that begin as some form."""
    found = [TAR] if form != TAR and _is_tar(view) else []
    if form != OLDER and bytes(view[: len(OLDER_TORCH)]) == OLDER_TORCH:
        return [*found, OLDER]
    if form not in (ZIP, OLDER):  # P, the first byte of an archive, ends every usual reading as a pickle
        likeness = try_as_pickle(view)
        found += [PICKLE] if likeness.as_part or (is_file and likeness.imports) else []
    return found


def form_of(view: memoryview, is_file: bool = True) -> str:
    """What bytes are, by their beginning; where they need not be a file, numbers may look like a short pickle."""
    head = bytes(view[:512])
    for start, form in _OPEN.items():
        if head.startswith(start):
            return form
    if head[257:262] == b"ustar" or _is_tar(view):
        return TAR
    if _is_safetensors(view):
        return SAFETENSORS
    likeness = try_as_pickle(view)
    if likeness.as_file if is_file else likeness.as_part or (likeness.header and likeness.whole):
        return PICKLE
    for start, form in _CLOSED.items():
        if head.startswith(start):
            return form
    if _ends_as_zip(view):
        return ZIP
    return "an empty file" if not head else "a text" if _is_text(head) else UNKNOWN_FORM


def inner_of(notes: Notes, part: Part) -> Inner:
    """What looks into bytes and words inside a pickle."""

    def look(value: Any, place: str, position: int, required: bool) -> bool:
        if isinstance(value, Words) and reads_like_source(value.raw):
            notes.text(value.text(), part.place, position)
        raw = raw_of(value)
        is_words = raw is None or (isinstance(value, Words) and value.codec == "utf-8")
        if raw is None or len(raw) < SHORTEST:
            return False
        saved = not is_words and bytes(raw[: len(OLDER_TORCH)]).startswith((b"PK\x03\x04", OLDER_TORCH))
        if saved:
            notes.wait(Part(place, lambda: raw, part.depth + 1, ids=True))
            return True
        likeness = try_as_pickle(raw)
        notes.step(likeness.opcodes)
        if likeness.as_part:
            notes.wait(Part(place, lambda: raw, part.depth + 1, PICKLE, ids=required))
        return False

    return look


def _look_into_pickle(view: memoryview, part: Part, notes: Notes, progress: Optional[Progress]) -> None:
    """One pickle, and what stands behind its end."""
    machine = Machine(notes, part.place, part.ids, inner_of(notes, part))
    told = (lambda done: progress("", done, len(view))) if progress is not None else None
    done = walk(machine, view, part.start, told)
    if machine.fault is not None:
        notes.gap("a pickle that breaks off or is damaged", part.place, machine.fault, "it was read as far as it goes")
    if done.stopped:
        _look_behind(view, done.end, part, notes)


def _look_behind(view: memoryview, end: int, part: Part, notes: Notes) -> None:
    rest = view[end:]
    if not rest:
        return
    form = form_of(rest, is_file=False)
    what = f"{len(rest):,} bytes behind the end of a pickle"
    level = USUAL if form == PICKLE else UNKNOWN
    notes.add(Finding(level, "data", what, f"{form}; the host does not read on", part.place, end))
    if form == PICKLE:
        notes.wait(replace(part, load=lambda: view, form=PICKLE, start=end))
    else:
        place = within(part.place, f"behind the end at {end}")
        notes.wait(Part(place, lambda: rest, part.depth + 1, form))


def _look_into_older_torch(view: memoryview, part: Part, notes: Notes) -> None:
    """A magic number, a version, facts of the machine, the pickle, and keys of storages; then these, which are raw."""
    at = 0
    for _ in range(5):
        machine = Machine(notes, part.place, True, inner_of(notes, part))
        done = walk(machine, view, at)
        at = done.end
        if machine.fault is not None or not done.stopped:
            fault = at if machine.fault is None else machine.fault
            notes.gap("a file of torch.save that breaks off or is damaged", part.place, fault)
            return
    if part.depth == 0 and _ends_as_zip(view):
        what = "an archive behind the end of a file of torch.save"
        notes.add(Finding(UNKNOWN, "data", what, "what it is depends on the reader", part.place, at))
        notes.wait(Part(within(part.place, "as an archive"), lambda: view[at:], 1, ZIP))


def _look_into_array(view: memoryview, part: Part, notes: Notes) -> None:
    size = 2 if view[6] == 1 else 4
    start = 8 + size
    length = int.from_bytes(view[8:start], "little")
    header = bytes(view[start : start + min(length, _HEADER)]).decode("latin1")
    try:
        described = ast.literal_eval(header.strip())["descr"] if length <= _HEADER else None
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        described = None
    if described is None:
        notes.gap("a NumPy array with an unusual header", part.place)
    elif _has_objects(described):
        rest = view[start + length :]
        why = "numpy.load(allow_pickle=True) unpickles it"
        notes.add(Finding(UNKNOWN, "data", "an array of Python objects", why, part.place))
        notes.wait(Part(within(part.place, "objects"), lambda: rest, part.depth + 1, PICKLE))


def _has_objects(described: Any) -> bool:
    """Whether a type as NumPy writes it is, or has a field, of Python objects."""
    waiting = [described]
    while waiting:
        now = waiting.pop()
        if isinstance(now, str) and now.lstrip("|<>=")[:1] == "O":
            return True
        if isinstance(now, list):
            waiting.extend(field[1] for field in now if isinstance(field, tuple) and len(field) > 1)
        if isinstance(now, tuple):
            waiting.extend(now[:1])
    return False


def _is_safetensors(view: memoryview) -> bool:
    if len(view) < 10 or view[8] != ord("{"):
        return False
    (length,) = struct.unpack_from("<Q", view, 0)
    return bool(2 <= length <= len(view) - 8 and b'"dtype"' in bytes(view[8 : 8 + min(length, _HEADER)]))


def _look_into_safetensors(view: memoryview, part: Part, notes: Notes) -> None:
    notes.add(Finding(USUAL, "fact", "tensors and a header in JSON: nothing that could be run", "", part.place))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)


def _is_tar(view: memoryview) -> bool:
    """Whether the checksum of a first header fits, which is all that the oldest archives have to tell them by."""
    head = bytes(view[: tarfile.BLOCKSIZE])
    if not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _ends_as_zip(view: memoryview) -> bool:
    return b"PK\x05\x06" in bytes(view[-(io.DEFAULT_BUFFER_SIZE * 9) :])


_READERS: Dict[str, Callable[[memoryview, Part, Notes], None]] = {
    ZIP: look_into_zip,
    TAR: look_into_tar,
    OLDER: _look_into_older_torch,
    ARRAY: _look_into_array,
    SAFETENSORS: _look_into_safetensors,
}
