"""How commands tell of long work where stderr is no terminal: a line at the start, and one now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Optional, TextIO

from squeeze_patch.cli.errors import printable
from squeeze_patch.recovery.progress_line import duration

LONG = "this takes up to minutes on few cores"
#: seconds to the first line about steps, and from one to the next
FIRST, EVERY = 10.0, 30.0


class LogLines:
    """Callable as `squeeze_patch.progress.Progress`; writes to stderr as long as somebody reads there.

    Args:
        label: what is being done.
        unit: steps that count as one.
        announced: work that says that it begins (with zero steps done) takes up to minutes, which is told at once.
    """

    def __init__(self, label: str, unit: int = 1, announced: bool = False) -> None:
        self.label, self.unit, self.announced = label, unit, announced
        self.stream: Optional[TextIO] = sys.stderr  # None where it is closed
        self.next = time.monotonic() + FIRST
        self.begun, self.done, self.total = time.monotonic(), 0, 0  # of the present work, by its number of steps

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total != self.total or done < self.done:
            self.begun, self.total = now, total
        self.done = done
        if self.announced and done == 0:
            self.announced = False
            self._write(f"{self.label}: {LONG}")
        elif now >= self.next:
            self.next = now + EVERY
            steps = f"{done // self.unit} of {total // self.unit}" if total else str(done // self.unit)
            left = f", about {duration((now - self.begun) / done * (total - done))} left" if 0 < done < total else ""
            self._write(f"{self.label}: {f'{printable(what)}, ' if what else ''}{steps}{left}")

    def _write(self, words: str) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(f"{words}\n")
            self.stream.flush()
        except OSError:  # nobody reads any more; what waits there must not fail again when Python ends
            self.stream = None
            with contextlib.suppress(OSError, AttributeError):
                sys.stderr.close()
                sys.stderr = None  # type: ignore[assignment]
