"""docs/training.md, block by block."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import squeeze_patch
from tests.docs.pages import Page, python, shell, shows
from tests.hosts import HERE, Host

PAGE = Page("docs/training.md")


def test_train_and_resume(draggan: Host, tmp_path: Path) -> None:
    shutil.copy(HERE / "mini_train.py", tmp_path / "train.py")
    shell(PAGE["train"], tmp_path, draggan.environment())
    snapshot = next((tmp_path / "runs").glob("*-squeezed/*.pkl"))
    plan = squeeze_patch.status(pickle.loads(snapshot.read_bytes())["G_ema"]).plan
    assert plan is not None
    assert plan.ratio == 2
    shutil.move(str(snapshot), tmp_path / "squeezed-snapshot.pkl")
    shutil.rmtree(tmp_path / "runs")
    printed = shell(PAGE["resume"], tmp_path, draggan.environment()).stdout
    assert shows(PAGE["restored"], printed), printed
    snapshot = next((tmp_path / "runs").glob("*-squeezed/*.pkl"))
    assert squeeze_patch.status(pickle.loads(snapshot.read_bytes())["G_ema"]).plan == plan


def test_the_dense_rival(draggan: Host, tmp_path: Path) -> None:
    shutil.copy(HERE / "mini_train.py", tmp_path / "train.py")
    shell(PAGE["dense"], tmp_path, draggan.environment())
    (snapshot,) = (tmp_path / "runs").glob("*/*.pkl")
    assert squeeze_patch.status(pickle.loads(snapshot.read_bytes())["G_ema"]).state == "dense"


def test_edit(draggan: Host) -> None:
    G = draggan.generator()
    python(PAGE["edit"], G=G)
    assert squeeze_patch.status(G).state == "squeezed"
