"""What a check is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional

import torch

from squeeze_patch.checks.baseline import Baseline, Recorded
from squeeze_patch.checks.config import CheckConfig
from squeeze_patch.checks.subjects import Subject, make_dense, make_subjects
from squeeze_patch.checks.tracing import Trace, tolerance_of, trace
from squeeze_patch.errors import ConfigError
from squeeze_patch.progress import Progress

RECORD = "squeeze-patch check --record"


@dataclass(frozen=True)
class Answer:
    """What a check answers: the fields of `outcome.Outcome` that it knows."""

    state: str
    found: str
    wanted: str = ""
    place: str = ""
    cure: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""


def holds(found: str, **more: Any) -> Answer:
    """All is as it should be."""
    return Answer("holds", found, **more)


def short(found: str, **more: Any) -> Answer:
    """It is not."""
    return Answer("short", found, **more)


def skipped(why: str, cure: str = "") -> Answer:
    """There is nothing to check here."""
    return Answer("skipped", why, cure=cure)


@dataclass
class Context:
    """All that checks look at; what is costly is made once.

    Attributes:
        config: the configuration.
        baseline: None where nothing was recorded.
        subjects: {name: generator}.
        progress: called with (what, done, in all) by checks that take long.
    """

    config: CheckConfig
    baseline: Optional[Baseline]
    subjects: Mapping[str, Subject]
    progress: Progress
    others: Dict[str, Subject] = field(default_factory=dict)
    traces: Dict[str, Trace] = field(default_factory=dict)
    dense: Dict[str, Optional[torch.nn.Module]] = field(default_factory=dict)

    def recorded(self, subject: Subject) -> Optional[Recorded]:
        """What the baseline has of a generator."""
        return None if self.baseline is None else self.baseline.generators.get(subject.name)

    def trace(self, subject: Subject) -> Trace:
        """One run of it, made once."""
        if subject.name not in self.traces:
            self.traces[subject.name] = trace(subject.found)
        return self.traces[subject.name]

    def anew(self, subject: Subject) -> Subject:
        """The same generator, made once more from the start; to be left as it is."""
        if not self.others:
            self.others.update(make_subjects(self.config))
        if subject.name not in self.others:
            raise ConfigError(
                f"[generator] made a generator {subject.name!r} at first, and now {', '.join(map(repr, self.others))}; "
                "have it make the same ones at every call"
            )
        return self.others[subject.name]

    def trained_dense(self, subject: Subject) -> Optional[torch.nn.Module]:
        """The dense generator that it came from, None where the configuration names none."""
        if subject.name not in self.dense:
            self.dense[subject.name] = make_dense(self.config, subject)
        return self.dense[subject.name]

    def tolerance(self, subject: Subject, asked: float) -> float:
        """Share of the peak: what was asked for, or, of 0, what float error makes at most."""
        return asked or tolerance_of(subject.found)


#: a check of one generator
Run = Callable[[Subject, Context, Mapping[str, Any]], Answer]


def not_recorded(context: Context) -> Answer:
    """A check without a record to hold it against: where the repository has a configuration, it is to have one."""
    words, cure = "nothing is recorded to hold it against", f"{RECORD} records it; commit the file"
    return Answer("unknown", words, cure=cure) if context.config.path.is_file() else skipped(words, cure)
