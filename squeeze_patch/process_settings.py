"""Settings that belong to the process, while blocks hold them in several threads at a time."""

from __future__ import annotations

import contextlib
import threading
from typing import Callable, Iterator

import torch

Undo = Callable[[], None]
#: torch's random numbers, its number of threads and its TF32 belong to the process: two threads would mix them up
ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def random_kept() -> Iterator[None]:
    """Torch's random numbers of the CPU are afterwards where they were: the caller's are for other work."""
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        yield


@contextlib.contextmanager
def random_from(seed: int, cuda: bool) -> Iterator[None]:
    """Torch's random numbers begin at ``seed``, and are afterwards where they were; on CUDA, too, where ``cuda`` says
    that it is used. `torch.manual_seed` would reseed all devices, also those whose numbers nobody keeps."""
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield


class ProcessSetting:
    """A setting that blocks change for their length: the last one of them gives the caller's back. Each by itself would
    give back what another one had set, which would then stay.

    Args:
        change: makes the change, and returns what undoes it.
    """

    def __init__(self, change: Callable[[], Undo]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._blocks = 0
        self._undo: Undo = lambda: None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            undo = self._change()  # also by later blocks, between which it may have been changed
            if not self._blocks:
                self._undo = undo
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._undo()
