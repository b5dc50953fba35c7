"""The opcodes that drive `scanning_pickles.Machine`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from squeeze_patch.checkpoints.scanning_findings import UNKNOWN, Exhausted, Notes
from squeeze_patch.checkpoints.scanning_opcodes import Broken, Opcode, Words, steps
from squeeze_patch.checkpoints.scanning_pickles import Machine
from squeeze_patch.checkpoints.scanning_values import NOTHING, SOMETHING, Thing

#: opcodes that tell whether bytes somewhere inside a file are a pickle
TRIAL = 10_000
#: characters of a number that are parsed, which is slow of many
_DIGITS = 4000
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,9}")
_HEADERS = tuple(bytes([0x80, protocol]) for protocol in range(6))


@dataclass(frozen=True)
class Walk:
    """What came of a walk.

    Attributes:
        end: offset behind its last opcode.
        stopped: whether it came to STOP.
    """

    end: int
    stopped: bool


def walk(
    machine: Machine,
    view: memoryview,
    start: int,
    progress: Optional[Callable[[int], None]] = None,
    strict: bool = False,
) -> Walk:
    """Run the opcodes from an offset on (``strict``: to the first fault); `Exhausted` where there are too many."""
    end, count = start, 0
    try:
        for step in steps(view, start):
            machine.notes.step()
            machine.at = step.position
            _ACTIONS[step.name](machine, step)
            end, count = step.end, count + 1
            if strict and machine.fault is not None:
                return Walk(end, False)
            if progress is not None and count % 512 == 0:
                progress(end)
    except Broken as error:
        machine.fault = error.position if machine.fault is None else machine.fault
        return Walk(end, False)
    return Walk(end, True)


@dataclass(frozen=True)
class Likeness:
    """How much like a pickle some bytes are.

    Attributes:
        header: whether they begin like one of protocol 0 to 5 that says so.
        whole: whether they have an end, and nothing on the way to it that ends Python's unpickler.
        long: whether the trial came to an end before such a thing, and before theirs.
        opcodes: how many were walked.
        imports: whether they import something by what can be a name.
        calls: whether they call something.
    """

    header: bool
    whole: bool
    long: bool
    opcodes: int
    imports: bool
    calls: bool

    @property
    def as_file(self) -> bool:
        """Enough for a file, which may be damaged."""
        return self.header or self.imports or self.whole or self.long

    @property
    def as_part(self) -> bool:
        """Enough for bytes inside a file, which are numbers as a rule."""
        return self.long or (self.imports and (self.header or self.whole or self.calls))


def try_as_pickle(view: memoryview) -> Likeness:
    """Walk the first opcodes, to the first thing that ends Python's unpickler, without notes."""
    machine, whole, long = Machine(Notes(TRIAL)), False, False
    try:
        whole = walk(machine, view, 0, strict=True).stopped
    except Exhausted:
        long = True
    opcodes = TRIAL - machine.notes.steps
    return Likeness(bytes(view[:2]) in _HEADERS, whole, long, opcodes, machine.imports > 0, machine.calls > 0)


def _little(step: Opcode) -> int:
    return int.from_bytes(step.operands[0], "little")


def _decimal(machine: Machine, step: Opcode) -> int:
    """A number in words. The unpickler in C reads to a zero byte, the one in Python reads all of the line."""
    line = bytes(step.operands[0])
    if _NUMBER.fullmatch(line):
        return int(line)
    machine.note(UNKNOWN, "data", f"an unusual number in {step.name}", "readers of pickles can disagree on it")
    try:
        return int(line.split(b"\0", 1)[0]) if len(line) <= _DIGITS else -1
    except ValueError:
        machine.stumble()
        return -1


def _plain(machine: Machine, _: Opcode) -> None:
    machine.push(NOTHING)


def _nothing(_machine: Machine, _step: Opcode) -> None:
    """READONLY_BUFFER changes nothing that matters here."""


def _frame(machine: Machine, step: Opcode) -> None:
    """FRAME says how much is read at once, and is gone where the pickle ends before."""
    machine.frame_end = max(machine.frame_end, step.end + _little(step))


def _words(codec: str) -> Callable[[Machine, Opcode], None]:
    return lambda machine, step: machine.literal(Words(step.operands[0], codec))


def _bytes(machine: Machine, step: Opcode) -> None:
    machine.literal(step.operands[0])


def _container(machine: Machine, _: Opcode) -> None:
    machine.push(Thing())


def _of_marked(machine: Machine, _: Opcode) -> None:
    machine.keep(machine.pop_mark())
    machine.push(SOMETHING)


