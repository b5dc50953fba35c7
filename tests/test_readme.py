"""The README: its blocks, executed as written, and its exact figures."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import site
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.io import read
from squeeze_patch.planning.cost import report
from squeeze_patch.testing import trained
from tests.docs.pages import ROOT, Page, python, shell
from tests.hosts import HERE, Host

PAGE = Page("README.md")
ALONE = "installs torch; SQUEEZE_SLOW=1 runs it"


@pytest.fixture
def workspace(draggan: Host, tmp_path: Path) -> Path:
    """A folder with a checkpoint and a host's checkout, as the README assumes them."""
    data = {name: trained(draggan.generator()).requires_grad_(False) for name in ("G", "G_ema")}
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(data))
    (tmp_path / "stylegan2-ada-pytorch").symlink_to(draggan.folder)
    return tmp_path


@pytest.mark.parametrize(
    "alone", [False, pytest.param(True, marks=pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason=ALONE))]
)
def test_demo_block_in_a_fresh_clone(tmp_path: Path, alone: bool) -> None:
    """Sets up a virtual environment and runs the demo, exactly as written; its picture is the README's. Unless it is
    ``alone``, the environment finds torch and the rest where these tests have them, and pip installs the clone only."""
    ignored = shutil.ignore_patterns(".venv", "packages", ".git", "*.egg-info", "build", "squeeze-demo", "out")
    shutil.copytree(ROOT, tmp_path / "clone", ignore=ignored)
    # PIP_NO_BUILD_ISOLATION=0 is the variable's way of saying --no-build-isolation
    here = {
        "PYTHONPATH": os.pathsep.join(site.getsitepackages()),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    done = shell(PAGE["demo"], tmp_path / "clone", {} if alone else here)
    (installed,) = (tmp_path / "clone" / ".venv").glob("lib/python*/site-packages/squeeze_patch/demo/weights.npz")
    assert installed.is_file()
    assert "picture     squeeze-demo/samples.png" in done.stdout
    drawn, shown = (
        np.asarray(Image.open(path), dtype=float)
        for path in (tmp_path / "clone" / "squeeze-demo" / "samples.png", ROOT / "docs" / "images" / "demo-digits.png")
    )
    assert drawn.shape == shown.shape
    assert np.abs(drawn - shown).mean() < 4  # of 255; another machine rounds, and then may choose, differently


def test_tests_block_is_what_ci_runs() -> None:
    """Running it here would run this test again; .ci/run takes it from the README."""
    assert "run: tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert PAGE["tests"].strip().endswith(".venv/bin/python -m pytest")


def test_convert_block(workspace: Path) -> None:
    done = shell(PAGE["convert"], workspace)
    assert done.stderr == ""
    assert re.search("G_ema: Generator, squeezed: [1-4] of 4 blocks", done.stdout)


def test_apply_block(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(workspace)
    G = python(PAGE["apply"])["G"]
    assert re.match("squeezed: [1-4] of 4 blocks", capsys.readouterr().out)
    assert squeeze_patch.status(G).state == "dense"


def test_train_block(draggan: Host, tmp_path: Path) -> None:
    shutil.copy(HERE / "mini_train.py", tmp_path / "train.py")
    shell(PAGE["train"], tmp_path, draggan.environment())
    snapshot = read(next((tmp_path / "runs").glob("*/*.pkl")), trust=True)
    assert squeeze_patch.status(snapshot["G_ema"]).state == "squeezed"


@pytest.mark.parametrize("page", [PAGE, Page("docs/benchmarks.md")], ids=str)
def test_figures_of_the_table(page: Page, draggan: Host) -> None:
    """The exact figures; timings are printed by the benchmarks that the table names."""
    G = draggan.generator(256, w_dim=512, layers=8, channel_base=16384, channel_max=512)
    plan = squeeze_patch.plan(G, allocate="uniform")
    before, after = f"{plan.parameters_before:,}", f"{plan.parameters_after:,}"
    reduction = f"{plan.reduction:.1%}".replace("%", " %")
    assert f"| parameters, 256x256, one ratio | {before} | {after} ({reduction} fewer) |" in page.text
    cost = report(locate(G), plan)
    ratio = cost.multiply_adds_after / cost.multiply_adds_before
    assert f"| multiply-adds, 256x256, one ratio | 1 | {ratio:.2f} |" in page.text
