"""What else in a user's module refers to layers that are replaced: lists of style layers, aliases, optimisers.

References to modules follow to the modules in their places. Parameters have no such successor where there are more of
them, or fewer; who holds those is told.
"""

from __future__ import annotations

import enum
import operator
import types
import weakref
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Set, Tuple

import torch

from squeeze_patch.adapters.layers import HOOKS
from squeeze_patch.surgery.belongings import successors

Module = torch.nn.Module
Put = Callable[[Any], None]
Blocks = Mapping[str, Module]
#: how far references are followed, and how much of that a container takes, or another object
DEPTH, CONTAINER, OBJECT = 12, 1, 3
#: what torch has on every module, but for what holds things of the user's
_OF_TORCH = frozenset(vars(Module())) - {"_modules", "_parameters", *HOOKS}
_NAMES = (str, bytes, int, float, complex, enum.Enum)
_CLOSED = (*_NAMES, type, torch.Tensor, types.ModuleType)


@dataclass(frozen=True)
class Reference:
    """``value``, found at ``where``, and what puts another in its place there; None: nothing can, it is a variable of
    the user's own code."""

    where: str
    value: Any
    put: Optional[Put]


def redirect(root: Module, old_blocks: Blocks, new_blocks: Blocks) -> None:
    """Have every reference in ``root`` to a module of ``old_blocks`` point to the one that ``new_blocks`` has there."""
    moved = {
        id(old): new
        for name, block in old_blocks.items()
        for _, old, new in successors(name, block, new_blocks[name])
        if new is not None
    }
    for reference in list(_references(root, set(moved))):
        value = reference.value
        if reference.put is None:
            continue
        if id(value) in moved:
            reference.put(moved[id(value)])
        elif isinstance(value, types.MethodType) and id(value.__self__) in moved:
            reference.put(types.MethodType(value.__func__, moved[id(value.__self__)]))


def shared(old_blocks: Blocks, new_blocks: Blocks) -> List[str]:
    """ "WHO holds WHAT" for parameters that are replaced, and that two layers which are have in common."""
    first: Dict[int, str] = {}
    found: List[str] = []
    for path, key, parameter in _replaced(old_blocks, new_blocks):
        name = f"{path}.{key}"
        if first.setdefault(id(parameter), name) != name:
            found.append(f"{name} holds {first[id(parameter)]}")
    return found


def held(root: Module, old_blocks: Blocks, new_blocks: Blocks) -> List[str]:
    """The same of what else in ``root`` has them: other layers, lists, optimisers; and of modules that are replaced,
    where what holds them cannot follow: functions."""
    gone = {id(parameter): f"{path}.{key}" for path, key, parameter in _replaced(old_blocks, new_blocks)}
    modules = {
        id(old): path
        for name, block in old_blocks.items()
        for path, old, _ in successors(name, block, new_blocks[name])
    }
    found: List[str] = []
    for reference in _references(root, set(modules)):
        value = reference.value
        what = [gone.get(id(value))]
        if reference.put is None:
            what += [modules.get(id(value)), modules.get(id(getattr(value, "__self__", None)))]
        found += [f"{reference.where} holds {name}" for name in what if name]
    return found


def _replaced(old_blocks: Blocks, new_blocks: Blocks) -> Iterator[Tuple[str, str, torch.nn.Parameter]]:
    """(path of its module, name, parameter) of all that are not in the new blocks, too."""
    for name, block in old_blocks.items():
        kept = {id(parameter) for parameter in new_blocks[name].parameters()}
        for path, old, _ in successors(name, block, new_blocks[name]):
            for key, parameter in old.named_parameters(recurse=False):
                if id(parameter) not in kept:
                    yield path, key, parameter


def _references(root: Module, outside: Set[int]) -> Iterator[Reference]:
    """All that is in ``root`` beside the modules whose ids are in ``outside``."""
    seen: Set[int] = set()
    for path, module in root.named_modules():
        if id(module) in outside or isinstance(module, torch.jit.ScriptModule):
            continue
        for name, value in list(vars(module).items()):
            if name in _OF_TORCH:
                continue
            where = ".".join(filter(None, (path, "" if name in ("_modules", "_parameters") else name)))
            yield from _within(value, where, partial(operator.setitem, vars(module), name), 0, seen)


def _within(value: Any, where: str, put: Optional[Put], depth: int, seen: Set[int]) -> Iterator[Reference]:
    yield Reference(where, value, put)
    depth += CONTAINER if isinstance(value, (dict, list, tuple, set, frozenset, deque)) else OBJECT
    if depth > DEPTH or isinstance(value, (Module, types.MethodType, *_CLOSED)) or id(value) in seen:
        return
    seen.add(id(value))
    for name, item, change in _items(value, put):
        yield from _within(item, f"{where}.{name}" if where else str(name), change, depth, seen)


Items = Iterator[Tuple[Any, Any, Optional[Put]]]


def _items(value: Any, put: Optional[Put]) -> Items:
    """(name, item, what replaces it) of a container's items, or of an object's attributes."""
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield key if isinstance(key, _NAMES) else type(key).__name__, item, partial(operator.setitem, value, key)
            yield "a key", key, partial(_rename, value, key)
    elif isinstance(value, (list, deque)):
        for index, item in enumerate(value):
            yield index, item, partial(operator.setitem, value, index)
    elif isinstance(value, (tuple, set, frozenset)):
        items = list(value)
        for index, item in enumerate(list(items)):
            yield index, item, put and partial(_put_rebuilt, value, items, index, put)
    elif isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
        for index, item in enumerate(list(parts)):
            yield ("func", "args", "keywords")[index], item, put and partial(_put_partial, parts, index, put)
    elif type(value) is weakref.ref:
        yield "()", value(), put and partial(_put_weak, value.__callback__, put)
    elif isinstance(value, types.FunctionType):
        if value.__module__ is None or value.__module__.partition(".")[0] != "torch":
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or ()):
                if cell != types.CellType():  # a variable that has a value
                    yield name, cell.cell_contents, None
            for item in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                yield "a default", item, None
    else:
        for name, item in list(getattr(value, "__dict__", {}).items()):
            yield name, item, partial(setattr, value, name)
        for name in _slots(value):
            if hasattr(value, name):
                yield name, getattr(value, name), partial(setattr, value, name)


def _slots(value: Any) -> List[str]:
    found = (vars(cls).get("__slots__", ()) for cls in type(value).__mro__)
    return [name for names in found for name in ((names,) if isinstance(names, str) else names)]


def _rename(value: Dict[Any, Any], key: Any, new: Any) -> None:
    """A dictionary in its order, with another key."""
    items = [(new if each is key else each, item) for each, item in value.items()]
    value.clear()
    value.update(items)


def _put_weak(callback: Any, put: Put, new: Any) -> None:
    put(weakref.ref(new, callback))


def _put_partial(parts: List[Any], index: int, put: Put, new: Any) -> None:
    parts[index] = new
    put(partial(parts[0], *parts[1], **parts[2]))


def _put_rebuilt(value: Any, items: List[Any], index: int, put: Put, new: Any) -> None:
    """``value`` with ``items``, of which one is new, into its place."""
    items[index] = new
    put(type(value)(*items) if hasattr(value, "_fields") else type(value)(items))
