"""What stands in for work that takes long, in processes of its own; they import neither torch nor the library."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict


class Clean:
    """As `benchmarks.checks_reruns.Clean`; the second run in its folder gives an alarm."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, 0

    def __call__(self, family: str) -> Dict[str, Any]:
        self.calls += 1
        alarms = ["latency"] if self.calls == 2 else []
        messages = [f"{self.folder.name} is slow"] * len(alarms)
        return {"family": family, "seconds": 0.1, "holds": 20 - len(alarms), "alarms": alarms, "messages": messages}


class Endless(Clean):
    """The second job of a process takes longer than anybody waits."""

    def __call__(self, family: str) -> Dict[str, Any]:
        found = super().__call__(family)
        time.sleep(0 if self.calls == 1 else 600)
        return found


class Killed(Clean):
    """A process is killed in the middle of its second job."""

    def __call__(self, family: str) -> Dict[str, Any]:
        found = super().__call__(family)
        if self.calls == 2:
            os._exit(1)
        return found


class Broken:
    """What cannot be prepared."""

    def __init__(self, folder: Path) -> None:
        raise OSError(folder)


def fail_at_two(job: int, send: Callable[[Any], None], stopped: Callable[[], bool]) -> None:
    if job == 2:
        raise ValueError("two")
    send(10 * job)


def killed_at_two(job: int, send: Callable[[Any], None], stopped: Callable[[], bool]) -> None:
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def work_until_stopped(job: int, send: Callable[[Any], None], stopped: Callable[[], bool]) -> None:
    send("begun")
    while not stopped():
        time.sleep(0.01)
    send("stopped")
