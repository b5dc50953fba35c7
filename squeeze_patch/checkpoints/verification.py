"""Whether two values out of files are the same, bit by bit: what was to be written, and what is read back."""

from __future__ import annotations

import argparse
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import torch

from squeeze_patch.adapters.records import Inert, Record

#: of nested tensors, from torch 2.1 on
_JAGGED = getattr(torch, "jagged", None)


def difference(a: Any, b: Any) -> str:
    """Where ``a`` and ``b`` first differ, "" where they do not: in numbers, words, shapes, or bits of tensors.

    Of objects of classes that are not known here, only the class is compared.
    """
    waiting: List[Tuple[str, Any, Any]] = [("", a, b)]
    seen = set()
    while waiting:
        where, one, other = waiting.pop()
        if (id(one), id(other)) in seen:
            continue
        seen.add((id(one), id(other)))
        first, second = _parts(one), _parts(other)
        if first is None or second is None:
            if not _equal(one, other):
                return where or "everything"
            continue
        alike = isinstance(one, torch.nn.Module) or type(one).__name__ == type(other).__name__
        # a squeezed generator's class has another name in a file; NaN as a key is another one than itself
        if [*map(repr, first)] != [*map(repr, second)] or not alike:
            return where or "its entries"
        waiting += [(f"{where}.{name}" if where else str(name), first[name], second[name]) for name in first]
    return ""


def _parts(value: Any) -> Any:
    """What a value holds, by name or number; None where it is a single one."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, Record):
        return value.meta
    if isinstance(value, torch.nn.Module):
        return dict(_of_module(value))
    return vars(value) if isinstance(value, (Inert, argparse.Namespace)) else None


def _of_module(module: torch.nn.Module) -> Iterator[Tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
    for name, part in module.named_modules():
        if hasattr(part, "squeeze_plan"):
            plan: Dict[str, Any] = part.squeeze_plan
            yield f"{name}.squeeze_plan", plan


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        alike = (a.shape, a.dtype, a.layout, a.device.type) == (b.shape, b.dtype, b.layout, b.device.type)
        if alike and (a.layout != torch.strided or a.is_meta):  # sparse, of other backends, without values
            return a.is_meta or a.layout == _JAGGED or torch.equal(_bits(a.to_dense()), _bits(b.to_dense()))
        return alike and torch.equal(_bits(a), _bits(b))
    if isinstance(a, (np.ndarray, np.generic)) and isinstance(b, (np.ndarray, np.generic)):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if type(a).__name__ != type(b).__name__:
        return False
    simple = isinstance(a, (str, bytes, int, float, complex, frozenset, set)) or a is None
    return not simple or a == b or (a != a and b != b)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """As whole numbers of the same bits, of which NaN equals itself: [n]."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.uint8}
    return flat.view(whole[flat.element_size()])
