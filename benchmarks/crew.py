"""Processes that prepare themselves, and then do jobs, one after another each, for so long."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Callable, ContextManager, Deque, Dict, Iterator, List, Sequence

import click

#: what a job finds; it has to be known by its name in its module, as it is sent to other processes
Job = Callable[[str], Dict[str, Any]]
Prepare = Callable[[Path], Job]


def crew(
    prepare: Prepare,
    jobs: Sequence[str],
    folder: Path,
    *,
    workers: int,
    seconds: float,
    meanwhile: Callable[[], ContextManager[None]],
) -> Iterator[Dict[str, Any]]:
    """What the jobs find, in the order in which they end.

    Args:
        prepare: called once in each process, with a folder of its own in ``folder``: the function that does a job.
        workers: processes.
        seconds: nothing is prepared and no job done for longer in all. No job begins that would not end in time, as
            far as the longest before says; one that is still at work then is ended, and that is said on stderr.
        meanwhile: of a block that is entered when all are prepared, and left behind the last job.

    Raises:
        ClickException: no process is prepared, or none is left, and jobs are.
    """
    end, left = time.monotonic() + seconds, deque(jobs)
    with contextlib.ExitStack() as block:
        folders = [folder / str(index) for index in range(min(workers, len(jobs)))]
        started = [block.enter_context(_process(prepare, each)) for each in folders]
        ready = [pipe for pipe in started if _prepared(pipe, end)]
        if jobs and not ready:
            raise click.ClickException("no process was prepared; what they said stands above, if it was not the time")
        block.enter_context(meanwhile())
        yield from _done(ready, left, end)


@contextlib.contextmanager
def _process(prepare: Prepare, folder: Path) -> Iterator[Any]:
    """Our end of the pipe to a new process, which is ended behind the block."""
    folder.mkdir()
    spawn = multiprocessing.get_context("spawn")  # forked, torch's threads would be missing
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_work, args=(prepare, folder, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(prepare: Prepare, folder: Path, pipe: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too; the other one ends it
    job = prepare(folder)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other one is gone
        pipe.send(None)
        while True:
            pipe.send(job(pipe.recv()))


def _prepared(pipe: Any, end: float) -> bool:
    if not pipe.poll(max(0.0, end - time.monotonic())):
        return False
    with contextlib.suppress(EOFError):  # it stopped, and said why
        pipe.recv()
        return True
    return False


def _done(free: List[Any], left: Deque[str], end: float) -> Iterator[Dict[str, Any]]:
    begun: Dict[Any, float] = {}
    longest = 0.0
    while True:
        for pipe in free:
            if left and time.monotonic() + longest < end:
                begun[pipe] = time.monotonic()
                pipe.send(left.popleft())
        free = wait(list(begun), max(0.0, end - time.monotonic())) if begun else []
        if not free:
            if begun:
                click.echo(f"{len(begun)} left out: still at work when the time was over", err=True)
            return
        for pipe in list(free):
            longest = max(longest, time.monotonic() - begun.pop(pipe))
            try:
                yield pipe.recv()
            except (EOFError, OSError):
                click.echo("a process stopped in the middle of its job, which is left out", err=True)
                free.remove(pipe)
        if left and not (free or begun):
            raise click.ClickException(f"no process is left for {len(left)} jobs")
