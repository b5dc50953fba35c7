"""Files of torch.save, read without running code from them, in every release of torch."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Dict, Iterator

import torch


def load_tensors(source: Path) -> Any:
    """What the file holds, tensors on the CPU: tensors, plain values, and the options of training scripts
    (argparse.Namespace).

    Raises:
        pickle.UnpicklingError: it holds more than that.
    """
    with reading_options():
        return torch.load(source, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def reading_options() -> Iterator[None]:
    """torch.load's restricted unpickler knows argparse.Namespace meanwhile, and floats in every release of torch.

    Before torch 2.5 another one has to take its place: the old ones cannot be told of classes, and torch 1.13's knows
    no floats, either. (torch 1.13 runs code from the file where it is given one as ``pickle_module``.)
    """
    serialization: Any = torch.serialization
    if hasattr(serialization, "safe_globals"):
        with serialization.safe_globals([argparse.Namespace]):
            yield
        return
    original = serialization._weights_only_unpickler
    serialization._weights_only_unpickler = _TENSORS_ONLY
    try:
        yield
    finally:
        serialization._weights_only_unpickler = original


_InPython: Any = pickle._Unpickler  #: its steps can be replaced, other than those of pickle.Unpickler


class _Unpickler(_InPython):  # type: ignore[misc]
    """Python's own one, restricted to the classes and functions that torch's restricted one knows."""

    dispatch: ClassVar[Dict[int, Any]] = dict(_InPython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        allowed = importlib.import_module("torch._weights_only_unpickler")._get_allowed_globals()  # private to torch
        if (module, name) == ("argparse", "Namespace"):
            return argparse.Namespace
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a plain value")
        return allowed[f"{module}.{name}"]

    def load_build(self) -> None:
        """Set attributes, which classes and functions must not get."""
        if type(self.stack[-2]) not in (OrderedDict, argparse.Namespace):
            raise pickle.UnpicklingError(f"attributes for a {type(self.stack[-2]).__name__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def _load(stream: Any, **options: Any) -> Any:
    return _Unpickler(stream, **options).load()


#: what torch.load asks of the module of an unpickler
_TENSORS_ONLY = SimpleNamespace(Unpickler=_Unpickler, load=_load)
