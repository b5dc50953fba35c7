"""Generators that a file holds in another way than those that are squeezed: inside of lists, dicts and other modules,
or as state dicts beside whole networks. They stay as they are, and are told."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from typing import Any, Dict, Iterator, Mapping

import torch

from squeeze_patch.adapters import locate, pickle_families
from squeeze_patch.adapters.located import Located
from squeeze_patch.adapters.records import Inert, Record
from squeeze_patch.checkpoints.bodies import has_generator
from squeeze_patch.checkpoints.stored import StoredArchive, StoredFile
from squeeze_patch.errors import LostWarning, UnsupportedModelError


def warn_of_nested(data: Any, found: Mapping[str, Located]) -> None:
    """Name the entries of a file that hold a generator within, or the state dict of one.

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
            elif has_generator(inner) and inner is value:
                _warn(f"{entry} is a generator's state dict beside whole networks, and stays dense{_cure(data)}")
            elif _is_generator(inner):
                _warn(f"{entry} holds a generator inside of something else, which stays dense")
            else:
                continue
            break


def where_nested(data: Any) -> str:
    """What to do with a file in which no generator is found, where it holds one in another way; else ""."""
    parts = list(data.items()) if isinstance(data, dict) and not has_generator(data) else [("", data)]
    for entry, value in parts:
        if has_generator(value):
            how = _cure(data) or ": save the file by torch.save, and convert that"
            return f"; {entry or 'the file'} is a generator's state dict{how}"
        if any(map(_is_generator, _inside(value))):
            return (
                f"; {entry or 'the file'} holds a generator inside of something else: save that generator under a name "
                "of its own (G, G_ema), and convert that file"
            )
    return ""


def _cure(data: Any) -> str:
    """Of an archive, whoever trusts it gets state dicts and whole networks."""
    return ": --trust (in Python: trust=True) reads both" if isinstance(data, StoredArchive) else ""


def _is_generator(value: Any) -> bool:
    """Whether it is one of any kind: inert, a module, or a state dict that holds one."""
    if isinstance(value, torch.nn.Module):
        with contextlib.suppress(UnsupportedModelError):
            return bool(locate(value).specs)
        return False
    return has_generator(value) or any(role.is_generator(value) for role in pickle_families())


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
