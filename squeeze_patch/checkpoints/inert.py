"""Pickles read without running anything that they name, and written back.

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
from collections import OrderedDict
from typing import IO, Any, Callable, ClassVar, Dict, Tuple

import numpy as np
import torch

from squeeze_patch.adapters import adapters
from squeeze_patch.adapters.records import Global, Inert, InertDict, Record
from squeeze_patch.checkpoints.tensor_files import reading_options

#: names of classes that become inert: modules of torch, which hosts' discriminators hold
INERT_MODULES = ("torch.nn.modules.",)
#: modules of numpy's that have had the same functions, by release
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
#: tensors of no more numbers than this may repeat values of a smaller storage
SMALL = 1 << 16


class UnknownName(pickle.UnpicklingError):
    """The file names something that is not known to be harmless."""


_InPython: Any = pickle._Unpickler
_PicklerInPython: Any = pickle._Pickler


class InertUnpickler(_InPython):  # type: ignore[misc]
    """Restricted to what this module knows."""

    dispatch: ClassVar[Dict[int, Any]] = dict(_InPython.dispatch)

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="latin1")
        self._found: Dict[Tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._found:
            self._found[module, name] = _known(module, name)
        return self._found[module, name]

    def get_extension(self, code: int) -> Any:
        raise UnknownName(f"extension {code}")

    def load_build(self) -> None:
        """Attributes for instances only: classes and functions of this process must not get any."""
        inst = self.stack[-2]
        if not isinstance(inst, (Inert, InertDict, OrderedDict, np.ndarray, np.dtype)):
            raise UnknownName(f"attributes for a {type(inst).__name__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        """Calls of what was named, and of nothing else that can be called."""
        if not any(self.stack[-2] is known for known in self._found.values()):
            raise UnknownName(f"a call of {type(self.stack[-2]).__name__}")
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """New objects of inert classes."""
        args = self.stack.pop()
        self.append(_new(self.stack.pop(), *args))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_other_new(self) -> None:
        raise UnknownName("an object that is made in an unusual way")

    for opcode in (pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ):
        dispatch[opcode[0]] = load_other_new


def load(stream: IO[bytes]) -> Any:
    """What a pickle holds.

    Raises:
        UnknownName: it names something else than tensors, arrays, plain values, modules of torch, and the objects that
            a known family's pickles hold.
        pickle.UnpicklingError, EOFError, or another Exception: it is damaged.
    """
    with reading_options():
        return InertUnpickler(stream).load()


def _known(module: str, name: str) -> Any:
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    found = _FUNCTIONS.get((module, name))
    if found is not None:
        return found
    for adapter in adapters():
        found = adapter.pickles.known(module, name) if adapter.pickles is not None else None
        if found is not None:
            return found
    if f"{module}.".startswith(INERT_MODULES):
        return inert_class(Global(module, name))
    raise UnknownName(f"{module}.{name}")


@functools.cache
def inert_class(origin: Global) -> Any:
    """The class of instances of ``origin``."""
    return type(origin.name, (Inert,), {"origin": origin})


def _storage(data: bytes) -> Any:
    found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not hasattr(found, "dtype") or isinstance(found, torch.Tensor):
        raise pickle.UnpicklingError("a tensor's storage is no storage")
    return found


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = (), *_: Any
) -> torch.Tensor:
    """torch's _rebuild_tensor_v2, of what fits into its storage."""
    if not (len(size) == len(stride) and all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride))):
        raise pickle.UnpicklingError(f"a tensor of size {size!r} and stride {stride!r}")
    count, has = math.prod(size), getattr(storage, "_size", storage.size)()
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else offset - 1
    if last >= has or (count > has and count > SMALL):
        raise pickle.UnpicklingError(f"a tensor of {count:,} numbers in a storage of {has:,}")
    if hooks:
        raise UnknownName("hooks on a tensor")
    untyped: Any = torch._utils
    tensor: torch.Tensor = untyped._rebuild_tensor(storage, offset, tuple(size), tuple(stride))
    return tensor.requires_grad_() if requires_grad else tensor


def _parameter(data: Any, requires_grad: Any, hooks: Any = ()) -> torch.nn.Parameter:
    if not isinstance(data, torch.Tensor) or hooks:
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return torch.nn.Parameter(data, bool(requires_grad))


def _dtype(code: Any, *_: Any) -> Any:
    found = np.dtype(code) if isinstance(code, str) else None
    if found is None or found.hasobject:
        raise UnknownName(f"numpy.dtype {code!r}")
    return found


def _scalar(dtype: Any, data: Any = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(dtype, np.dtype) or dtype.hasobject or len(raw) != dtype.itemsize:
        raise pickle.UnpicklingError("a numpy scalar that is none")
    return np.frombuffer(raw, dtype=dtype, count=1)[0]


def _array(*_: Any) -> Any:
    """numpy's _reconstruct: an empty array, whose state follows."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnknownName(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _new(cls: Any, *args: Any) -> Any:
    """copyreg's __newobj__ and, for a plain object, _reconstructor."""
    if not (isinstance(cls, type) and issubclass(cls, (Inert, InertDict))):
        raise UnknownName(f"a new {cls!r}")
    return object.__new__(cls) if issubclass(cls, Inert) else cls()


_FUNCTIONS: Dict[Tuple[str, str], Any] = {
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "slice"): slice,
    ("builtins", "complex"): complex,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): Global("numpy", "ndarray"),
    ("builtins", "object"): Global("builtins", "object"),
    ("_codecs", "encode"): _encoded,
    ("copyreg", "__newobj__"): _new,
    ("copyreg", "_reconstructor"): _new,
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_reconstruct"): _array for module in _NUMPY},
}


class InertPickler(_PicklerInPython):  # type: ignore[misc]
    """Writes inert values as what they were read from."""

    dispatch: ClassVar[Dict[Any, Callable[..., None]]] = dict(_PicklerInPython.dispatch)

    def save(self, obj: Any, *options: Any, **named: Any) -> None:
        if isinstance(obj, (Global, Inert, InertDict)) and self.memo.get(id(obj)) is None:
            self._save_inert(obj)
            return
        super().save(obj, *options, **named)

    def _save_inert(self, obj: Any) -> None:
        if isinstance(obj, Global):
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
            self.memoize(obj)
        elif isinstance(obj, Record):
            self.save(obj.rebuild)
            self.save((obj.meta,))
            if id(obj) in self.memo:  # it is in its own argument
                raise RecursionError("an object that holds itself")
            self.write(pickle.REDUCE)
            self.memoize(obj)
        else:
            self.save(obj.origin)
            self.save(())
            self.write(pickle.NEWOBJ)
            self.memoize(obj)
            if isinstance(obj, InertDict):
                self._batch_setitems(obj.items())
            if vars(obj):
                self.save(vars(obj))
                self.write(pickle.BUILD)


def dump(data: Any, stream: IO[bytes], protocol: int) -> None:
    """Write what `load` returned."""
    InertPickler(stream, protocol).dump(data)
