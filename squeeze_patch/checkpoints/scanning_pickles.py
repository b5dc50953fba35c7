"""What a pickle would import, call and build, told without doing it: a machine of symbols.

It goes on where Python's unpickler would stop (an empty stack, a missing entry of the memo): what it sees is then more
than what happens, never less. `scanning_walk` has the opcodes that drive it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

from squeeze_patch.checkpoints.scanning_findings import (
    RUNS_CODE,
    UNKNOWN,
    USUAL,
    Finding,
    Notes,
    within,
)
from squeeze_patch.checkpoints.scanning_names import is_name, judge_name, source_entries, source_entry
from squeeze_patch.checkpoints.scanning_values import (
    HOOK,
    NOTHING,
    SOMETHING,
    UNKNOWN_KEY,
    Named,
    Thing,
    computed,
    entries_of,
    is_hook,
    key_of,
    makes_bytes,
    raw_of,
    text_of,
    values_of,
)

#: looks into bytes or words in a pickle, given them, their place, the offset of the opcode, and whether they must be a
#: file of torch.save; says whether they are one
Inner = Callable[[Any, str, int, bool], bool]
_PLAIN_CODECS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")
#: {usual function that calls its first argument: which of the others are that one's, None = all}
_CALLING: Dict[Tuple[str, str], Optional[int]] = {
    ("copyreg", "__newobj__"): None,
    ("copyreg", "_reconstructor"): None,
    ("copy_reg", "__newobj__"): None,
    ("copy_reg", "_reconstructor"): None,
    ("torch._tensor", "_rebuild_from_type_v2"): 2,
}
#: usual functions that set attributes from a state, their last argument
_SETTING = (("torch._tensor", "_rebuild_from_type_v2"), ("torch._utils", "_rebuild_parameter_with_state"))
#: usual functions, beside these, that are harmless only for what they are given
_RUNNING_ARGUMENTS = (("torch.storage", "_load_from_bytes"), ("_codecs", "encode"))
_CHANGES = "that changes the running process"


@dataclass
class Machine:
    """The state in the middle of one pickle.

    Args:
        notes: where findings go.
        place: the part of the file.
        ids: whether a loader of torch's reads it, which brings in tensors by ids.
        inner: for bytes and words inside; None: they are not looked into.

    Attributes:
        at: offset of the opcode.
        fault: offset of the first thing that ends Python's unpickler, None where there is none.
        imports: how often it imports something, before any fault; calls: how often it calls something, likewise.
        frame_end: offset to which a reader may have read at once.
    """

    notes: Notes
    place: str = ""
    ids: bool = False
    inner: Optional[Inner] = None
    protocol: int = 0
    stack: List[Any] = field(default_factory=list)
    marks: List[int] = field(default_factory=list)
    memo: Dict[int, Any] = field(default_factory=dict)
    at: int = 0
    fault: Optional[int] = None
    imports: int = 0
    calls: int = 0
    frame_end: int = 0

    def stumble(self) -> Any:
        """Something that ends Python's unpickler."""
        if self.fault is None:
            self.fault = self.at
        return NOTHING

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.stack and not (self.marks and self.marks[-1] == len(self.stack)):
            return self.stack.pop()
        return self.stumble()

    def top(self) -> Any:
        return self.stack[-1] if self.stack else self.stumble()

    def pop_mark(self) -> Tuple[Any, ...]:
        if not self.marks:
            self.stumble()
        at = self.marks.pop() if self.marks else 0
        found = tuple(self.stack[at:])
        del self.stack[at:]
        return found

    def remember(self, key: int) -> None:
        self.memo[key] = self.top()

    def recall(self, key: int) -> None:
        self.push(self.memo[key] if key in self.memo else self.stumble())

    def literal(self, value: Any) -> None:
        """Words or bytes, which may be a file of their own."""
        self.push(value)
        if self.inner is not None:
            self.inner(value, within(self.place, f"bytes at {self.at}"), self.at, False)

    def note(self, level: str, kind: str, what: str, why: str = "", named: int = 1, called: int = 0) -> None:
        self.notes.add(Finding(level, kind, what, why, self.place, self.at, named, called))

    def note_name(self, found: Named, named: int = 0, called: int = 0) -> None:
        level, why = judge_name(*found.pair, found.protocol)
        self.note(level, "name", str(found), why, named, called)

    def name(self, module: Any, name: Any) -> None:
        """A name is imported."""
        words = text_of(module), text_of(name)
        if words[0] is None or words[1] is None:
            shown = ".".join("?" if word is None else word for word in words)
            self.imports += self.fault is None
            self.note(UNKNOWN, "name", f"a computed name, {shown}", "which one is known only on loading")
            self.push(SOMETHING)
            return
        found = Named(words[0], words[1], self.protocol)
        self.imports += self.fault is None and is_name(*found.pair)
        self.note_name(found, named=1)
        self.push(found)

    def call(self, function: Any, args: Any, is_new: bool = False) -> Any:
        """What a call of ``function`` makes; ``is_new``: of its __new__ alone."""
        self.calls += self.fault is None
        if not isinstance(function, Named):
            made_by = function.made_by if isinstance(function, Thing) else None
            called = f"what {made_by} returns" if made_by else "something that was loaded"
            self.note(UNKNOWN, "call", f"a call of {called}", "which is known only on loading", called=1)
            return SOMETHING
        self.note_name(function, called=1)
        self.check_arguments(function, args)
        first = args[0] if isinstance(args, tuple) and args else NOTHING
        if function.pair in _CALLING and isinstance(args, tuple):
            return self.call_of_first(function, args)
        self.check_bytes(function, args, first)
        if not is_new:
            self.check_source(function, first)
        value = computed(function.pair, args, self.notes.has_room)
        if value is None and makes_bytes(function.pair) and args:
            self.note(UNKNOWN, "call", f"bytes that {function} computes", "which is known only on loading", called=1)
        if value is None:
            return Thing(function, entries_of(first) or None, is_new)
        self.notes.step(len(value) >> 12)
        if isinstance(value, memoryview) and self.inner is not None:
            self.inner(value, within(self.place, f"bytes computed at {self.at}"), self.at, False)
        return value

    def call_of_first(self, function: Named, args: Tuple[Any, ...]) -> Any:
        """What comes of a usual function that calls its first argument."""
        at = _CALLING[function.pair]
        inner = args[at] if at is not None and len(args) > at else args[1:]
        based = function.pair[1] != "_reconstructor" or (len(args) > 1 and isinstance(args[1], Named))
        if not args or not isinstance(args[0], Named) or args[0].pair in _CALLING or not based:
            self.note(UNKNOWN, "call", f"{function} of something that was loaded", "", called=1)
            return SOMETHING
        return self.call(args[0], inner, is_new=at is None)

    def keep(self, values: Tuple[Any, ...]) -> None:
        """Values go where other code can reach them: functions that run what they are given are not to be there."""
        for value in values:
            loose = value[0] if isinstance(value, tuple) and value else value
            if isinstance(loose, Named) and _runs_arguments(loose):
                why = "with what it would be called is known only on loading"
                self.note(UNKNOWN, "call", f"{loose} kept where something can call it", why)

    def push_tuple(self, values: Tuple[Any, ...]) -> None:
        """A tuple, which may be the arguments of a call: these begin with a function in a few cases."""
        self.keep(values[1:] if values and isinstance(values[0], Named) else values)
        self.push(values)

    def check_arguments(self, function: Named, args: Any) -> None:
        """Arguments of any function."""
        if not isinstance(args, tuple):
            if _runs_arguments(function):
                self.note(UNKNOWN, "call", f"{function} with arguments that are computed", "", called=1)
            return
        self.keep(args[1:] if function.pair in _CALLING else args)
        if function.pair in _SETTING:
            self.check_hooks(args[-1:])

    def check_hooks(self, states: Tuple[Any, ...]) -> None:
        """Attributes that loading itself would call."""
        for state in states:
            for name in values_of(state, HOOK)[:1]:
                self.note(UNKNOWN, "call", f"an attribute of the name {name} is set", "loading can call it", called=1)

    def check_bytes(self, function: Named, args: Any, first: Any) -> None:
        """Arguments that decide what a usual function runs."""
        if function.pair == ("torch.storage", "_load_from_bytes") and self.inner is not None:
            raw = raw_of(first)
            place = within(self.place, f"{function} at {self.at}")
            if raw is None or not self.inner(raw, place, self.at, True):
                self.note(UNKNOWN, "data", f"bytes for {function} that are computed, or no file of torch.save")
        if function.pair == ("_codecs", "encode") and isinstance(args, tuple) and len(args) > 1:
            codec = text_of(args[1])
            if codec not in _PLAIN_CODECS:
                self.note(UNKNOWN, "call", f"_codecs.encode to {codec or 'a computed codec'}", "", called=1)

    def check_source(self, maker: Named, holder: Any, required: bool = True) -> None:
        """Source that loading runs, in an argument or a state."""
        entry = source_entry(*maker.pair)
        if entry is None or self.inner is None:
            return
        found, unknown = values_of(holder, entry), values_of(holder, UNKNOWN_KEY)
        if not (required or found or unknown):
            return
        texts = {text_of(value) for value in found}
        name = next(filter(None, map(text_of, values_of(holder, "class_name"))), "an unnamed class")
        if not texts or None in texts or unknown:
            what = f"source for {maker} that is computed on loading, or nowhere"
            self.note(RUNS_CODE, "source", what, "the host runs that text")
        if len(texts) > 1:
            self.note(UNKNOWN, "source", f"{len(texts)} texts as the source for {maker}", "all of them are judged")
        for text in filter(None, texts):
            self.notes.source(text, self.place, self.at, name)

    def build(self) -> None:
        """A state is given to an object."""
        state, target = self.pop(), self.top()
        self.keep((state,))
        states = state[:2] if isinstance(state, tuple) else (state,)
        self.check_hooks(states)
        if isinstance(target, Thing) and target.made_by is not None:
            self.check_source(target.made_by, state, required=target.is_new)
        if isinstance(target, Thing) and target is not SOMETHING:
            for each in states:
                for name, values in entries_of(each).items():
                    for value in values:
                        target.put(name, value)
        if isinstance(target, Named):
            usual = judge_name(*target.pair, target.protocol)[0] == USUAL
            self.note(UNKNOWN if usual else RUNS_CODE, "call", f"attributes are set on {target}", _CHANGES)

    def set_items(self, target: Any, pairs: Tuple[Any, ...]) -> None:
        self.keep(pairs)
        if isinstance(target, Named):
            self.note(UNKNOWN, "call", f"items are set on {target}", _CHANGES)
        if not isinstance(target, Thing) or target is SOMETHING:
            return
        wanted = {"class_name", UNKNOWN_KEY, *source_entries()}
        for key, value in zip(pairs[::2], pairs[1::2]):
            name = key_of(key)
            if name in wanted:
                target.put(name, value)
            elif name and is_hook(name) and not values_of(target, HOOK):
                target.put(HOOK, name)

    def append(self, target: Any) -> None:
        if isinstance(target, Named):
            self.note(UNKNOWN, "call", f"something is appended to {target}", _CHANGES)

    def identify(self, value: Any) -> None:
        """Something is brought in by an id."""
        kind = text_of(value[0]) if isinstance(value, tuple) and value else None
        if self.ids and kind == "module" and len(value) > 1:  # torch's older format: a class, and its source to compare
            self.push(value[1])
            return
        if not (self.ids and kind == "storage"):
            what = "an object brought in by an id" if self.ids else "an object brought in by an id, as only torch does"
            self.note(UNKNOWN, "call", what, "the loading program decides what it is", called=1)
        self.push(SOMETHING)

    def extension(self, code: int) -> None:
        self.note(UNKNOWN, "name", f"extension {code} of copyreg", "the loading process decides what it is")
        self.push(SOMETHING)


def _runs_arguments(function: Named) -> bool:
    """Whether a usual function is harmless only for what it is given."""
    careful = function.pair in _CALLING or function.pair in _RUNNING_ARGUMENTS
    return careful or source_entry(*function.pair) is not None
