"""The benchmark of checks in miniature, and its figures in docs/benchmarks.md."""

from __future__ import annotations

import functools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from click.testing import CliRunner

from benchmarks import checks, checks_reruns, checks_rivals
from benchmarks.__main__ import main
from benchmarks.tests import stubs
from squeeze_patch.checks.config import CheckConfig
from tests.helpers import ROOT


def quick(config: CheckConfig) -> CheckConfig:
    """Without what takes time to check or to record."""
    return replace(config.only(["names", "weights"]), dense=None)


def test_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside assert_close alone: what the others' versions are is asked of this Python."""
    monkeypatch.setattr(checks_rivals, "TESTS", {"no_such_rival": ""})
    monkeypatch.setattr(checks, "FAMILIES", {"rosinality": checks.FAMILIES["rosinality"]})
    monkeypatch.setattr(checks, "FEWER", {})
    whole = checks.configured
    monkeypatch.setattr(checks, "configured", lambda *which: quick(whole(*which)))
    out = tmp_path / "checks.json"
    options = ["--out", str(out), "--python", sys.executable, "--workers", "1", "--plants", "a weight times 1.01"]
    done = CliRunner().invoke(main, ["checks", *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "no_such_rival is left out: " in done.output
    lines = done.output.splitlines()[-5:]
    assert lines[2] == "| a weight times 1.01 | `weights` | yes | 1 | yes |"
    assert lines[3:] == ["| caught, of 1 | | 1 | 1 | 1 |", "| alarms, of 1 clean ones | | | 0 | 0 |"]
    clean, planted = json.loads(out.read_text(encoding="utf-8"))["planted"]["cases"]
    assert clean["assert_close"] == []
    assert planted["assert_close"] == ["images", "state"]


def test_rivals_are_run_by_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rival that is always there: a fixture of pytest's own, which keeps sums of the images in a file."""
    code = """
@pytest.mark.parametrize("case", CASES)
def test_case(case, request):
    found, path = arrays(case)["images/"].sum(), os.path.join(os.path.dirname(__file__), case)
    if WHEN == "before":
        np.save(path, found)
    assert np.load(path + ".npy") == found
"""
    monkeypatch.setattr(checks_rivals, "TESTS", {"pytest": code})
    monkeypatch.setattr(checks_rivals, "UPDATE", {"pytest": "-v"})
    monkeypatch.setattr(checks_rivals, "PLUGINS", {"pytest": ()})
    cases = {checks_rivals.Case("nvidia", plant, False): more for plant, more in (("", 0), ("(1/2) a [plant]", 1))}
    for case, more in cases.items():
        case.write(tmp_path, {"images/": torch.ones(2)}, {"images/": torch.ones(2) + more})
    found = checks_rivals.rivals(sys.executable, tmp_path, list(cases))["pytest"]
    assert found["version"] == pytest.__version__
    assert found["answers"] == {"nvidia-alone-clean": False, "nvidia-alone-1-2-a-plant": True}


def rerun(out: Path, clean: Any, *options: str) -> Any:
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(checks, "reruns", functools.partial(checks_reruns.reruns, clean=clean))
        patching.setattr(checks_reruns, "BUSY", "")
        return CliRunner().invoke(main, ["checks", "--out", str(out), *options])


def stored_runs(out: Path) -> List[Dict[str, Any]]:
    runs: List[Dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["reruns"]["runs"]
    return runs


def test_reruns_go_on(tmp_path: Path) -> None:
    """From those in the file, in two processes, and an alarm of each of them, at its second run, is kept and said."""
    out = tmp_path / "checks.json"
    assert rerun(out, stubs.Clean, "--reruns", "1").output == "1 clean runs, 0 alarms, 0 s at most; []\n"
    done = rerun(out, stubs.Clean, "--reruns", "5", "--workers", "2")
    assert done.exit_code == 0
    runs = stored_runs(out)
    assert sorted(run["family"] for run in runs) == 3 * ["nvidia"] + 2 * ["rosinality"]
    alarms = [message for run in runs for message in run["messages"]]
    assert done.output.endswith(f"5 clean runs, {len(alarms)} alarms, 0 s at most; ['latency']\n")
    assert {"0 is slow", "1 is slow"} >= set(alarms) != set()
    assert [run["alarms"] for run in runs if run["messages"]] == [["latency"]] * len(alarms)
    again = rerun(out, stubs.Clean, "--reruns", "5")
    assert again.output == done.output.splitlines(keepends=True)[-1]
    assert stored_runs(out) == runs


def test_reruns_end_in_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = rerun(tmp_path / "checks.json", stubs.Endless, "--reruns", "3", "--minutes", "0.1")
    assert time.monotonic() - begun < 60  # the job that is left out would take 600 s
    assert done.exit_code == 0
    assert "1 left out: still at work when the time was over" in done.output
    assert [run["family"] for run in stored_runs(tmp_path / "checks.json")] == ["nvidia"]


def test_reruns_without_processes(tmp_path: Path) -> None:
    """What was found before the last of them ended is kept."""
    out = tmp_path / "checks.json"
    done = rerun(out, stubs.Killed, "--reruns", "4")
    assert done.exit_code == 1
    assert "Error: no process is left for 2 jobs" in done.output
    assert len(stored_runs(out)) == 1
    done = rerun(out, stubs.Broken, "--reruns", "4")
    assert done.exit_code == 1
    assert "Error: no process was prepared" in done.output


def test_a_rerun_checks_clean_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a baseline that is recorded first; the versions are kept with what is found."""
    monkeypatch.setattr(checks_reruns, "FAMILIES", {"rosinality": checks_reruns.FAMILIES["rosinality"]})
    whole = checks_reruns.small
    monkeypatch.setattr(checks_reruns, "small", lambda *which: quick(whole(*which)))
    run = checks_reruns.Clean(tmp_path)("rosinality")
    assert (run["family"], run["holds"], run["alarms"], run["messages"]) == ("rosinality", 2, [], [])
    assert run["torch"] == torch.__version__
    assert f"torch {torch.__version__}" in run["machine"]


def test_figures_of_the_page() -> None:
    """docs/benchmarks.md has the stored ones."""
    stored = json.loads((ROOT / "benchmarks" / "results" / "checks.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n".join(checks.table(stored["planted"])) in page
    runs = stored.get("reruns", {"runs": []})["runs"]
    assert ("Clean runs on busy cores are to come" in page) == (not runs)
    if runs:
        alarms = [name for run in runs for name in run["alarms"]]
        assert f"{len(runs)} clean runs" in page
        assert f"{len(alarms) or 'no'} alarm" in page
        assert f"{max(run['seconds'] for run in runs):.0f} s" in page
        for torch_version in {run["torch"] for run in runs}:
            assert f"torch {torch_version.split('+')[0]}" in page
    for torch_version in stored["other_torch"]:
        assert torch_version.split("+")[0] in page
