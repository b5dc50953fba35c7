"""Generators inside of something else in a file: lists, dicts, other modules. They are not squeezed, but told."""

from __future__ import annotations

import argparse
import warnings
from typing import Any, Dict, Iterator, Mapping

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.adapters.records import Inert, Record
from squeeze_patch.checkpoints.stored import StoredFile
from squeeze_patch.errors import LostWarning


def warn_of_nested(data: Any, found: Mapping[str, Located]) -> None:
    """Name the entries of a file that hold a generator within.

    Args:
        data: as of `io.read`.
        found: its generators that are squeezed.

    Warns:
        LostWarning: an entry holds one.
    """
    if not isinstance(data, dict):
        return
    stored = data.stored if isinstance(data, StoredFile) else {}
    originals: Dict[int, str] = {id(G.root): name for name, G in found.items()}
    originals.update({id(stored[name].record): name for name in found if name in stored})
    roles = {id(one.role): one.role for one in stored.values()}.values()
    tops = {id(G.root) for G in found.values()}
    for entry, value in data.items():
        if entry in stored or id(value) in tops:
            continue
        for inner in _inside(value):
            name = originals.get(id(inner))
            if id(inner) in tops:
                _warn(f"{entry} holds the generator {name} once more, which is squeezed there, too")
            elif name is not None:
                _warn(f"{entry} holds the generator {name} once more, which stays dense there, as an object of its own")
            elif any(role.is_generator(inner) for role in roles):
                _warn(f"{entry} holds a generator inside of something else, which stays dense")
            else:
                continue
            break


def _inside(value: Any) -> Iterator[Any]:
    """A value and everything in it, each once."""
    waiting, seen = [value], set()
    while waiting:
        now = waiting.pop()
        if id(now) in seen:
            continue
        seen.add(id(now))
        yield now
        if isinstance(now, dict):
            waiting.extend(now.values())
        elif isinstance(now, (list, tuple, set, frozenset)):
            waiting.extend(now)
        elif isinstance(now, Record):
            waiting.append(now.meta)
        elif isinstance(now, (Inert, argparse.Namespace, torch.nn.Module)):
            waiting.append(vars(now))


def _warn(words: str) -> None:
    warnings.warn(words, LostWarning, stacklevel=3)
