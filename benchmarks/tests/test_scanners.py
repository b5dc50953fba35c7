"""The benchmark of scanners, with rivals that are not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import scanners
from benchmarks.__main__ import main


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_scanners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: data for name, data in scanners.payloads("x").items() if name in ("top", "extension")}
    monkeypatch.setattr(scanners, "payloads", lambda mark: quick)
    monkeypatch.setattr(scanners, "more_payloads", lambda mark: {})
    monkeypatch.setattr(scanners, "RIVALS", ("no_such_scanner",))
    out = tmp_path / "answers.json"
    done = CliRunner().invoke(main, ["scanners", "--python", sys.executable, "--out", str(out)], catch_exceptions=False)
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert lines[0].startswith("no_such_scanner is left out: ")
    assert lines[3].split(" | ")[1:] == ["1", "1", "0", "0", "0 of 6 |"]
    answers = json.loads(out.read_text())
    assert set(answers) == {"squeeze-patch scan", "torch.load(weights_only=True)"}
    assert answers["squeeze-patch scan"]["answers"]["hostile: extension"] == "suspicious"
    for name in ("good1.pkl", "other.pkl"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(quick["top"])
    options = ["--python", sys.executable, "--files", str(tmp_path / "files"), "--harmless", "good*,x"]
    lines = CliRunner().invoke(main, ["scanners", *options], catch_exceptions=False).output.splitlines()
    assert lines[3].split(" | ")[1:] == ["1", "0", "0", "0", "1 of 1 |"]
