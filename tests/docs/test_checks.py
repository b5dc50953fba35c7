"""docs/checks.md, block by block, in a repository of a few lines."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from squeeze_patch.checks.catalogue import CHECKS
from squeeze_patch.checks.runner import check
from tests.docs.pages import ROOT, Page, commands, shows
from tests.processes import environment_with, python

PAGE = Page("docs/checks.md")
NETWORKS = """
import os
import squeeze_patch
from squeeze_patch.demo import trained_generator as dense_generator


def squeezed_generator():
    G = squeeze_patch.apply(dense_generator(), ratio=2, init="weights", keep_original=False)
    G.synthesis.b16.excite.weight.data *= float(os.environ.get("FACTOR", 1))
    return G
"""
#: what takes long, and what the demo's generator, whose class is squeeze_patch's own, cannot hold
LESS = """[checks]
finite = {samples = 8, styles = 8}
fidelity = {samples = 8}
latency = false
without_squeeze_patch = false
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "squeeze.toml").write_text(PAGE["toml"] + LESS)
    return tmp_path


def test_from_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = commands(PAGE["commands"])
    assert "recorded one generator (23.17 % fewer, PSNR " in printed
    assert "FAIL" not in printed
    commands(PAGE["reports"])
    assert (repository / "report.xml").is_file()
    assert (repository / "report.html").is_file()
    size = (repository / "squeeze-baseline.json").stat().st_size
    assert 50_000 < size < 300_000
    monkeypatch.setenv("FACTOR", "1.01")
    found = check(only=["structure", "images"])
    assert shows(PAGE["table"], str(found))
    assert (repository / "squeeze-pictures" / "images.png").is_file()


def run_pytest(*arguments: str) -> Any:
    return python("-m", "pytest", "-p", "no:cacheprovider", *arguments, cwd=Path.cwd(), env=environment_with(ROOT))


def test_in_pytest(repository: Path) -> None:
    (repository / "pyproject.toml").write_text(PAGE["pytest-toml"])
    (repository / "test_generator.py").write_text(PAGE["pytest-tests"])
    lines = [re.sub("#.*", "", line).split() for line in PAGE["pytest-commands"].splitlines()]
    assert [line[0] for line in lines] == ["pytest"] * 5
    recording, everything, some, chosen, collecting = (
        [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', " ".join(line[1:]))] for line in lines
    )
    done = run_pytest(*recording)
    assert done.returncode == 0, done.stdout
    assert "recorded one generator" in done.stdout
    choices = ((some, 2), (chosen, 4)) if os.environ.get("SQUEEZE_SLOW") else ()
    for arguments, passed in ((everything, 15), *choices):
        done = run_pytest(*arguments)
        assert done.returncode == 0, done.stdout
        found = re.search(r"(\d+) passed", done.stdout)
        assert found is not None
        assert int(found[1]) >= passed
    done = run_pytest(*collecting)
    assert "squeeze.toml::images" in done.stdout


def test_every_check_is_described() -> None:
    rows = "\n".join(line for line in PAGE.text.splitlines() if line.startswith("| `"))
    for one in CHECKS:
        row = next(line for line in rows.splitlines() if f"`{one.name}`" in line.split("|")[1])
        for name, default in one.settings.items():
            said = (
                str(default).lower()
                if isinstance(default, bool)
                else f'"{default}"'
                if isinstance(default, str)
                else default
            )
            assert f"`{name} = {said}`" in row, (one.name, name)
