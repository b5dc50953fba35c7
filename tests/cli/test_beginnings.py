"""The first seconds of a command, and what long work says where stderr is no terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

from squeeze_patch.cli import log_lines, main
from squeeze_patch.cli.log_lines import LONG, LogLines
from squeeze_patch.initialization import observation
from tests.helpers import ROOT, cli
from tests.processes import command_runner

#: as Ctrl-C while torch is being imported
INTERRUPTED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("script", [["-m", "squeeze_patch"], ["-c", "from squeeze_patch.__main__ import main; main()"]])
def test_an_interrupt_while_torch_is_imported(script: List[str], tmp_path: Path) -> None:
    """Ends as a later one does."""
    (tmp_path / "torch.py").write_text(INTERRUPTED)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *script, "plan", "dense.pkl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "\nAborted!\n")


def test_a_later_interrupt(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("squeeze_patch.cli.plan.read", interrupt, raising=False)
    monkeypatch.setattr(sys.modules["squeeze_patch.cli.plan"], "read", interrupt)
    result = command_runner().invoke(main, ["plan", str(snapshot)])
    assert (result.exit_code, result.stderr) == (1, "\nAborted!\n")


def test_large_generators_take_long(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And commands say so at once; of small ones nothing is said."""
    target, plan = snapshot.with_name("squeezed.pkl"), ("plan", snapshot, "--trust")
    assert cli(*plan)[2] == ""
    monkeypatch.setattr(observation, "SMALL", 0)
    assert cli(*plan)[2] == f"planning: {LONG}\n"
    for wish in ((), ("--ratio", "2")):
        convert = ("convert", snapshot, target, "--trust", "--force", *wish)
        assert cli(*convert)[2] == f"squeezing: {LONG}\n"
        assert cli(*convert, "--quiet")[2] == ""
    assert cli("report", snapshot, "--trust", "--repeats", "2")[2] == f"planning: {LONG}\n"


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """After ten seconds, then every thirty; the rest of the time is that of the present work."""
    now = 0.0
    monkeypatch.setattr(log_lines.time, "monotonic", lambda: now)
    lines = LogLines("downloading", unit=1000)
    for seconds, done in ((5.0, 1000), (12.0, 2000), (20.0, 3000), (43.0, 4000)):
        now = seconds
        lines("", done, 10_000)
    now = 80.0
    lines("checking", 1, 0)  # of unknown length
    assert capsys.readouterr().err.splitlines() == [
        "downloading: 2 of 10, about 0:28 left",  # two in the seven seconds since it began
        "downloading: 4 of 10, about 0:57 left",
        "downloading: checking, 0",
    ]
