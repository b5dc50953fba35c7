"""What else in a user's module refers to layers that are replaced: lists of style layers, aliases, optimisers.

References to modules follow to the modules in their places. Parameters have no such successor where there are more of
them, or fewer; who holds those is told.
"""

from __future__ import annotations

import enum
import operator
import types
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Mapping, Set, Tuple

import torch

from squeeze_patch.surgery.belongings import successors

Module = torch.nn.Module
Blocks = Mapping[str, Module]
#: how far into containers and objects references are followed
DEPTH = 4
_OF_TORCH = frozenset(vars(Module())) - {"_modules", "_parameters"}
_CLOSED = (str, bytes, int, float, complex, type, torch.Tensor, types.ModuleType, types.FunctionType, enum.Enum)


@dataclass(frozen=True)
class Reference:
    """``value``, found at ``where``, and what puts another in its place there."""

    where: str
    value: Any
    put: Callable[[Any], None]


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
        if id(value) in moved:
            reference.put(moved[id(value)])
        elif isinstance(value, types.MethodType) and id(value.__self__) in moved:
            reference.put(types.MethodType(value.__func__, moved[id(value.__self__)]))


def parameters_held(root: Module, old_blocks: Blocks, new_blocks: Blocks) -> List[str]:
    """ "WHO holds WHAT" for parameters that are replaced, and that something else in ``root`` has as well: layers that
    share them, lists, optimisers."""
    gone: Dict[int, str] = {}
    shared: List[str] = []
    modules: Set[int] = set()
    for name, block in old_blocks.items():
        kept = {id(parameter) for parameter in new_blocks[name].parameters()}
        for path, old, _ in successors(name, block, new_blocks[name]):
            modules.add(id(old))
            for key, parameter in old.named_parameters(recurse=False):
                if id(parameter) in gone:
                    shared.append(f"{path}.{key} holds {gone[id(parameter)]}")
                elif id(parameter) not in kept:
                    gone[id(parameter)] = f"{path}.{key}"
    return shared + [
        f"{reference.where} holds {gone[id(reference.value)]}"
        for reference in _references(root, modules)
        if id(reference.value) in gone
    ]


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


def _within(value: Any, where: str, put: Callable[[Any], None], depth: int, seen: Set[int]) -> Iterator[Reference]:
    yield Reference(where, value, put)
    if depth == DEPTH or isinstance(value, (Module, types.MethodType, *_CLOSED)) or id(value) in seen:
        return
    seen.add(id(value))
    for name, item, change in _items(value, put):
        yield from _within(item, f"{where}.{name}" if where else str(name), change, depth + 1, seen)


Items = Iterator[Tuple[Any, Any, Callable[[Any], None]]]


def _items(value: Any, put: Callable[[Any], None]) -> Items:
    """(name, item, what replaces it) of a container's items, or of an object's attributes."""
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield key, item, partial(operator.setitem, value, key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield index, item, partial(operator.setitem, value, index)
    elif isinstance(value, (tuple, set, frozenset)):
        items = list(value)
        for index, item in enumerate(list(items)):
            yield index, item, partial(_put_rebuilt, value, items, index, put)
    elif hasattr(value, "__dict__"):
        for name, item in list(vars(value).items()):
            yield name, item, partial(setattr, value, name)


def _put_rebuilt(value: Any, items: List[Any], index: int, put: Callable[[Any], None], new: Any) -> None:
    """``value`` with ``items``, of which one is new, into its place."""
    items[index] = new
    put(type(value)(*items) if hasattr(value, "_fields") else type(value)(items))
