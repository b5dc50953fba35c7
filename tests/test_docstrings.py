"""The examples in docstrings of public names are executed; every public function has one."""

from __future__ import annotations

import doctest
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import squeeze_patch
from tests.hosts.flat import FlatHost

FUNCTIONS = [name for name in squeeze_patch.__all__ if inspect.isfunction(getattr(squeeze_patch, name))]


def run_examples(name: str) -> int:
    """How many examples the docstring of a public name has; a failing one fails the test."""
    (found,) = doctest.DocTestFinder(recurse=False).find(
        getattr(squeeze_patch, name), name, globs={"squeeze_patch": squeeze_patch}
    )
    output = []
    result = doctest.DocTestRunner().run(found, out=output.append)
    assert result.failed == 0, "".join(output)
    return result.attempted


@pytest.mark.parametrize("name", [*(name for name in FUNCTIONS if name != "load"), "Plan"])
def test_examples(name: str) -> None:
    assert run_examples(name) > 0


def test_example_of_load(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the host's module and a squeezed file, as its example assumes."""

    def narrow(size: int, style_dim: int, n_mlp: int) -> Any:
        return rosinality.generator(size, w_dim=style_dim, layers=n_mlp)

    model = ModuleType("model")
    model.Generator = narrow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model", model)
    monkeypatch.chdir(tmp_path)
    squeezed = squeeze_patch.apply(narrow(256, 512, 8), ratio=2, init="random")
    torch.save({"g_ema": squeezed.state_dict()}, "squeezed.pt")
    assert run_examples("load") > 0
