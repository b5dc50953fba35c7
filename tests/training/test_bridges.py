"""What hosts rely on of the torch that they were written for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

from squeeze_patch.training.nvidia import _bridge_torch

cpp_extension = pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")
NAME = "kernels_of_a_host"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cpp_extension, "load", cpp_extension.load)
    yield
    sys.modules.pop(NAME, None)


def test_compiled_kernels_can_be_imported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch that comes with pybind11 3 loads them, and registers nothing."""
    made = []

    def load(name: str, sources: Any, verbose: bool = False) -> ModuleType:
        made.append((name, sources, verbose))
        return ModuleType(name)

    monkeypatch.setattr(cpp_extension, "load", load)
    _bridge_torch()
    _bridge_torch()  # in every process that a script spawns
    module = cpp_extension.load(name=NAME, sources=["a.cu"], verbose=True)
    assert made == [(NAME, ["a.cu"], True)]
    assert importlib.import_module(NAME) is module


def test_what_is_registered_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with pybind11 2, where the interpreter does so; and a library that is no module is none."""
    known = ModuleType(NAME)
    monkeypatch.setattr(cpp_extension, "load", lambda name, sources: ModuleType(name) if sources else "path.so")
    monkeypatch.setitem(sys.modules, NAME, known)
    _bridge_torch()
    cpp_extension.load(NAME, ["a.cu"])
    assert importlib.import_module(NAME) is known
    assert cpp_extension.load("no_module", []) == "path.so"
    assert "no_module" not in sys.modules