def _stop(machine: Machine, step: Opcode) -> None:
    machine.top()
    if machine.frame_end > step.end:
        what = "a frame that goes on behind the end of a pickle"
        machine.note(UNKNOWN, "data", what, "what is read next depends on the reader")


def _protocol(machine: Machine, step: Opcode) -> None:
    machine.protocol = step.operands[0][0]
    if machine.protocol > 5:
        machine.stumble()


def _append(machine: Machine, _: Opcode) -> None:
    machine.keep((machine.pop(),))
    machine.append(machine.top())


def _appends(machine: Machine, _: Opcode) -> None:
    machine.keep(machine.pop_mark())
    machine.append(machine.top())


def _tuple(count: int) -> Callable[[Machine, Opcode], None]:
    def make(machine: Machine, _: Opcode) -> None:
        machine.push_tuple(tuple([machine.pop() for _ in range(count)][::-1]))

    return make


def _marked_tuple(machine: Machine, _: Opcode) -> None:
    machine.push_tuple(machine.pop_mark())


def _dict(machine: Machine, _: Opcode) -> None:
    made = Thing()
    machine.set_items(made, machine.pop_mark())
    machine.push(made)


def _set_item(machine: Machine, _: Opcode) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.top(), (key, value))


def _set_items(machine: Machine, _: Opcode) -> None:
    pairs = machine.pop_mark()
    machine.set_items(machine.top(), pairs)


def _pop(machine: Machine, _: Opcode) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _pop_mark(machine: Machine, _: Opcode) -> None:
    machine.pop_mark()


def _names(step: Opcode) -> Tuple[Any, Any]:
    return Words(step.operands[0], "utf-8"), Words(step.operands[1], "utf-8")


def _stack_global(machine: Machine, _: Opcode) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _inst(machine: Machine, step: Opcode) -> None:
    args = machine.pop_mark()
    machine.name(*_names(step))
    machine.push(machine.call(machine.pop(), args))


def _obj(machine: Machine, _: Opcode) -> None:
    args = machine.pop_mark()
    machine.push(machine.call(args[0], args[1:]) if args else machine.stumble())


def _new(machine: Machine, step: Opcode) -> None:
    if step.name == "NEWOBJ_EX":
        machine.pop()
    args, function = machine.pop(), machine.pop()
    machine.push(machine.call(function, args, is_new=step.name != "REDUCE"))


def _by_name(action: Callable[[Machine, Opcode], None], names: str) -> Dict[str, Callable[[Machine, Opcode], None]]:
    return dict.fromkeys(names.split(), action)


_ACTIONS: Dict[str, Callable[[Machine, Opcode], None]] = {
    **_by_name(_plain, "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT NEXT_BUFFER"),
    "FRAME": _frame,
    "READONLY_BUFFER": _nothing,
    **_by_name(_words("quoted"), "STRING"),
    **_by_name(_words("latin1"), "BINSTRING SHORT_BINSTRING"),
    **_by_name(_words("raw-unicode-escape"), "UNICODE"),
    **_by_name(_words("utf-8"), "BINUNICODE SHORT_BINUNICODE BINUNICODE8"),
    **_by_name(_bytes, "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"),
    **_by_name(_container, "EMPTY_LIST EMPTY_DICT EMPTY_SET"),
    **_by_name(_of_marked, "LIST FROZENSET"),
    **_by_name(_appends, "APPENDS ADDITEMS"),
    **_by_name(_new, "NEWOBJ NEWOBJ_EX REDUCE"),
    "STOP": _stop,
    "PROTO": _protocol,
    "APPEND": _append,
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": _marked_tuple,
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "POP": _pop,
    "DUP": lambda machine, _: machine.push(machine.top()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP_MARK": _pop_mark,
    "GET": lambda machine, step: machine.recall(_decimal(machine, step)),
    **_by_name(lambda machine, step: machine.recall(_little(step)), "BINGET LONG_BINGET"),
    "PUT": lambda machine, step: machine.remember(_decimal(machine, step)),
    **_by_name(lambda machine, step: machine.remember(_little(step)), "BINPUT LONG_BINPUT"),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **_by_name(lambda machine, step: machine.extension(_little(step)), "EXT1 EXT2 EXT4"),
    "GLOBAL": lambda machine, step: machine.name(*_names(step)),
    "STACK_GLOBAL": _stack_global,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, step: machine.identify(Words(step.operands[0], "utf-8")),
    "BINPERSID": lambda machine, _: machine.identify(machine.pop()),
}
