"""Pickles read without running anything that they name (`inert_writing` writes them back).

Python's own unpickler does the parsing: the faster one of C reserves what a file claims to need. It gets a closed list
of names. Tensors and arrays are rebuilt by functions of `inert_values`, which check sizes before they believe them;
classes of torch.nn and objects that hosts store become inert records (`adapters.records`); anything else is refused by
its name.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from argparse import Namespace
from collections import OrderedDict
from typing import IO, Any, Callable, ClassVar, Dict, List, Optional, Tuple

import numpy as np
import torch

from squeeze_patch.adapters import pickle_families
from squeeze_patch.adapters.records import Global, Inert, InertDict, Record
from squeeze_patch.checkpoints.inert_sharing import check_sharing
from squeeze_patch.checkpoints.inert_values import (
    PLAIN,
    STORAGE_NAMES,
    TENSOR_NAMES,
    Known,
    UnknownName,
    check_byte_order,
    check_keys,
    checked_array,
    is_plain_class,
    new_object,
)
from squeeze_patch.checkpoints.storages import (
    GENEROUS,
    LEGACY,
    CarefulStream,
    Storage,
    Storages,
    load_legacy,
    storage_of,
)

#: names of classes that become inert: modules of torch, which hosts' discriminators hold
INERT_MODULES = ("torch.nn.modules.",)
#: what an object that is called for counts for, in bytes, beside what is in it
OBJECT = 128
#: the same of an empty list, dict or set
CONTAINER = 64
#: a file of the official sizes names some dozen
MOST_NAMES = 4096
#: modules that pickles up to protocol 2 call as Python 2 did
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


_InPython: Any = pickle._Unpickler


def _with_checked_keys(step: Callable[[Any], None], keys: Callable[[List[Any]], List[Any]]) -> Callable[[Any], None]:
    """A step of the unpickler, behind a look at the keys that it takes off the stack."""

    def checked(unpickler: Any) -> None:
        check_keys(keys(unpickler.stack))
        step(unpickler)

    return checked


def _on_kind(step: Callable[[Any], None], kind: type, target: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A step of the unpickler that puts something into what is of one kind: Python looks up a method by its name."""

    def checked(unpickler: Any) -> None:
        into = target(unpickler)
        if not isinstance(into, kind):
            raise UnknownName(f"something put into a {type(into).__name__}")
        step(unpickler)

    return checked


def _behind_mark(unpickler: Any) -> Any:
    """What stands under the last mark."""
    return unpickler.metastack[-1][-1]


