"""What long work has in common: how it tells of its progress, how many threads it takes, and that settings of torch
which the caller has for other work do not change it."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any, Callable, Iterator, List

import torch

from squeeze_patch.precision import full_precision

#: torch's default dtype belongs to the process: what the caller had, and then one entry for each block of
#: `own_settings` that began before it was over
_DTYPES: List[torch.dtype] = []
_DTYPES_LOCK = threading.Lock()

#: called with (what is being done, steps done, steps in all)
Progress = Callable[[str, int, int], None]
#: called after each step
Tell = Callable[[], None]


def nothing() -> None:
    """The `Tell` of callers who do not ask how far the work is."""


@contextlib.contextmanager
def own_settings(eager: bool = False) -> Iterator[None]:
    """Torch's own defaults for the length of a block, or of a function that this decorates: float32, on CPUs in full
    precision, tensors on the CPU, no autocast. What is computed does not depend on what the caller has set for other
    work.

    Args:
        eager: what the caller has compiled runs as it was before. It would be compiled anew for every block that is
            exchanged on trial, up to torch's limit, beyond which it is compiled no more.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(full_precision())
        if torch.empty(0).device.type != "cpu":
            cpu: Any = torch.device("cpu")  # a context since torch 2.0, as the default device is
            stack.enter_context(cpu)
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_float32_by_default())
        compiler: Any = getattr(torch, "compiler", None)
        if eager and "torch._dynamo" in sys.modules and hasattr(compiler, "set_stance"):  # from torch 2.6 on
            stack.enter_context(compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def _float32_by_default() -> Iterator[None]:
    """Of several blocks at a time, in threads, the last one gives the caller's default back: each by itself would give
    back what another one had set."""
    with _DTYPES_LOCK:
        _DTYPES.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _DTYPES_LOCK:
            dtype = _DTYPES.pop()  # the caller's is the first one in, and so the last one out
            if not _DTYPES:
                torch.set_default_dtype(dtype)


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
