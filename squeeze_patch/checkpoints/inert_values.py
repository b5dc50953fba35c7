"""Tensors, arrays and plain values out of pickles, rebuilt by functions that believe no size and no kind that a file
claims, in the place of those that the pickles name.
"""

from __future__ import annotations

import math
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

import numpy as np
import torch

from squeeze_patch.adapters.records import Global, Inert, InertDict
from squeeze_patch.checkpoints.storages import DTYPES, Storage

#: modules of numpy's that have had the same functions, by release
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
#: tensors of no more numbers than this may repeat values of a smaller storage
SMALL = 1 << 16
#: instances that may be made, and get attributes
PLAIN = (Inert, InertDict, Namespace)


class UnknownName(pickle.UnpicklingError):
    """The file names something that is not known to be harmless.

    Attributes:
        named: modules of what it has named before.
    """

    named: Tuple[str, ...] = ()

    @classmethod
    def of(cls, module: str, name: str) -> UnknownName:
        """For a name in a file, whose words stay on one line."""
        return cls(" ".join(f"{module}.{name}".split())[:80])


@dataclass(frozen=True, eq=False)
class Known:
    """A function of ours in the place of one that a pickle names. It cannot be called by what a file holds; as a value
    it is only the name, and files of torch.save have none."""

    function: Callable[..., Any]
    origin: Global

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise pickle.PicklingError(f"the name {self.origin}, as a value")


def check_keys(keys: Any) -> None:
    """Keys are numbers and words: the hash of nested tuples takes time without bound; so do many NaNs up to Python 3.9,
    which have one hash and are all different."""
    if not all(key is None or isinstance(key, (str, bytes)) or _is_small(key) for key in keys):
        raise UnknownName("keys that are neither numbers nor words")


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = (),
    metadata: Any = None,
) -> torch.Tensor:
    """torch's _rebuild_tensor_v2, of what fits into its storage."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        raise pickle.UnpicklingError("a tensor of no size")
    if not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor of an impossible size")
    count, has = math.prod(size), storage.count
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else offset - 1
    if last >= has or (count > has and count > SMALL):
        raise pickle.UnpicklingError(f"a tensor of {count:,} numbers in a storage of {has:,}")
    if hooks or metadata:  # the latter says that the numbers stand for their negatives, or conjugates
        raise UnknownName("hooks on a tensor, or a tensor that is stored as another one's negative")
    tensor = torch.empty([0]) if storage.numbers is None else storage.numbers.as_strided(size, stride, offset)
    tensor = tensor.clone() if count < has else tensor  # written by itself it shall not bring the whole along
    return tensor.requires_grad_() if requires_grad else tensor


def _parameter(data: Any, requires_grad: Any, hooks: Any = ()) -> torch.nn.Parameter:
    if not isinstance(data, torch.Tensor) or hooks:
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return torch.nn.Parameter(data, bool(requires_grad))


def _dtype(code: Any, *_: Any) -> Any:
    if not (isinstance(code, str) and re.fullmatch(r"[<|=]?[biufc]\d{1,2}", code)):
        raise UnknownName("numpy.dtype of something else than numbers")
    return np.dtype(code)


def check_byte_order(state: Any) -> None:
    """What follows a dtype in a pickle says its byte order, and nothing else."""
    usual = isinstance(state, tuple) and len(state) >= 8 and state[1] in ("<", "|", "=")
    if not (usual and state[2:5] == (None, None, None) and state[5:8] == (-1, -1, 0)):
        raise UnknownName("a numpy.dtype of something else than numbers, or of another byte order")


def checked_array(array: Any, state: Any) -> Any:
    """An array's state, whose data are as long as its shape and type say."""
    good = isinstance(state, tuple) and len(state) == 5 and isinstance(state[1], tuple) and len(state[1]) <= 8
    if good:
        _, shape, dtype, _, raw = state
        good = isinstance(dtype, np.dtype) and dtype.kind in "biufc" and isinstance(raw, bytes) and array.size == 0
        good = good and all(isinstance(n, int) and n >= 0 for n in shape)
        good = good and math.prod(shape) * dtype.itemsize == len(raw)
    if not good:
        raise pickle.UnpicklingError("an array whose data do not fit its shape")
    return state


def _scalar(dtype: Any, data: Any = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not (isinstance(dtype, np.dtype) and isinstance(raw, bytes) and len(raw) == dtype.itemsize):
        raise pickle.UnpicklingError("a numpy scalar that is none")
    return np.frombuffer(raw, dtype=dtype, count=1)[0]


def _array(*_: Any) -> Any:
    """numpy's _reconstruct: an empty array, whose state follows."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encoded(text: Any, encoding: Any = None) -> bytes:
    """As bytes are stored up to protocol 2; without a codec it would be UTF-8, which nobody writes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnknownName("_codecs.encode to something else than latin1")
    return text.encode("latin1")


def _ordered(*args: Any) -> Any:
    pairs: Any = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list):
        raise UnknownName("an OrderedDict of something else")
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise UnknownName("an OrderedDict of something else")
    check_keys([key for key, _ in pairs])
    return OrderedDict(pairs)


def _bytes() -> bytes:
    """As empty ones are stored up to protocol 2."""
    return b""


def _set(items: Any = ()) -> Any:
    check_keys(_listed(items))
    return set(items)


def _frozenset(items: Any = ()) -> Any:
    check_keys(_listed(items))
    return frozenset(items)


def _listed(items: Any) -> Any:
    """What came as a list: to go through a tensor takes a hundred times as long, and it may repeat its numbers."""
    if not isinstance(items, (list, tuple)):
        raise UnknownName(f"the items of a {type(items).__name__}")
    return items


def _is_small(key: Any) -> bool:
    return (isinstance(key, float) and key == key) or (isinstance(key, int) and abs(key) < 1 << 64)


def _slice(*ends: Any) -> slice:
    return slice(*ends)


def _complex(*parts: Any) -> complex:
    return complex(*parts)


def _torch_size(items: Any = ()) -> Any:
    return torch.Size([int(item) for item in _listed(items)])


def _device(kind: Any, *index: Any) -> Any:
    if not (isinstance(kind, str) and len(kind) < 40):
        raise UnknownName("torch.device of something else")
    return torch.device(kind, *index)


def is_plain_class(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, PLAIN)


def new_object(cls: Any, *args: Any) -> Any:
    """copyreg's __newobj__ and, for a plain object, _reconstructor."""
    if not is_plain_class(cls) or any(arg is not None and not isinstance(arg, Global) for arg in args):
        raise UnknownName("a new object of a class that is not inert, or one that is made of something")
    return object.__new__(cls) if issubclass(cls, Inert) else cls()


#: {(module, name): what it becomes} of kinds of storages
STORAGE_NAMES: Dict[Tuple[str, str], Any] = {
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    ("torch.storage", "UntypedStorage"): DTYPES["UntypedStorage"],
}
#: {(module, name): what it becomes} of tensors, arrays and plain values
TENSOR_NAMES: Dict[Tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _torch_size,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "bytes"): _bytes,
    ("builtins", "slice"): _slice,
    ("builtins", "complex"): _complex,
    **STORAGE_NAMES,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): Global("numpy", "ndarray"),
    ("builtins", "object"): Global("builtins", "object"),
    ("_codecs", "encode"): _encoded,
    ("copyreg", "__newobj__"): new_object,
    ("copyreg", "_reconstructor"): new_object,
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_reconstruct"): _array for module in _NUMPY},
}
