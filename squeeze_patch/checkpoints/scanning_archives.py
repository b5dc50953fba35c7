"""Archives: their members, and what readers of archives can disagree on."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zipfile
import zlib
from typing import Callable, List, Set, Tuple

from squeeze_patch.checkpoints.scanning_findings import (
    UNKNOWN,
    Finding,
    Notes,
    Part,
    Unreadable,
    within,
)

#: members of an archive that are looked at, and bytes that are unpacked in all and of one member
MEMBERS = 50_000
UNPACKED = 1 << 28
#: how much larger than itself packed data may become; zeros become a thousand times as large
RATIO = 200
_ENTRY, _END = re.compile(b"PK\x01\x02"), b"PK\x05\x06"
_LOCAL = struct.Struct("<4s5H3L2H")
#: the record at the end, the one of wide archives, and what leads to that
_LAST, _WIDE, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_WIDE_MAGIC, _LOCATOR_MAGIC = b"PK\x06\x06", b"PK\x06\x07"
_PADDING = 64
_ELSEWHERE = re.compile(r"^([/\\]|[A-Za-z]:)|(^|[/\\])\.\.([/\\]|$)")


class View(io.RawIOBase):
    """Bytes in memory as a file that does not copy them, and reserves no more than there are."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, (0, self._at, len(self._view))[whence] + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size is None or size < 0 else min(len(self._view), self._at + size)
        found = bytes(self._view[self._at : end])
        self._at += len(found)
        return found


def look_into_zip(view: memoryview, part: Part, notes: Notes) -> None:
    """Every member, and the bytes that belong to none."""
    if sum(1 for _, _ in zip(_ENTRY.finditer(view), range(MEMBERS + 1))) > MEMBERS:
        notes.gap(f"a zip archive with more than {MEMBERS:,} members", part.place)
        return
    try:
        archive = zipfile.ZipFile(View(view))  # type: ignore[arg-type]
        members = archive.infolist()
    except Exception as error:  # whatever a damaged archive brings about
        notes.gap(f"a zip archive that cannot be read ({_words(error)})", part.place)
        return
    notes.step(len(members))
    names: Set[str] = set()
    spans: List[Tuple[int, int]] = []
    left = {zipfile.ZIP_DEFLATED: UNPACKED, zipfile.ZIP_STORED: len(view)}  # members can overlap
    for member in members:
        _check_name(member.orig_filename, names, part, notes)
        start, end = _span(view, member, part, notes)
        spans.append((member.header_offset, end))
        if member.filename.endswith("/"):  # `is_dir` fails on an empty name
            continue
        left[member.compress_type] = left.get(member.compress_type, 0) - member.file_size
        _wait_for_member(member, view[start:end], left[member.compress_type] >= 0, part, notes)
    _check_spans(view, spans, archive, part, notes)
    _check_end(view, archive, part, notes)


def _wait_for_member(member: zipfile.ZipInfo, packed: memoryview, affordable: bool, part: Part, notes: Notes) -> None:
    name, place = member.orig_filename, within(part.place, member.orig_filename)
    if member.flag_bits & 0x1:
        why = "some readers do not look whether it is; it was read as if it were not"
        notes.gap("an encrypted member", place, member.header_offset, why)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        notes.gap(f"a member packed in the way {member.compress_type}", place, member.header_offset)
    elif not affordable or (member.file_size > 1 << 20 and member.file_size > RATIO * max(member.compress_size, 1)):
        what = f"a member of {member.compress_size:,} bytes that unpacks to {member.file_size:,}"
        notes.gap(what, place, member.header_offset, "it was not unpacked")
    else:
        _note_code(name, place, member.header_offset, notes)
        torch_data = name.endswith("/data.pkl") or name == "data.pkl"
        encrypted = bool(member.flag_bits & 0x1)
        pickled = not encrypted and (torch_data or name.lower().endswith((".pkl", ".pickle")))
        files = (".pt", ".pth", ".npy", ".npz", ".zip", ".tar", ".bin")
        required = pickled or (not encrypted and name.lower().endswith(files))
        form = "a pickle" if pickled else ""
        notes.wait(Part(place, _unpacked(member, packed, place, notes), part.depth + 1, form, torch_data, required))


