"""What checks found: an outcome each, and all of them together."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Mapping, Tuple

#: states of an outcome, and how a table shows them; "unknown" = the check could not be run
STATES: Mapping[str, str] = {"holds": "ok", "short": "FAIL", "unknown": "ERROR", "skipped": "skip"}


@dataclass(frozen=True)
class Outcome:
    """What one check found of one generator.

    Attributes:
        check: name of the check.
        group: of checks that it belongs to.
        state: "holds"; "short" = falls short of what was asked for; "unknown" = could not be run; "skipped".
        found: what was measured, in words.
        wanted: what was asked for, in words; of a skipped check, "".
        subject: name of the generator among several, "" = the only one.
        place: the tensor, layer or block where it falls short, "" = none in particular.
        cure: what to do about it.
        seconds: that it took.
        figures: what was measured, as plain numbers, strings and lists.
        picture: path of a picture that shows it, "" = none.
    """

    check: str
    group: str
    state: str
    found: str
    wanted: str = ""
    subject: str = ""
    place: str = ""
    cure: str = ""
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""

    @property
    def name(self) -> str:
        """Of the check and, among several generators, of the one that it was run on: "images[G_ema]"."""
        return plain(f"{self.check}[{self.subject}]") if self.subject else self.check

    @property
    def message(self) -> str:
        """What was found, where, what was wanted and what to do about it, in one line."""
        words = [f"{self.place}: {self.found}" if self.place else self.found]
        words += [f"wanted {self.wanted}"] if self.wanted and self.state in ("short", "unknown") else []
        words += [self.cure] if self.cure and self.state != "holds" else []
        words += [f"picture: {self.picture}"] if self.picture else []
        return plain("; ".join(words))


@dataclass(frozen=True)
class CheckReport:
    """What `squeeze_patch.check` found; prints as a table.

    Attributes:
        outcomes: one a check and generator, in the order in which they ran.
        config: path of the configuration, as it was given.
        baseline: path of the baseline, "" where there is none.
        versions: of squeeze_patch, torch and others, by name.
    """

    outcomes: Tuple[Outcome, ...]
    config: str
    baseline: str
    versions: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """Whether no check fell short, and all of them could be run."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0 = all hold, 1 = some fall short, 2 = none does, but some could not be run."""
        states = {outcome.state for outcome in self.outcomes}
        return 1 if "short" in states else 2 if "unknown" in states else 0

    def count(self, state: str) -> int:
        """Outcomes of that state."""
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def summary(self) -> str:
        """One line: how many hold, fall short, could not be run, were skipped."""
        words = {
            "holds": "hold",
            "short": "fall short" if self.count("short") != 1 else "falls short",
            "unknown": "could not be run",
            "skipped": "skipped",
        }
        counted = [f"{self.count(state)} {word}" for state, word in words.items() if self.count(state)]
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        return f"{', '.join(counted) or 'no checks'}, in {seconds:.0f} s"

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts for JSON, which has no infinity and no NaN: there, None."""
        outcomes = [
            {**asdict(outcome), "figures": _strict(outcome.figures), "name": outcome.name} for outcome in self.outcomes
        ]
        return {
            "outcomes": outcomes,
            "config": self.config,
            "baseline": self.baseline,
            "versions": dict(self.versions),
            "exit_code": self.exit_code,
        }

    def __str__(self) -> str:
        width = max((len(outcome.name) for outcome in self.outcomes), default=0)
        lines = []
        group = ""
        for outcome in self.outcomes:
            if outcome.group != group:
                group = outcome.group
                lines.append(group)
            lines.append(f"  {STATES[outcome.state]:<5} {outcome.name:<{width}}  {outcome.message}")
        return "\n".join([*lines, self.summary])


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(words: str) -> str:
    """In one line, without characters that steer a terminal: words of files and of the repository's code."""
    line = " ".join(words.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
