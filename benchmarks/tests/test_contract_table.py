"""The contract's table: what it counts, and that it fails where a test does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, List

import pytest

from benchmarks import contract_table
from benchmarks.contract_table import Collector, table
from tests.processes import command_runner

ROOT = Path(__file__).parent.parent.parent


def test_it_runs_the_contract() -> None:
    command = [sys.executable, "-m", "benchmarks", "contract_table", "-k"]
    done = subprocess.run(
        [*command, "(test_it_is_found or test_flags) and draggan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "| contract test | draggan | draggan-rosinality |",
        "| --- | --- | --- |",
        "| it is found | 1 | 1 |",
        "| flags carry over | 1 | 1 |",
    ]


def test_nothing_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pytest says then is said, and that is no success."""

    def run(arguments: List[str], plugins: List[Any]) -> pytest.ExitCode:
        print("1 deselected")
        return pytest.ExitCode.NO_TESTS_COLLECTED

    monkeypatch.setattr(pytest, "main", run)
    done = command_runner().invoke(contract_table.main, ["-k", "no_such_test"])
    assert done.exit_code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert (done.stdout, done.stderr) == ("", "1 deselected\n\n")


def test_cells() -> None:
    found = Collector()
    found.cases = {"1": ("test_a_b", "x"), "2": ("test_a_b", "y"), "3": ("test_c", "x")}
    found.outcomes = Counter({("test_a_b", "x", "passed"): 2, ("test_a_b", "y", "failed"): 1, ("test_c", "x", "a"): 1})
    found.reasons, found.failures = ["no pickles"], ["2"]
    assert table(found).splitlines()[2:] == [
        "| a b | 2 | 1 failed |",
        "| c | 1 a | - |",
        "",
        "a: skipped, no pickles",
        "2",
    ]