def _note_code(name: str, place: str, position: int, notes: Notes) -> None:
    """Members that are code by their names."""
    lower = name.lower()
    if lower.endswith((".pyc", ".so", ".dll", ".pyd", ".dylib", ".exe")):
        notes.add(Finding(UNKNOWN, "data", "a member that is compiled code", "", place, position))
    elif lower.endswith(".py"):
        scripted = "code" in lower.split("/")[:-1]
        what = "code of TorchScript" if scripted else "a member that is a Python module"
        notes.add(Finding(UNKNOWN, "data", what, "torch.jit.load runs it" if scripted else "", place, position))


def _unpacked(member: zipfile.ZipInfo, packed: memoryview, place: str, notes: Notes) -> Callable[[], memoryview]:
    """The bytes of a member, also where its checksum does not fit: some readers do not look."""

    def load() -> memoryview:
        found = packed
        if member.compress_type == zipfile.ZIP_DEFLATED:
            if not notes.has_room(member.file_size):
                raise Unreadable("a member behind more than is unpacked of one file")
            try:
                found = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(member.file_size, 1)))
            except zlib.error as error:
                raise Unreadable(f"a member that cannot be unpacked ({_words(error)})") from error
        if zlib.crc32(found) != member.CRC or len(found) != member.file_size:
            notes.gap("a member whose checksum or size does not fit", place, member.header_offset)
        return found

    return load


def _check_name(name: str, names: Set[str], part: Part, notes: Notes) -> None:
    shown = within(part.place, name)
    if name in names:
        notes.add(Finding(UNKNOWN, "data", "two members of one name", "which one is read depends on the reader", shown))
    names.add(name)
    if _ELSEWHERE.search(name) or "\0" in name:
        notes.add(Finding(UNKNOWN, "data", "a member whose name leads out of the archive", "", shown))


def _span(view: memoryview, member: zipfile.ZipInfo, part: Part, notes: Notes) -> Tuple[int, int]:
    """Offsets of a member's packed bytes, after a look at whether its two headers agree."""
    at, place = member.header_offset, within(part.place, member.orig_filename)
    if at < 0 or at + _LOCAL.size > len(view) or bytes(view[at : at + 4]) != b"PK\x03\x04":
        notes.gap("a member without a header", place, max(at, 0))
        return 0, 0
    _, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL.unpack_from(view, at)
    raw = bytes(view[at + _LOCAL.size : at + _LOCAL.size + name_length])
    name = raw.decode("utf-8" if flags & 0x800 else "cp437", "replace")
    later, wide = bool(flags & 0x8), 0xFFFFFFFF
    agreed = name == member.orig_filename and method == member.compress_type and (flags & 1) == (member.flag_bits & 1)
    for here, there in ((crc, member.CRC), (packed, member.compress_size), (size, member.file_size)):
        agreed = agreed and (here in (there, wide) or (later and here == 0))
    if not agreed:
        why = "which one is read depends on the reader"
        notes.add(Finding(UNKNOWN, "data", "a member whose two headers say different things", why, place, at))
    start = at + _LOCAL.size + name_length + extra
    end = start + member.compress_size
    if end > len(view):
        notes.gap("a member that reaches behind the end of the file", place, at)
        return 0, 0
    return start, end


def _check_spans(
    view: memoryview, spans: List[Tuple[int, int]], archive: zipfile.ZipFile, part: Part, notes: Notes
) -> None:
    """Bytes before, between and behind members."""
    reached = 0
    directory = archive.start_dir
    for start, end in [*sorted(spans), (directory, directory)]:
        if start > reached + (_PADDING if reached else 0):
            _stray(view, reached, start, "in front of" if not reached else "between the members of", part, notes)
        elif start < reached:
            notes.add(Finding(UNKNOWN, "data", "members that overlap", "", part.place, start))
        reached = max(reached, end)
    tail = max(len(view) - (1 << 16) - 22, 0)
    last = tail + bytes(view[tail:]).rfind(_END)
    if len(view) > last + 22:
        _stray(view, last + 22, len(view), "behind", part, notes)


