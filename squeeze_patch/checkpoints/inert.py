"""Pickles read without running anything that they name (`inert_writing` writes them back).

Python's own unpickler does the parsing: the faster one of C reserves what a file claims to need. It gets a closed list
of names. Tensors and arrays are rebuilt by functions of this module, which check sizes before they believe them;
classes of torch.nn and objects that hosts store become inert records (`adapters.records`); anything else is refused by
its name.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from typing import IO, Any, Callable, ClassVar, Dict, List, Optional, Tuple

import numpy as np
import torch

from squeeze_patch.adapters import adapters
from squeeze_patch.adapters.records import Global, Inert, InertDict, Record
from squeeze_patch.checkpoints.storages import (
    DTYPES,
    LEGACY,
    CarefulStream,
    Storage,
    Storages,
    load_legacy,
    storage_of,
)

#: names of classes that become inert: modules of torch, which hosts' discriminators hold
INERT_MODULES = ("torch.nn.modules.",)
#: modules of numpy's that have had the same functions, by release
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
#: modules that pickles up to protocol 2 call as Python 2 did
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
#: tensors of no more numbers than this may repeat values of a smaller storage
SMALL = 1 << 16
#: instances that may be made, and get attributes
PLAIN = (Inert, InertDict, Namespace)
#: what a file may make of itself beyond four times its size
GENEROUS = 1 << 24


class UnknownName(pickle.UnpicklingError):
    """The file names something that is not known to be harmless."""


_InPython: Any = pickle._Unpickler


def _with_checked_keys(step: Callable[[Any], None], keys: Callable[[List[Any]], List[Any]]) -> Callable[[Any], None]:
    """A step of the unpickler, behind a look at the keys that it takes off the stack."""

    def checked(unpickler: Any) -> None:
        _check_keys(keys(unpickler.stack))
        step(unpickler)

    return checked


class InertUnpickler(_InPython):  # type: ignore[misc]
    """Restricted to what this module knows."""

    dispatch: ClassVar[Dict[int, Any]] = dict(_InPython.dispatch)

    def __init__(self, stream: IO[bytes], storages: Optional[Storages] = None, size: Optional[int] = None) -> None:
        super().__init__(stream, encoding="latin1")
        self._found: Dict[Tuple[str, str], Any] = {}
        self._left = GENEROUS + 4 * (_size(stream) if size is None else size)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        module = _OF_PYTHON_2.get(module, module)
        if (module, name) not in self._found:
            self._found[module, name] = self.known(module, name)
        return self._found[module, name]

    def known(self, module: str, name: str) -> Any:
        """What a name becomes; `UnknownName` where it is not known to be harmless."""
        return _known(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise pickle.UnpicklingError("a reference to something outside of the pickle")
        return storage_of(pid, self._storages)

    def get_extension(self, code: int) -> Any:
        raise UnknownName(f"extension {code}")

    def load_build(self) -> None:
        """Attributes for inert instances only: classes and functions of this process must not get any."""
        state, inst = self.stack.pop(), self.stack[-1]
        if isinstance(inst, np.dtype):
            _check_byte_order(state)
        elif isinstance(inst, np.ndarray):
            inst.__setstate__(_checked_array(inst, state))
        elif isinstance(inst, OrderedDict):
            if not (isinstance(state, dict) and set(state) <= {"_metadata"}):
                raise UnknownName("attributes for an OrderedDict")
        elif isinstance(inst, PLAIN) and not isinstance(inst, Record) and isinstance(state, dict):
            if not all(isinstance(name, str) and not name.startswith("__") for name in state):
                raise UnknownName(f"attributes for a {type(inst).__name__}")
            vars(inst).update(state)
        else:
            raise UnknownName(f"attributes for a {type(inst).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        """Calls of what was named, and of nothing else that can be called; they make no more than the file is long."""
        args, function = self.stack.pop(), self.stack[-1]
        if not (any(function is known for known in self._found.values()) and isinstance(args, tuple)):
            raise UnknownName(f"a call of {type(function).__name__}")
        made = function(*args)
        self._spend(sum(len(each) for each in args if isinstance(each, (bytes, str, list, dict, tuple))))
        self._spend(made.numel() * made.element_size() if isinstance(made, torch.Tensor) else 1)
        self.stack[-1] = made

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("it makes more of its data than it holds")

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """New objects of inert classes."""
        args = self.stack.pop()
        self.append(_new(self.stack.pop(), *args))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_other_new(self) -> None:
        raise pickle.UnpicklingError("an object that is made in an unusual way")  # text files look so, too

    for opcode in (pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        dispatch[opcode[0]] = load_other_new

    for opcode, keys in (
        (pickle.SETITEM, lambda stack: stack[-2:-1]),
        (pickle.SETITEMS, lambda stack: stack[::2]),
        (pickle.DICT, lambda stack: stack[::2]),
        (pickle.ADDITEMS, lambda stack: stack),
        (pickle.FROZENSET, lambda stack: stack),
    ):
        dispatch[opcode[0]] = _with_checked_keys(dispatch[opcode[0]], keys)


def _size(stream: IO[bytes]) -> int:
    at = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    return size


def _check_keys(keys: Any) -> None:
    """Keys are numbers and words: the hash of nested tuples takes time without bound."""
    if not all(key is None or isinstance(key, (str, int, float, bytes)) for key in keys):
        raise UnknownName("keys that are neither numbers nor words")


def load(stream: IO[bytes]) -> Any:
    """What a pickle holds.

    Raises:
        UnknownName: it names something else than tensors, arrays, plain values, modules of torch, and the objects that
            a known family's pickles hold.
        pickle.UnpicklingError, EOFError, or another Exception: it is damaged.
    """
    size = _size(stream)
    careful: Any = CarefulStream(stream, size)
    return InertUnpickler(careful, size=size).load()


def _known(module: str, name: str) -> Any:
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    roles = [adapter.pickles for adapter in adapters() if adapter.pickles is not None]
    found = TENSOR_NAMES.get((module, name)) or next(filter(None, (role.known(module, name) for role in roles)), None)
    if found is None and f"{module}.".startswith(INERT_MODULES):
        found = inert_class(Global(module, name))
    if found is None:
        raise UnknownName(f"{module}.{name}"[:80])
    _origins.setdefault(id(found), (found, Global(module, name)))
    return found


#: {id of what a name became: (it, the name)}
_origins: Dict[int, Tuple[Any, Global]] = {}


def origin_of(value: Any) -> Optional[Global]:
    """The name in a pickle that became ``value``, None where none did."""
    known, origin = _origins.get(id(value), (None, None))
    return origin if known is value else None


@functools.cache
def inert_class(origin: Global) -> Any:
    """The class of instances of ``origin``."""
    return type(origin.name, (Inert,), {"origin": origin})


def _storage(data: Any) -> Any:
    if not (isinstance(data, bytes) and data.startswith(LEGACY)):  # the form in which torch nests them
        raise pickle.UnpicklingError("a tensor's storage is no storage")
    found = load_legacy(io.BytesIO(data), len(data), lambda stream, storages: InertUnpickler(stream, storages).load())
    if not isinstance(found, Storage):
        raise pickle.UnpicklingError("a tensor's storage is no storage")
    return found


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = (), *_: Any
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
    if hooks:
        raise UnknownName("hooks on a tensor")
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


def _check_byte_order(state: Any) -> None:
    """What follows a dtype in a pickle says its byte order, and nothing else."""
    usual = isinstance(state, tuple) and len(state) >= 8 and state[1] in ("<", "|", "=")
    if not (usual and state[2:5] == (None, None, None) and state[5:8] == (-1, -1, 0)):
        raise UnknownName("a numpy.dtype of something else than numbers, or of another byte order")


def _checked_array(array: Any, state: Any) -> Any:
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


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnknownName("_codecs.encode to something else than latin1")
    return text.encode("latin1")


def _ordered(*args: Any) -> Any:
    pairs: Any = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list):
        raise UnknownName("an OrderedDict of something else")
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise UnknownName("an OrderedDict of something else")
    _check_keys([key for key, _ in pairs])
    return OrderedDict(pairs)


def _bytes() -> bytes:
    """As empty ones are stored up to protocol 2."""
    return b""


def _set(items: Any = ()) -> Any:
    _check_keys(items)
    return set(items)


def _frozenset(items: Any = ()) -> Any:
    _check_keys(items)
    return frozenset(items)


def _torch_size(items: Any = ()) -> Any:
    return torch.Size([int(item) for item in items])


def _device(kind: Any, *index: Any) -> Any:
    if not (isinstance(kind, str) and len(kind) < 40):
        raise UnknownName("torch.device of something else")
    return torch.device(kind, *index)


def _new(cls: Any, *args: Any) -> Any:
    """copyreg's __newobj__ and, for a plain object, _reconstructor."""
    if not (isinstance(cls, type) and issubclass(cls, PLAIN)):
        raise UnknownName("a new object of a class that is not inert")
    return object.__new__(cls) if issubclass(cls, Inert) else cls()


#: {(module, name): what it becomes} of tensors, arrays and plain values
TENSOR_NAMES: Dict[Tuple[str, str], Any] = {
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _torch_size,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "bytes"): _bytes,
    ("builtins", "slice"): slice,
    ("builtins", "complex"): complex,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
    ("torch.storage", "UntypedStorage"): DTYPES["UntypedStorage"],
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): Global("numpy", "ndarray"),
    ("builtins", "object"): Global("builtins", "object"),
    ("_codecs", "encode"): _encoded,
    ("copyreg", "__newobj__"): _new,
    ("copyreg", "_reconstructor"): _new,
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_reconstruct"): _array for module in _NUMPY},
}
