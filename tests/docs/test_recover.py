"""docs/recover.md, block by block."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import squeeze_patch
from tests.docs.pages import Page, commands, python

PAGE = Page("docs/recover.md")


def test_recover(workspace: Path) -> None:
    squeeze_patch.convert("network.pkl", "squeezed.pkl", trust=True)
    assert "written     recovered.pkl" in commands(PAGE["recover"])
    data = pickle.loads((workspace / "recovered.pkl").read_bytes())
    assert squeeze_patch.status(data["G_ema"]).state == "squeezed"
    assert len((workspace / "recovered.jsonl").read_text().splitlines()) == 2  # of the start and of the end
    assert not (workspace / "recovered.pkl.state").exists()


def test_from_the_dense_file(workspace: Path) -> None:
    assert "written     half.pkl" in commands(PAGE["dense"])
    plan = squeeze_patch.status(pickle.loads((workspace / "half.pkl").read_bytes())["G_ema"]).plan
    assert plan == squeeze_patch.Plan.from_json((workspace / "plan.json").read_text())


def test_in_python(capsys: Any) -> None:
    squeezed = python(PAGE["python"])["squeezed"]
    assert "128 unseen latents, 3 steps" in capsys.readouterr().out
    assert squeeze_patch.status(squeezed).state == "squeezed"