def _check_end(view: memoryview, archive: zipfile.ZipFile, part: Part, notes: Notes) -> None:
    """Whether all that leads to the directory leads to the one that was read: some readers follow the one, some the
    other."""
    start, members = max(archive.start_dir, 0), len(archive.infolist())
    at, count = start, 0
    while bytes(view[at : at + 4]) == b"PK\x01\x02" and at + 46 <= len(view):
        at, count = at + 46 + sum(struct.unpack_from("<3H", view, at + 28)), count + 1
    agreed = count == members
    size = at - start
    if bytes(view[at : at + 4]) == _WIDE_MAGIC and at + _WIDE.size + _LOCATOR.size <= len(view):
        _, length, _, _, _, _, *wide = _WIDE.unpack_from(view, at)
        magic, _, where, disks = _LOCATOR.unpack_from(view, at + _WIDE.size)
        agreed = agreed and (length, wide) == (_WIDE.size - 12, [members, members, size, start])
        agreed = agreed and (magic, where, disks) == (_LOCATOR_MAGIC, at, 1)
        at += _WIDE.size + _LOCATOR.size
    elif bytes(view[at - _LOCATOR.size : at - _LOCATOR.size + 4]) == _LOCATOR_MAGIC:
        agreed = False
    if bytes(view[at : at + 4]) != _END or at + _LAST.size > len(view):
        agreed = False
    else:
        _, _, _, _, total, told, begin, _ = _LAST.unpack_from(view, at)
        agreed = agreed and total in (members, 0xFFFF) and told in (size, 0xFFFFFFFF) and begin in (start, 0xFFFFFFFF)
    if not agreed or bytes(view[at + 4 :]).find(_END) >= 0:
        why = "which directory is read depends on the reader"
        notes.add(Finding(UNKNOWN, "data", "an archive whose end does not lead to its directory", why, part.place, at))


def _stray(view: memoryview, start: int, end: int, where: str, part: Part, notes: Notes) -> None:
    inside = view[start:end]
    what = f"{end - start:,} bytes {where} a zip archive"
    notes.add(Finding(UNKNOWN, "data", what, "other readers take them for the file", part.place, start))
    notes.wait(Part(within(part.place, f"bytes {where} the archive"), lambda: inside, part.depth + 1, required=False))


def look_into_tar(view: memoryview, part: Part, notes: Notes) -> None:
    """Every member of an archive that is not compressed."""
    try:
        with tarfile.open(fileobj=View(view), mode="r:") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive):
                if count >= MEMBERS:
                    notes.gap(f"a tar archive with more than {MEMBERS:,} members", part.place)
                    return
                _look_at_tar_member(view, member, part, notes)
    except Exception as error:  # whatever a damaged archive brings about
        notes.gap(f"a tar archive that cannot be read ({_words(error)})", part.place)


def _look_at_tar_member(view: memoryview, member: tarfile.TarInfo, part: Part, notes: Notes) -> None:
    place = within(part.place, member.name)
    kind = member.name.rpartition("/")[2]
    if member.sparse is not None or member.type == tarfile.GNUTYPE_SPARSE:
        what = "a member with holes, which is unpacked in another order"
        notes.add(Finding(UNKNOWN, "data", what, "such archives do not need it", place, member.offset))
        notes.gap("a member with holes", place, member.offset)
    if kind in ("storages", "tensors"):  # numbers of torch's oldest form stand between pickles
        notes.gap("pickles behind numbers in torch's oldest form", place, member.offset)
    if _ELSEWHERE.search(member.name):
        notes.add(Finding(UNKNOWN, "data", "a member whose name leads out of the archive", "", place, member.offset))
    if not (member.isfile() or member.isdir()):
        notes.add(Finding(UNKNOWN, "data", "a member that is a link or a device", "", place, member.offset))
    elif member.isfile():
        _note_code(member.name, place, member.offset, notes)
        inside = view[member.offset_data : member.offset_data + member.size]
        required = kind in ("pickle", "storages", "tensors")
        notes.wait(Part(place, lambda: inside, part.depth + 1, "", True, required))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:100]
