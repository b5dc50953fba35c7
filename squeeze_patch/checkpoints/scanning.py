"""What loading a file as its host does would import, call and run, said without doing it."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from squeeze_patch.adapters import pickle_families
from squeeze_patch.checkpoints.pickles import PathLike
from squeeze_patch.checkpoints.scanning_files import look_into
from squeeze_patch.checkpoints.scanning_findings import (
    LEVELS,
    NOT_LOOKED_INTO,
    RUNS_CODE,
    STEPS,
    UNKNOWN,
    USUAL,
    Exhausted,
    Finding,
    Notes,
    Part,
    SourceText,
)
from squeeze_patch.checkpoints.scanning_source import judge_source
from squeeze_patch.errors import CheckpointError
from squeeze_patch.progress import Progress

#: version of `Scan.to_dict`
SCHEMA = 1
#: names that a verdict says one by one
_SAID = 5
#: bytes of a file that are copied, and of one step of that
COPIED, _BLOCK = 1 << 30, 1 << 24


@dataclass(frozen=True)
class Scan:
    """What a scan has seen.

    Attributes:
        file: its path.
        form: what it is, "a pickle" for example.
        size: bytes.
        findings: the worst first; each has a ``level``, a ``kind``, and says ``what`` was seen, ``why`` it matters, at
            which ``position`` of which ``place``, and how often it is ``named`` and ``called``.
    """

    file: str
    form: str
    size: int
    findings: Tuple[Finding, ...]

    def of_level(self, level: str) -> List[Finding]:
        return [finding for finding in self.findings if finding.level == level]

    @property
    def unusual(self) -> bool:
        """Whether anything was seen that such files do not need."""
        return bool(self.of_level(RUNS_CODE) or self.of_level(UNKNOWN))

    @property
    def complete(self) -> bool:
        """Whether all of the file was looked into."""
        return not self.of_level(NOT_LOOKED_INTO)

    @property
    def verdict(self) -> str:
        """One line. It never says that a file is safe: it says what was seen, and what was not looked into."""
        return "; ".join([*_unusual_words(self), *_source_words(self), *_gap_words(self)])

    def to_dict(self) -> Dict[str, Any]:
        counts = Counter(finding.level for finding in self.findings)
        return {
            "schema": SCHEMA,
            "file": self.file,
            "form": self.form,
            "size": self.size,
            "unusual": self.unusual,
            "complete": self.complete,
            "verdict": self.verdict,
            "counts": {level: counts[level] for level in LEVELS},
            "findings": [finding.to_dict() for finding in self.findings],
        }


def scan(source: PathLike, progress: Optional[Progress] = None) -> Scan:
    """Say what loading a file as its host does (pickle.load, torch.load) would import, call and run.

    Nothing in the file is run, imported or believed. A scan knows names: what it calls usual is what such files need,
    and source that its host runs is judged by its imports and calls, which source can hide.

    Args:
        source: a file: a pickle, of torch.save, or an archive of them.
        progress: called with ("", bytes done, bytes in all).

    Returns:
        What was seen, with a verdict.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.

    Example:
        >>> from pathlib import Path
        >>> found = squeeze_patch.scan(Path(squeeze_patch.__file__).parent / "demo" / "weights.npz")
        >>> found.form, found.unusual, found.complete
        ('a zip archive', False, True)
        >>> found.verdict
        'names nothing but what such files need; looked into all of it'
    """
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(f"{path}: {'this is a folder' if path.is_dir() else 'there is no such file'}")
    try:
        view = _mapped(path)
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read ({error.strerror})") from error
    notes = Notes(size=len(view))
    form = ""
    notes.wait(Part("", lambda: view, 0))
    try:
        while notes.waiting:
            part = notes.waiting.popleft()
            found = look_into(part, notes, progress)
            form = form or found
    except Exhausted:
        notes.gap(f"what comes behind {STEPS:,} opcodes", "")
    if progress is not None:
        progress("", len(view), len(view))
    _judge_sources(notes)
    order = sorted(notes.findings.values(), key=lambda finding: (LEVELS.index(finding.level), -finding.called))
    return Scan(str(path), form or "a pickle", len(view), tuple(order))


def _mapped(path: Path) -> memoryview:
    """The bytes of a file: a copy, for one that is mapped and becomes shorter ends the process. Of a file too large for
    that a map all the same."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            return memoryview(b"")
        if size > COPIED:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        copy = memoryview(bytearray(size))
        done = 0
        while done < size:
            count = stream.readinto(copy[done : done + _BLOCK])
            if not count:
                break
            done += count
        return copy[:done].toreadonly()


