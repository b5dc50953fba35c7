"""Symbols in place of what a pickle would make."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from squeeze_patch.checkpoints.scanning_opcodes import Words, quoted

#: whatever is of no interest: numbers, None
NOTHING: Any = object()
#: bytes of words and names that are put together here
LONGEST = 1 << 20


class Named:
    """A class or function by its name."""

    __slots__ = ("pair", "protocol")

    def __init__(self, module: str, name: str, protocol: int) -> None:
        self.pair, self.protocol = (module, name), protocol

    def __str__(self) -> str:
        return ".".join(self.pair)


class Thing:
    """A container, or what a call has made.

    Attributes:
        made_by: what was called; None of a plain container, and of what is not known.
        entries: those of its entries whose names matter.
        is_new: whether it was made without a call of its constructor, so that a state has to follow.
    """

    __slots__ = ("entries", "is_new", "made_by")

    def __init__(
        self, made_by: Optional[Named] = None, entries: Optional[Dict[str, Any]] = None, is_new: bool = False
    ) -> None:
        self.made_by, self.entries, self.is_new = made_by, entries, is_new


#: a container of which nothing is known; shared, so it must not get entries
SOMETHING: Any = Thing()


def text_of(value: Any) -> Optional[str]:
    """A word as it stands in the file or follows from it; None of anything else."""
    return value.text() if isinstance(value, Words) else None


def raw_of(value: Any) -> Optional[memoryview]:
    """Bytes as they stand in the file or follow from it; words as Python 2 wrote bytes. None of anything else."""
    if isinstance(value, memoryview):
        return value
    if not isinstance(value, Words) or value.codec == "raw-unicode-escape":
        return None
    return memoryview(quoted(bytes(value.raw))) if value.codec == "quoted" else value.raw


def entry_of(holder: Any, name: str) -> Any:
    """An entry of a container, None where it is not there."""
    return (holder.entries or {}).get(name) if isinstance(holder, Thing) else None


def entries_of(holder: Any) -> Dict[str, Any]:
    return dict(holder.entries or {}) if isinstance(holder, Thing) else {}


def computed(pair: Tuple[str, str], args: Any) -> Any:
    """What a call of a few functions without effects makes of words and bytes, None where that is not known."""
    if not (isinstance(args, tuple) and args):
        return None
    if pair == ("_codecs", "encode"):
        return _encoded(args)
    if pair[1] in ("bytes", "bytearray") and pair[0] in ("builtins", "__builtin__"):
        return _encoded(args) if len(args) > 1 else args[0] if isinstance(args[0], memoryview) else None
    if pair[1] in ("add", "concat") and pair[0] in ("operator", "_operator") and len(args) == 2:
        return _sum(*args)
    return None


def _encoded(args: Tuple[Any, ...]) -> Optional[memoryview]:
    text = text_of(args[0])
    codec = text_of(args[1]) if len(args) > 1 else "latin1"
    if text is None or codec not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        return None
    try:
        return memoryview(text.encode(codec))
    except UnicodeEncodeError:
        return None


def _sum(first: Any, second: Any) -> Any:
    words = text_of(first), text_of(second)
    if words[0] is None or words[1] is None or len(first) + len(second) > LONGEST:
        return None
    return Words(memoryview("".join(filter(None, words)).encode("utf-8", "surrogatepass")), "utf-8")
