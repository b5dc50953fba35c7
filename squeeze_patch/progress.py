"""What long work has in common: how it tells of its progress, and how many threads it takes."""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator

import torch

#: called with (what is being done, steps done, steps in all)
Progress = Callable[[str, int, int], None]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations: several threads gain nothing on them, and on a busy machine, waiting for each other,
    they multiply the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
