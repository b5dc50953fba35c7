"""What long work has in common: how it tells of its progress, how many threads it takes, and that settings of torch
which the caller has for other work do not change it."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from typing import Any, Callable, Iterator, List

import torch

from squeeze_patch.precision import full_precision
from squeeze_patch.process_settings import ProcessSetting, Undo

#: torch's number of threads as it was, an entry for each Python thread that is in a block of `one_thread`. Unlike a
#: `ProcessSetting` each of them gives it back: with OpenMP every thread has a number of its own
_THREADS: List[int] = []
_THREADS_LOCK = threading.Lock()
#: whether this Python thread is in one
_INSIDE = threading.local()

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
        stack.enter_context(_DTYPE.held())
        stances = hasattr(getattr(torch, "compiler", None), "set_stance")  # from torch 2.6 on
        if eager and stances and "torch._dynamo" in sys.modules:
            stack.enter_context(_STANCE.held())
        yield


def _float32_by_default() -> Undo:
    undo = functools.partial(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    return undo


def _compiled_as_before() -> Undo:
    compiler: Any = torch.compiler
    return functools.partial(compiler.set_stance("force_eager").__exit__, None, None, None)


_DTYPE, _STANCE = ProcessSetting(_float32_by_default), ProcessSetting(_compiled_as_before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations: several threads gain nothing on them, and on a busy machine, waiting for each other,
    they multiply the time. Blocks in several Python threads at a time all give back what the first of them found."""
    is_inner = getattr(_INSIDE, "one_thread", False)  # of another block in this Python thread
    with _THREADS_LOCK:
        threads = torch.get_num_threads() if is_inner or not _THREADS else _THREADS[0]
        if not is_inner:
            _THREADS.append(threads)
    _INSIDE.one_thread = True
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _INSIDE.one_thread = is_inner
        with _THREADS_LOCK:
            if not is_inner:
                _THREADS.pop()
            torch.set_num_threads(threads)
