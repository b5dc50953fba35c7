"""What a signal that ends a command leaves behind: nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any, Iterator, List, Tuple

#: of a scheduler, a time limit, a closed terminal; Windows has the first alone
SIGNALS = ("SIGTERM", "SIGHUP")
#: seconds for cleaning up, in which further signals change nothing: a closed terminal sends several
GRACE = 10.0


class Terminated(BaseException):
    """A signal ends this process. No SystemExit, which what is run for others (hosts' scripts, a repository's factory)
    may catch, and go on."""


@contextlib.contextmanager
def clean_termination() -> Iterator[None]:
    """Have signals that end the process remove temporary folders and unfinished files first, as Ctrl-C does.

    The process ends by the signal nevertheless: whoever sent it reads that from its status, and processes of a host's
    training end with it, for which Python would wait at a regular end. Signals that are ignored (nohup), or have a
    handler, are left to that.
    """
    owner = os.getpid()
    received: List[Tuple[int, float]] = []

    def stop(number: int, _frame: Any) -> None:
        if os.getpid() != owner:  # forked since, by a host's script: it has nothing of ours to clean up
            _end_by(number)
        if not received or time.monotonic() - received[0][1] > GRACE:
            received.append((number, time.monotonic()))
            raise Terminated(signal.Signals(number).name)

    ours = _handled(stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if received:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads, or it is closed
                    stream.flush()
            _end_by(received[0][0])


def _handled(stop: Any) -> List[int]:
    """The signals that have been given this handler: none outside of the main thread, which alone may do so."""
    ours: List[int] = []
    with contextlib.suppress(ValueError):
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)
                ours.append(number)
    return ours


def _end_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
