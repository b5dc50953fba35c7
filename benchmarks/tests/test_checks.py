"""The benchmark of checks in miniature, and its figures in docs/benchmarks.md."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import checks, checks_reruns, checks_rivals
from benchmarks.__main__ import main
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


def test_reruns_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = checks_reruns.small

    def few(family: str, baseline: Path) -> CheckConfig:
        return quick(whole(family, baseline))

    monkeypatch.setattr(checks_reruns, "small", few)
    out = tmp_path / "checks.json"
    for count in ("1", "2"):
        options = ["--out", str(out), "--reruns", count]
        done = CliRunner().invoke(main, ["checks", *options], catch_exceptions=False)
        assert done.output.startswith(f"{count} clean runs, 0 alarms, ")
    runs = json.loads(out.read_text(encoding="utf-8"))["reruns"]["runs"]
    assert [run["family"] for run in runs] == ["nvidia", "rosinality"]
    assert all(run["holds"] == 2 for run in runs)


def test_figures_of_the_page() -> None:
    """docs/benchmarks.md has the stored ones."""
    stored = json.loads((ROOT / "benchmarks" / "results" / "checks.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n".join(checks.table(stored["planted"])) in page
    runs = stored["reruns"]["runs"]
    assert f"{len(runs)} clean runs" in page
    assert f"{max(run['seconds'] for run in runs):.0f} s" in page
    for torch_version in stored["other_torch"]:
        assert torch_version.split("+")[0] in page
