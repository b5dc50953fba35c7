"""A repository with two squeezed generators, a configuration of checks, and a baseline."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Iterator

import pytest

from squeeze_patch.checks.catalogue import CHECKS
from squeeze_patch.checks.recording import record
from tests.held import Held, make_held

#: its generators; a variable says what is planted in them
GENERATORS = """
import copy
import os
import warnings

import squeeze_patch
from squeeze_patch.demo import trained_generator


def make():
    warnings.warn("as harmless as those of torch")
    planted = os.environ.get("PLANTED")
    if planted == "error":
        raise RuntimeError("no\\n\\x1b[31mway")
    if planted == "nothing":
        return {}
    G = squeeze_patch.apply(trained_generator(), ratio=2, init="random", keep_original=False)
    if planted == "shift":
        G.synthesis.b16.conv1.bias.data += 0.1
    return {"G_ema": G, ("D" if planted == "renamed" else "G"): copy.deepcopy(G)}
"""
CONFIG = '[generator]\nfactory = "downstream_generators:make"\n[checks]\n'
#: checks that take little time; of these, fidelity is skipped without a dense generator
ON = ("state", "weights", "images", "features", "fidelity")


@pytest.fixture(scope="session")
def recorded_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downstream")
    (folder / "downstream_generators.py").write_text(GENERATORS)
    off = [check.name for check in CHECKS if check.on and check.name not in ON]
    (folder / "squeeze.toml").write_text(CONFIG + "".join(f"{name} = false\n" for name in off))
    with pytest.warns(UserWarning, match="as harmless"):
        record(folder / "squeeze.toml")
    sys.modules.pop("downstream_generators")
    return folder


@pytest.fixture
def repository(recorded_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, which is the working folder."""
    folder = tmp_path / "repository"
    shutil.copytree(recorded_repository, folder)
    monkeypatch.chdir(folder)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    sys.modules.pop("downstream_generators", None)


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    return make_held(tmp_path_factory.mktemp("held"))
