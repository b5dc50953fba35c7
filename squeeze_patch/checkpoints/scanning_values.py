"""Symbols in place of what a pickle would make."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Optional, Tuple

from squeeze_patch.checkpoints.scanning_opcodes import Words

#: whatever is of no interest: numbers, None
NOTHING: Any = object()
#: bytes of words and names that are put together here
LONGEST = 1 << 20
#: values that are kept of one entry, which can be set several times
CANDIDATES = 8
#: bytes of a key that is read, as it is and with escapes
_KEY, _ESCAPED_KEY = 40, 400
#: the entries, in `Thing.entries`, of keys that are not known, and of names that Python looks up in an instance to call
UNKNOWN_KEY, HOOK = "?", "()"
_HOOKS = re.compile(r"__\w+__|append|extend|add")


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
        entries: those of its entries whose names matter, with all values that were set.
        is_new: whether it was made without a call of its constructor, so that a state has to follow.
    """

    __slots__ = ("entries", "is_new", "made_by")

    def __init__(
        self,
        made_by: Optional[Named] = None,
        entries: Optional[Dict[str, Tuple[Any, ...]]] = None,
        is_new: bool = False,
    ) -> None:
        self.made_by, self.entries, self.is_new = made_by, entries, is_new

    def put(self, name: str, value: Any) -> None:
        """One more value of an entry; of too many the last ones are not known."""
        if self.entries is None:
            self.entries = {}
        held = self.entries.get(name, ())
        if len(held) < CANDIDATES:
            self.entries[name] = (*held, value)
        else:
            self.entries[UNKNOWN_KEY] = (NOTHING,)


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
    return value.unquoted() if value.codec == "quoted" else value.raw


def values_of(holder: Any, name: str) -> Tuple[Any, ...]:
    """All values that an entry of a container was given."""
    return (holder.entries or {}).get(name, ()) if isinstance(holder, Thing) else ()


def key_of(key: Any) -> str:
    """A key that could matter as it is compared, `UNKNOWN_KEY` where it could be any, "" of all others."""
    if isinstance(key, Thing):
        return UNKNOWN_KEY
    if not isinstance(key, Words):
        return ""
    if key.codec in ("quoted", "raw-unicode-escape"):
        return key.text() if len(key) <= _ESCAPED_KEY else UNKNOWN_KEY
    return key.text() if len(key) <= _KEY else ""


def is_hook(name: str) -> bool:
    """Whether unpickling, or copying, calls an attribute of that name."""
    return _HOOKS.fullmatch(name) is not None


def makes_bytes(pair: Tuple[str, str]) -> bool:
    return pair == ("_codecs", "encode") or (
        pair[1] in ("bytes", "bytearray") and pair[0] in ("builtins", "__builtin__")
    )


def entries_of(holder: Any) -> Dict[str, Tuple[Any, ...]]:
    return dict(holder.entries or {}) if isinstance(holder, Thing) else {}


def computed(pair: Tuple[str, str], args: Any, has_room: Callable[[int], bool]) -> Any:
    """What a call of a few functions without effects makes of words and bytes, None where that is not known, or where
    there is no room for so many."""
    is_sum = pair[1] in ("add", "concat") and pair[0] in ("operator", "_operator")
    if not (isinstance(args, tuple) and args and (is_sum or pair == ("_codecs", "encode") or makes_bytes(pair))):
        return None
    if not has_room(sum(len(each) for each in args if isinstance(each, (Words, memoryview)))):
        return None
    if pair == ("_codecs", "encode"):
        return _encoded(args)
    if makes_bytes(pair):
        return _encoded(args) if len(args) > 1 else args[0] if isinstance(args[0], memoryview) else None
    return _sum(*args) if is_sum and len(args) == 2 else None


def _encoded(args: Tuple[Any, ...]) -> Optional[memoryview]:
    text = text_of(args[0])
    codec = text_of(args[1]) if len(args) > 1 else "utf-8"
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
