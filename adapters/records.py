"""What a pickle holds, as inert values: nothing of them runs when a file is read, and they are written back as they
came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Iterator, Tuple

import numpy as np
import torch


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names, and that is only named here."""

    module: str
    name: str

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise TypeError(f"{self} is only a name here")

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """An instance of a class that is only named: its attributes, which unpickling sets.

    Attributes:
        origin: the class, by name. Every origin has a subclass of its own.
    """

    origin: ClassVar[Global]

    @property
    def class_name(self) -> str:
        return type(self).origin.name


class InertDict(Dict[str, Any]):
    """The same of a class that is a dictionary."""

    origin: ClassVar[Global]


class Record(Inert):
    """An object that its host stores with the source of its class, to be rebuilt by a function of the host's.

    Args:
        rebuild: that function.
        meta: its argument: class name, source and state among others.
    """

    def __init__(self, rebuild: Global, meta: Dict[str, Any]) -> None:
        self.rebuild, self.meta = rebuild, meta

    @property
    def class_name(self) -> str:
        return str(self.meta.get("class_name"))

    @property
    def source(self) -> str:
        return str(self.meta.get("module_src"))

    @property
    def state(self) -> Dict[str, Any]:
        """Attributes of the object."""
        state = self.meta.get("state")
        return state if isinstance(state, dict) else {}

    def children(self) -> Iterator[Tuple[str, Any]]:
        """(name, module) of the modules in a module."""
        yield from table_of(self, "_modules").items()


def state_of(module: Any) -> Dict[str, Any]:
    """Attributes of a stored module, by whichever way it is stored."""
    return module.state if isinstance(module, Record) else vars(module) if isinstance(module, Inert) else {}


def table_of(module: Any, name: str) -> Dict[str, Any]:
    """A stored module's "_parameters", "_buffers" or "_modules"."""
    table = state_of(module).get(name)
    return table if isinstance(table, dict) else {}


def is_module(value: Any) -> bool:
    """Whether a stored value was a torch.nn.Module."""
    return isinstance(state_of(value).get("_parameters"), dict)


def is_plain(value: Any) -> bool:
    """Whether a value consists of numbers, words and containers of them alone."""
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, torch.dtype))


def count_parameters(module: Any) -> int:
    """Of a stored module and of those in it, each once."""
    found: Dict[int, int] = {}
    waiting, seen = [module], set()
    while waiting:
        now = waiting.pop()
        if id(now) not in seen:
            seen.add(id(now))
            tensors = [tensor for tensor in table_of(now, "_parameters").values() if isinstance(tensor, torch.Tensor)]
            found.update({id(tensor): tensor.numel() for tensor in tensors})
            waiting.extend(table_of(now, "_modules").values())
    return sum(found.values())
