"""Products of float32 in float32: torch may be told to take TF32 or bfloat16 for them, on GPUs and, by oneDNN, on CPUs.

Torch before 2.9 has one setting for products (``set_float32_matmul_precision``) and ``allow_tf32`` for cuDNN. Since
then there is a ``fp32_precision`` for each backend and operation, which the older settings write, too; the older ones
cannot be read any more (`RuntimeError`) where the newer ones say something else.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch

from squeeze_patch.process_settings import ProcessSetting, Undo

#: operations of the two kinds of device, as `torch.backends` names them; the older settings of GPUs change oneDNN's
_OPERATIONS: Dict[str, Tuple[Tuple[str, str], ...]] = {
    "cpu": (("mkldnn", "matmul"), ("mkldnn", "conv")),
    "cuda": (("cuda", "matmul"), ("cudnn", "conv"), ("mkldnn", "matmul"), ("mkldnn", "conv")),
}
_FULL = ("ieee", "none")


@contextlib.contextmanager
def full_precision(cuda: bool = False) -> Iterator[None]:
    """Products and convolutions of float32 in float32 for the length of a block; the caller's settings afterwards.

    Args:
        cuda: on GPUs, too, where TF32 is torch's own default for convolutions.
    """
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda") if cuda else ("cpu",):
            stack.enter_context(_FULL_PRECISION[kind].held())
        yield


@contextlib.contextmanager
def precision_stays() -> Iterator[None]:
    """What is set for products and convolutions within the block ends with it, also inside of `full_precision`."""
    operations = [*_operations("cpu"), *_operations("cuda")]
    products = convolutions = None
    with contextlib.suppress(RuntimeError):  # the newer settings are in use, and say it all
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        if products is not None and convolutions is not None:
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions
        for operation, value in operations:
            _set(operation, value)


def autocast_dtype(kind: str) -> Optional[torch.dtype]:
    """What autocast computes in on a kind of device ("cpu", "cuda") here and now; None where it is off."""
    old: Any = torch  # before 2.4 there are functions for each of the two kinds
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == "cpu":
        return old.get_autocast_cpu_dtype() if old.is_autocast_cpu_enabled() else None
    return old.get_autocast_gpu_dtype() if old.is_autocast_enabled() else None


def _raise_precision(kind: str) -> Undo:
    operations = _operations(kind)
    undo: List[Undo] = []  # in this order: the older settings write the newer ones
    if kind == "cuda" or not operations:
        undo.extend(_raise_older_settings("highest" if kind == "cuda" else "high"))
    for operation, value in operations:
        if operation.fp32_precision not in _FULL:
            operation.fp32_precision = "ieee"
        undo.append(functools.partial(_set, operation, value))

    def undo_all() -> None:
        for each in undo:
            each()

    return undo_all


def _operations(kind: str) -> List[Tuple[Any, str]]:
    """(operation, its precision) of all that this torch has."""
    found: List[Tuple[Any, str]] = []
    for backend, name in _OPERATIONS[kind]:
        operation: Any = getattr(getattr(torch.backends, backend, None), name, None)
        with contextlib.suppress(AttributeError, AssertionError):  # torch 1.13 asserts the names that it knows
            found.append((operation, operation.fp32_precision))
    return found


def _set(operation: Any, value: str) -> None:
    """An operation without a precision of its own takes its backend's: left so, where that comes to the same."""
    if operation.fp32_precision != value:
        operation.fp32_precision = "none"
    if operation.fp32_precision != value:
        operation.fp32_precision = value


def _raise_older_settings(least: str) -> List[Undo]:
    """``least``: "high" leaves TF32 and ends bfloat16, which is all that torch before 2.9 has on a CPU."""
    try:
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the newer settings are in use, and say it all
        return []
    undo: List[Undo] = []
    if products not in ("highest", least):
        torch.set_float32_matmul_precision(least)
        undo.append(lambda: torch.set_float32_matmul_precision(products))
    if least == "highest":
        torch.backends.cudnn.allow_tf32 = False
        undo.append(lambda: setattr(torch.backends.cudnn, "allow_tf32", convolutions))
    return undo


_FULL_PRECISION = {kind: ProcessSetting(functools.partial(_raise_precision, kind)) for kind in _OPERATIONS}
