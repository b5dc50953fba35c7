"""Trainings side by side: a process each, which all end in time or on Ctrl-C, their states saved."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from multiprocessing.connection import wait
from typing import Any, Callable, Deque, Dict, Generic, Iterator, List, Sequence, Tuple, TypeVar

import click

from squeeze_patch.errors import SqueezeError

T = TypeVar("T")
#: seconds that a process may take to end when its work is done
PARTING = 30
Stopped = Callable[[], bool]
#: does a job, reports what it likes to, and asks whether to stop; both it and the job are sent to other processes
Work = Callable[[T, Callable[[Any], None], Stopped], None]


@contextlib.contextmanager
def until(end: float, event: Any = None) -> Iterator[Stopped]:
    """Whether to stop: from the ``end`` on (`time.time`), or behind Ctrl-C, which ends nothing else in the block; a
    second one interrupts as ever.

    Args:
        event: set by Ctrl-C.
    """
    event = threading.Event() if event is None else event
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)
        click.echo("stopping: states are saved first; Ctrl-C again does not wait for it", err=True)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: event.is_set() or time.time() >= end
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


class SideBySide(Generic[T]):
    """Jobs at once, a new process each."""

    def __init__(self, work: Work[T], at_once: int, end: float) -> None:
        self.work, self.at_once, self.end = work, at_once, end
        self._spawn = multiprocessing.get_context("spawn")  # forked, CUDA and torch's threads would be missing

    def run(self, jobs: Sequence[T], show: Callable[[T, Any], None]) -> List[T]:
        """The jobs that failed; why stands on stderr. ``show`` gets what jobs report, as it comes."""
        event = self._spawn.Event()
        left: Deque[T] = deque(jobs)
        running: Dict[Any, Tuple[Any, T]] = {}
        failed: List[T] = []
        with until(self.end, event) as stopped, contextlib.ExitStack() as block:
            while running or (left and not stopped()):
                while left and len(running) < self.at_once and not stopped():
                    pipe, process = self._start(left[0], event)
                    block.callback(process.kill)  # where this block is left by an error
                    running[pipe] = process, left.popleft()
                for pipe in wait(list(running), 1.0):
                    process, job = running[pipe]
                    try:
                        show(job, pipe.recv())
                    except (EOFError, OSError):  # it has ended, or was ended in the middle of a report
                        process.join(PARTING)
                        if process.exitcode is None or process.exitcode < 0:
                            click.echo(
                                f"{job}: its process was killed ({process.exitcode}): by hand, or for memory", err=True
                            )
                        failed += [job] * (process.exitcode != 0)
                        del running[pipe]
        return failed

    def _start(self, job: T, event: Any) -> Tuple[Any, Any]:
        ours, theirs = self._spawn.Pipe(duplex=False)
        process = self._spawn.Process(target=_do, args=(self.work, job, theirs, event, self.end), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the process
        return ours, process


def _do(work: Work[T], job: T, pipe: Any, event: Any, end: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too; the other one sets the event
    try:
        work(job, pipe.send, lambda: event.is_set() or time.time() >= end)
    except Exception as error:
        click.echo(f"{job}: {words_of(error)}", err=True)
        raise SystemExit(1) from None


def words_of(error: Exception) -> str:
    """Of one that was raised on purpose its message, else where it came from, too."""
    if isinstance(error, (SqueezeError, click.ClickException, FloatingPointError)):
        return str(error)
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
