"""Benchmarks that no other test runs: all of them can be imported, and a training step's time is measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import step


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(step.__file__).parent.glob("*.py")))
def test_it_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(step.SIZES, "tiny", (16, 256, 2))
    done = CliRunner().invoke(step.main, ["--sizes", "tiny", "--batch", "2", "--repeats", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])["tiny"]
    assert found["seconds, dense"] > 0
    assert all(0 < found[phase]["lower"] <= found[phase]["median"] for phase in (*step.PHASES, "whole step"))