def _paid(step: Callable[[Any], None]) -> Callable[[Any], None]:
    """A step of the unpickler that makes a container."""

    def paid(unpickler: Any) -> None:
        unpickler._spend(CONTAINER)
        step(unpickler)

    return paid


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
            if len(self._found) >= MOST_NAMES:
                raise pickle.UnpicklingError("it names more than any checkpoint does")
            found = self.known(module, name)
            is_function = callable(found) and not isinstance(found, (type, Global))
            self._found[module, name] = Known(found, Global(module, name)) if is_function else found
        return self._found[module, name]

    def known(self, module: str, name: str) -> Any:
        """What a name becomes; `UnknownName` where it is not known to be harmless."""
        return _known(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise pickle.UnpicklingError("a reference to something outside of the pickle")
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and is_plain_class(pid[1]):
            return pid[1]  # the older form has the source of torch's classes beside them
        return storage_of(pid, self._storages)

    def get_extension(self, code: int) -> Any:
        raise UnknownName(f"extension {code}")

    def load_build(self) -> None:
        """Attributes for inert instances only: classes and functions of this process must not get any."""
        state, inst = self.stack.pop(), self.stack[-1]
        if isinstance(inst, np.dtype):
            check_byte_order(state)
        elif isinstance(inst, np.ndarray):
            inst.__setstate__(checked_array(inst, state))
        elif isinstance(inst, OrderedDict):
            if not (isinstance(state, dict) and set(state) <= {"_metadata"}):
                raise UnknownName("attributes for an OrderedDict")
        elif isinstance(inst, PLAIN) and not isinstance(inst, Record) and isinstance(state, dict):
            methods = dir(type(inst)) if isinstance(inst, (InertDict, Namespace)) else []
            if not all(isinstance(name, str) and not name.startswith("__") and name not in methods for name in state):
                raise UnknownName(f"attributes for a {type(inst).__name__}")
            self._spend(sys.getsizeof(state))  # many instances may be given one state
            vars(inst).update(state)
        else:
            raise UnknownName(f"attributes for a {type(inst).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        """Calls of what was named, and of nothing else that can be called; they make no more than the file is long."""
        args, function = self.stack.pop(), self.stack[-1]
        if not (isinstance(function, Known) and isinstance(args, tuple)):
            raise UnknownName(f"a call of {type(function).__name__}")
        made = function.function(*args)
        given = sum(len(each) for each in args if isinstance(each, (bytes, str, list, dict, tuple)))
        size = made.numel() * made.element_size() if isinstance(made, torch.Tensor) else sys.getsizeof(made)
        self._spend(OBJECT + max(given, size))
        self.stack[-1] = made

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("it makes more of its data than it holds")

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """New objects of inert classes."""
        args = self.stack.pop()
        self._spend(OBJECT)
        self.append(new_object(self.stack.pop(), *args))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_other_new(self) -> None:
        raise pickle.UnpicklingError("an object that is made in an unusual way")  # text files look so, too

    for opcode in (pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        dispatch[opcode[0]] = load_other_new

    for opcode in (pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.DICT, pickle.LIST, pickle.FROZENSET):
        dispatch[opcode[0]] = _paid(dispatch[opcode[0]])

    for opcode, keys in (
        (pickle.SETITEM, lambda stack: stack[-2:-1]),
        (pickle.SETITEMS, lambda stack: stack[::2]),
        (pickle.DICT, lambda stack: stack[::2]),
        (pickle.ADDITEMS, lambda stack: stack),
        (pickle.FROZENSET, lambda stack: stack),
    ):
        dispatch[opcode[0]] = _with_checked_keys(dispatch[opcode[0]], keys)

    for opcode, kind, into in (
        (pickle.APPEND, list, lambda one: one.stack[-2]),
        (pickle.SETITEM, dict, lambda one: one.stack[-3]),
        (pickle.APPENDS, list, _behind_mark),
        (pickle.SETITEMS, dict, _behind_mark),
        (pickle.ADDITEMS, set, _behind_mark),
    ):
        dispatch[opcode[0]] = _on_kind(dispatch[opcode[0]], kind, into)


def _size(stream: IO[bytes]) -> int:
    at = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    return size


def load(stream: IO[bytes]) -> Any:
    """What a pickle holds.

    Raises:
        UnknownName: it names something else than tensors, arrays, plain values, modules of torch, and the objects that
            a known family's pickles hold.
        pickle.UnpicklingError, EOFError, or another Exception: it is damaged.
    """
    size = _size(stream)
    careful: Any = CarefulStream(stream, size)
    unpickler = InertUnpickler(careful, size=size)
    try:
        return check_sharing(unpickler.load())
    except UnknownName as error:
        error.named = tuple(module for module, _ in unpickler._found)
        raise


def _known(module: str, name: str) -> Any:
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    families = (role.known(module, name) for role in pickle_families())
    found = NAMES.get((module, name)) or next(filter(None, families), None)
    words = all(word.isidentifier() for word in (*module.split("."), name))
    if found is None and f"{module}.".startswith(INERT_MODULES) and words:
        found = inert_class(Global(module, name))
    if found is None:
        raise UnknownName.of(module, name)
    return found


@functools.lru_cache(maxsize=4096)
def inert_class(origin: Global) -> Any:
    """The class of instances of ``origin``."""
    return type(origin.name, (Inert,), {"origin": origin})


class _Nested(InertUnpickler):
    """Of what torch nests in other pickles: one storage, by its kind."""

    def known(self, module: str, name: str) -> Any:
        if (module, name) in STORAGE_NAMES:
            return STORAGE_NAMES[module, name]
        raise UnknownName.of(module, name)


def _storage(data: Any) -> Any:
    if not (isinstance(data, bytes) and data.startswith(LEGACY)):  # the form in which torch nests them
        raise pickle.UnpicklingError("a tensor's storage is no storage")
    found = load_legacy(io.BytesIO(data), len(data), lambda stream, storages: _Nested(stream, storages).load())
    if not isinstance(found, Storage):
        raise pickle.UnpicklingError("a tensor's storage is no storage")
    return found


#: {(module, name): what it becomes}, besides what a family's pickles name
NAMES: Dict[Tuple[str, str], Any] = {**TENSOR_NAMES, ("torch.storage", "_load_from_bytes"): _storage}
