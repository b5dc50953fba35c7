"""What long work has in common: how it tells of its progress, how many threads it takes, and that settings of torch
which the caller has for other work do not change it."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import torch

#: called with (what is being done, steps done, steps in all)
Progress = Callable[[str, int, int], None]
#: called after each step
Tell = Callable[[], None]


def nothing() -> None:
    """The `Tell` of callers who do not ask how far the work is."""


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Torch's own defaults for the length of a block, or of a function that this decorates: float32, tensors on the
    CPU, no autocast. What is computed does not depend on what the caller has set for other work."""
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if torch.empty(0).device.type != "cpu":
            cpu: Any = torch.device("cpu")  # a context since torch 2.0, as the default device is
            stack.enter_context(cpu)
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


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