def _judge_sources(notes: Notes) -> None:
    for text, source in notes.sources.items():
        what = f"source of {_listed(list(source.classes))}"
        _judge_text(notes, text, source, what)
        notes.add(Finding(USUAL, "source", what, _known_words(text), source.place, source.position))
    for text, source in notes.texts.items():
        if text not in notes.sources:
            _judge_text(notes, text, source, "text that reads like source")


def _judge_text(notes: Notes, text: str, source: SourceText, what: str) -> None:
    own = next((role.own_source() for role in pickle_families() if role.own_source() in text), "")
    oddities = judge_source(text, own)
    if oddities is None:
        if source.classes:
            why = "what it does cannot be told"
            notes.add(Finding(UNKNOWN, "source", f"{what}, which cannot be parsed", why, source.place, source.position))
        return
    for oddity in oddities if source.classes else [each for each in oddities if each.level == RUNS_CODE]:
        said = f"{what}: line {oddity.line} {oddity.what}"
        notes.add(Finding(oddity.level, "source", said, "", source.place, source.position))


def _known_words(text: str) -> str:
    """Of how many of its classes the text is known; of the rest of it nothing is."""
    own = next((role.own_source() for role in pickle_families() if role.own_source() in text), "")
    found = [role.known_definitions(text.replace(own, "\n") if own else text) for role in pickle_families()]
    known, others = max(found, key=lambda each: len(each[0]), default=([], []))
    if own and not (known or others):
        return "its host runs it; it is what squeeze_patch adds, to the letter"
    said = (
        f"its host runs it; the text of {len(known)} of its {len(known) + len(others)} classes and functions is known"
    )
    said += f", not that of {_listed(others)}" if others and known else ""
    return f"{said}; beside them it has what squeeze_patch adds" if own else said


def _unusual_words(found: Scan) -> List[str]:
    running, unknown = found.of_level(RUNS_CODE), found.of_level(UNKNOWN)
    words = []
    called = [each.what for each in running if each.kind == "name" and each.called]
    named = [each.what for each in running if each.kind == "name" and not each.called]
    sources = [each.what for each in running if each.kind == "source"]
    others = [each.what for each in running if each.kind not in ("name", "source")]
    words += [f"would call {_listed(called)} on loading"] if called else []
    words += [f"would import {_listed(named)} on loading"] if named else []
    words += [f"would run unusual source: {_listed(sources)}"] if sources else []
    words += [f"would do on loading: {_listed(others)}"] if others else []
    names = [each.what for each in unknown if each.kind == "name"]
    rest = [each.what for each in unknown if each.kind != "name"]
    if names:
        words.append(
            f"{len(names)} {'names' if len(names) > 1 else 'name'} that such files do not need: {_listed(names)}"
        )
    if rest:
        words.append(
            f"{len(rest)} {'things' if len(rest) > 1 else 'thing'} that such files do not have: {_listed(rest)}"
        )
    seen = found.complete or any(each.kind in ("name", "source", "fact") for each in found.of_level(USUAL))
    return words or ["names nothing but what such files need" if seen else "nothing was seen that would be run"]


def _source_words(found: Scan) -> List[str]:
    sources = [each.what for each in found.of_level(USUAL) if each.kind == "source"]
    return [f"embedded {_listed(sources)} would be run by its host"] if sources else []


def _gap_words(found: Scan) -> List[str]:
    gaps = [each.what for each in found.of_level(NOT_LOOKED_INTO)]
    return [f"not looked into: {_listed(gaps)}"] if gaps else ["looked into all of it"]


def _listed(words: List[str]) -> str:
    more = len(words) - _SAID
    return ", ".join(words[:_SAID]) + (f" and {more} more" if more > 0 else "")
