"""The opcodes of a pickle, one after another, without a belief in what they declare.

`pickletools` says which opcodes there are and how long their operands are. Its own readers are not taken: they stop at
operands that Python's unpickler accepts (numbers like 0x10, words with escapes), behind which a file could hide.
"""

from __future__ import annotations

import codecs
import pickletools
import re
import struct
from typing import Iterator, List, NamedTuple, Optional, Tuple

_NEWLINE = re.compile(b"\n")
_TABLE = {ord(each.code): each for each in pickletools.opcodes}
#: {what pickletools calls a length in front of the operand: how it is packed}
_COUNTS = {
    pickletools.TAKEN_FROM_ARGUMENT1: "<B",
    pickletools.TAKEN_FROM_ARGUMENT4: "<i",
    pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
    pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
}
_TWO_LINES = ("GLOBAL", "INST")


class Broken(Exception):
    """What stands at a position is no opcode, or its operand is not all there."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Opcode(NamedTuple):
    """One opcode: its name in pickletools, its offset, the offset behind it, and its operand."""

    name: str
    position: int
    end: int
    operands: Tuple[memoryview, ...]


def steps(view: memoryview, start: int) -> Iterator[Opcode]:
    """The opcodes from an offset on, to STOP.

    Raises:
        Broken: they end before.
    """
    at, name = start, ""
    while name != "STOP":
        if at >= len(view) or view[at] not in _TABLE:
            raise Broken(at)
        opcode = _TABLE[view[at]]
        name = opcode.name
        operands, end = _operands(view, at, opcode)
        yield Opcode(name, at, end, operands)
        at = end


def _operands(view: memoryview, position: int, opcode: pickletools.OpcodeInfo) -> Tuple[Tuple[memoryview, ...], int]:
    """An opcode's operand, and the offset behind it."""
    at = position + 1
    if opcode.arg is None:
        return (), at
    length = opcode.arg.n
    if length == pickletools.UP_TO_NEWLINE:
        lines: List[memoryview] = []
        for _ in range(2 if opcode.name in _TWO_LINES else 1):
            found = _NEWLINE.search(view, at)
            if found is None:
                raise Broken(position)
            lines.append(view[at : found.start()])
            at = found.end()
        return tuple(lines), at
    if length in _COUNTS:
        size = struct.calcsize(_COUNTS[length])
        if at + size > len(view):
            raise Broken(position)
        (length,) = struct.unpack_from(_COUNTS[length], view, at)
        at += size
    if length < 0 or at + length > len(view):
        raise Broken(position)
    return (view[at : at + length],), at + length


class Words:
    """Text in a pickle, which is decoded where it is asked for, and once: a pickle can come back to it.

    Args:
        raw: its bytes.
        codec: "utf-8", "raw-unicode-escape", "quoted" (with quotes and escapes, as Python 2 wrote it), or "latin1".
    """

    __slots__ = ("_text", "_unquoted", "codec", "raw")

    def __init__(self, raw: memoryview, codec: str) -> None:
        self.raw, self.codec = raw, codec
        self._text: Optional[str] = None
        self._unquoted: Optional[memoryview] = None

    def __len__(self) -> int:
        """Bytes, which are no fewer than characters."""
        return len(self.raw)

    def text(self) -> str:
        if self._text is None:
            self._text = self._decoded()
        return self._text

    def unquoted(self) -> memoryview:
        """Its bytes without quotes and escapes."""
        if self._unquoted is None:
            self._unquoted = memoryview(quoted(bytes(self.raw)))
        return self._unquoted

    def _decoded(self) -> str:
        raw = bytes(self.raw)
        if self.codec == "quoted":
            return quoted(raw).decode("latin1")
        try:
            return raw.decode(self.codec, "surrogatepass" if self.codec == "utf-8" else "strict")
        except UnicodeDecodeError:  # which ends Python's unpickler; there is no such name
            return raw.decode("latin1") + "\ufffd"


def quoted(raw: bytes) -> bytes:
    """The bytes between quotes, escapes resolved; as they are where there are none."""
    raw = raw.strip()
    if len(raw) >= 2 and raw[:1] == raw[-1:] and raw[:1] in (b"'", b'"'):
        raw = raw[1:-1]
    try:
        return codecs.escape_decode(raw)[0]  # type: ignore[attr-defined,no-any-return]
    except ValueError:
        return raw
