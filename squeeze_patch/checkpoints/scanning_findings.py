"""What a scan has seen: findings with a level, collected within bounds."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Deque, Dict, FrozenSet, Tuple

#: levels of a finding: what such files need; any other import or call; what is known to run code that the file brings;
#: what the scan could not see
USUAL, UNKNOWN, RUNS_CODE, NOT_LOOKED_INTO = "usual", "unknown", "runs code", "not looked into"
LEVELS = (RUNS_CODE, UNKNOWN, NOT_LOOKED_INTO, USUAL)

#: opcodes that are walked in one file, with all that is nested in it; a snapshot of the official sizes has 1 % of them
STEPS = 3_000_000
#: bytes that are looked into, unpacked or computed in all, beside so many times the file: archives and words can be
#: named again and again, and archives be packed in archives
ROOM, TIMES = 1 << 29, 8
#: findings that are kept of a level, and parts of a file that are looked into
FINDINGS, PARTS = 1000, 100_000
#: characters of source that are parsed in all, which takes a second for a hundred thousand
CHARACTERS = 1 << 20
#: how deep files are looked for inside files
DEPTH = 8
#: characters of a name that are kept
LONGEST_NAME = 200


@dataclass(frozen=True)
class Finding:
    """One thing that a scan has seen.

    Attributes:
        level: "usual", "unknown", "runs code" or "not looked into".
        kind: "name" (an import, which may be called), "call" (of something else than a name), "source" (text that is
            run, or reads like Python), "data" (bytes, members of archives), "fact".
        what: the name, or words for it.
        why: what that means; may be empty.
        place: which part of the file: "" for the file itself, "data.pkl" for a member, "... > bytes at 12" inside.
        position: offset in bytes within that part, of the first; of source, its line.
        named, called: how often.
    """

    level: str
    kind: str
    what: str
    why: str = ""
    place: str = ""
    position: int = 0
    named: int = 1
    called: int = 0

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """Bytes inside a file that are to be looked into.

    Attributes:
        load: returns them; raises `Unreadable` where they cannot be had.
        form: what they are known to be ("pickle", "torch"), "" where their beginning has to tell.
        ids: whether a loader of torch's reads them, which brings tensors in by ids.
        required: whether bytes of no known form are worth a word.
        start: offset of a pickle in them, of which there can be several.
        again: whether they were looked into as something else before.
    """

    place: str
    load: Callable[[], memoryview]
    depth: int
    form: str = ""
    ids: bool = False
    required: bool = True
    start: int = 0
    again: bool = False


@dataclass(frozen=True)
class SourceText:
    """Where source text is, and {classes that are stored with it: None}."""

    place: str
    position: int
    classes: Dict[str, None]


class Unreadable(Exception):
    """Bytes of a part cannot be had; says why."""


class Exhausted(Exception):
    """The scan has taken as many steps as it may."""


class Notes:
    """Findings so far, parts that wait, and steps that are left.

    Args:
        steps: opcodes that may be walked.
        size: bytes of the file.
    """

    def __init__(self, steps: int = STEPS, size: int = 0) -> None:
        self.room = ROOM + TIMES * size
        self.findings: Dict[Tuple[str, str, str], Finding] = {}
        self.waiting: Deque[Part] = deque()
        self.steps = steps
        #: {source text: where it is}, of text that loading runs and of text that reads like Python
        self.sources: Dict[str, SourceText] = {}
        self.texts: Dict[str, SourceText] = {}
        self._levels: Counter[str] = Counter()
        self._parts = self._characters = 0

    def add(self, finding: Finding) -> None:
        """A finding, or one more of a kind that is there; the first one's place stays."""
        what = finding.what if len(finding.what) <= LONGEST_NAME else f"{finding.what[:LONGEST_NAME]}..."
        key = (finding.level, finding.kind, what)
        before = self.findings.get(key)
        if before is not None:
            named, called = before.named + finding.named, before.called + finding.called
            self.findings[key] = replace(before, named=named, called=called)
        elif self._levels[finding.level] < FINDINGS:
            self._levels[finding.level] += 1
            self.findings[key] = replace(finding, what=what)
        else:
            more = f"more than {FINDINGS:,} findings of the level {finding.level}"
            self.findings[NOT_LOOKED_INTO, "data", more] = Finding(NOT_LOOKED_INTO, "data", more)

    def gap(self, what: str, place: str, position: int = 0, why: str = "") -> None:
        """Something that could not be looked into."""
        self.add(Finding(NOT_LOOKED_INTO, "data", what, why, place, position))

    def wait(self, part: Part) -> None:
        """Look into a part later."""
        self._parts += 1
        if part.depth > DEPTH:
            self.gap(f"files nested more than {DEPTH} deep", part.place)
        elif self._parts > PARTS:
            self.gap(f"more than {PARTS:,} parts", part.place)
        else:
            self.waiting.append(part)

    def source(self, text: str, place: str, position: int, class_name: str) -> None:
        """SourceText that loading runs, of one class."""
        if text in self.sources or self._has_room_for(text):
            self.sources.setdefault(text, SourceText(place, position, {})).classes[class_name] = None
        else:
            self.gap("more source than is looked at", place, position)

    def text(self, text: str, place: str, position: int) -> None:
        """Text that reads like Python."""
        if text in self.texts or self._has_room_for(text):
            self.texts.setdefault(text, SourceText(place, position, {}))
        else:
            self.gap("more text that reads like source than is looked at", place, position)

    def _has_room_for(self, text: str) -> bool:
        self._characters += len(text)
        return self._characters <= CHARACTERS

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may be looked into, unpacked or computed."""
        self.room -= size
        return self.room >= 0

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise Exhausted


def words(text: str) -> FrozenSet[str]:
    """The words in a text."""
    return frozenset(text.split())


def within(place: str, what: str) -> str:
    """The place of something inside a part."""
    shown = what if len(what) <= LONGEST_NAME else f"{what[:LONGEST_NAME]}..."
    return f"{place} > {shown}" if place else shown
