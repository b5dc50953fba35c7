"""Progress of a recovery: one line that is redrawn on a terminal, a line for every evaluation elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Optional, TextIO

from squeeze_patch.recovery.session import Step

#: least time between two redraws, in seconds
REDRAW = 0.2


class Line:
    """Callable as `squeeze_patch.recover`'s ``progress``; writes to ``stream``, by default stderr, as long as somebody
    reads there: hours of training do not end with a pipe."""

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self.stream: Optional[TextIO] = stream or sys.stderr  # None where stderr is closed
        self.terminal = self.stream is not None and self.stream.isatty()
        self.drawn = 0.0

    def __call__(self, step: Step) -> None:
        if step.resumed_at and not self.drawn:
            self._write(f"an earlier run is taken up at step {step.resumed_at}\n")
            self.drawn = time.monotonic() - REDRAW
        if self.terminal and (step.last or time.monotonic() - self.drawn >= REDRAW):
            self._write(f"\r{text(step)}\x1b[K" + ("\n" if step.last else ""))
            self.drawn = time.monotonic()
        elif not self.terminal and step.new:
            self._write(f"{text(step)}\n")

    def _write(self, words: str) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(words)
            self.stream.flush()
        except OSError:
            self.stream = None


def text(step: Step) -> str:
    """One line: steps, PSNR, loss, rate, remaining time."""
    seconds = step.seconds_per_step
    left = (step.steps - step.step) * seconds
    rate = f"{seconds:.1f} s/step" if seconds > 1 else f"{1 / max(seconds, 1e-9):.1f} steps/s"
    return (
        f"step {step.step}/{step.steps}  {step.evaluation.psnr:.2f} dB  loss {step.loss:.2e}  {rate}  "
        f"{duration(left)} left"
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
