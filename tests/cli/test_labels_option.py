"""--labels: of every command that makes a start or images of a conditional generator."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

import squeeze_patch
from squeeze_patch import errors
from squeeze_patch.cli.errors import _WARNINGS
from squeeze_patch.planning.request import Request
from squeeze_patch.testing import trained
from squeeze_patch.training import train
from squeeze_patch.training.common import SCRIPT_VARIABLE
from tests.helpers import SMALL, cli, same, tensors
from tests.hosts import Host

ROWS = np.array([[0.2, 3.0, -1.0], [0.4, 3.0, -1.0]], dtype=np.float32)


@pytest.fixture
def folder(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with a conditional generator, its labels, and such as it does not take."""
    G = trained(draggan.generator(**SMALL, c_dim=3)).requires_grad_(False)
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    np.save(tmp_path / "labels.npy", ROWS)
    np.save(tmp_path / "others.npy", ROWS[:, :2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generator(path: Path) -> Any:
    return pickle.loads(path.read_bytes())["G_ema"]


def test_convert_and_plan(folder: Path) -> None:
    assert (
        "labels      one of 3 classes an image, each as often (others: --labels FILE)\n"
        in cli("convert", "dense.pkl", "blind.pkl", "--ratio", "2")[1]
    )
    code, out, err = cli("convert", "dense.pkl", "seeing.pkl", "--ratio", "2", "--labels", "labels.npy")
    assert (code, err) == (0, "")
    assert "labels      of the 2 given\n" in out
    with squeeze_patch.labels(ROWS):
        expected = squeeze_patch.apply(generator(folder / "dense.pkl"), ratio=2)
    assert same(tensors(expected), tensors(generator(folder / "seeing.pkl")))
    assert not same(tensors(expected), tensors(generator(folder / "blind.pkl")))
    allocated = ["plan", "dense.pkl", "--reduction", "0.3", "--json"]
    blind, seeing = (json.loads(cli(*allocated, *more)[1]) for more in ([], ["--labels", "labels.npy"]))
    assert blind != seeing  # channels are spent on other blocks


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "words", [["plan", "dense.pkl", "--ratio", "2"], ["convert", "dense.pkl", "out.pkl", "--init", "random"]]
)
def test_labels_that_nothing_is_run_on_are_told(folder: Path, words: List[str]) -> None:
    code, _, err = cli(*words, "--labels", "labels.npy")
    assert (code, err) == (0, "Warning: labels.npy was not needed: no generator was run on labels\n")
    assert cli(*words, *(["--force"] if "out.pkl" in words else []))[2] == ""


COMMANDS: Dict[str, List[str]] = {
    "plan": ["plan", "dense.pkl"],
    "convert": ["convert", "dense.pkl", "out.pkl"],
    "recover": ["recover", "dense.pkl", "--out", "out.pkl", "--steps", "1"],
    "compare": ["compare", "dense.pkl", "dense.pkl", "--samples", "4"],
    "report": ["report", "dense.pkl"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_others_than_the_generators_are_an_error(folder: Path, words: List[str]) -> None:
    code, _, err = cli(*words, "--labels", "others.npy")
    assert code == 2
    assert "the generator takes labels of 3 entries; those given have 2" in err
    code, _, err = cli(*words, "--labels", "missing.npy")
    assert code == 2
    assert "missing.npy: no labels can be read from it" in err
    assert not (folder / "out.pkl").exists()


def test_recover_and_compare(folder: Path) -> None:
    seen = ["--labels", "labels.npy"]
    code, _, err = cli("recover", "dense.pkl", "--out", "out.pkl", "--steps", "1", "--batch", "2", "--quiet", *seen)
    assert (code, err) == (0, "")
    code, out, _ = cli("compare", "dense.pkl", "out.pkl", "--samples", "4", *seen)
    assert code == 0
    assert "labels of the 2 given" in out


def test_dense_starts_of_a_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRIPT_VARIABLE, str(folder / "train.py"))
    said: List[str] = []
    (folder / "work").mkdir()
    with squeeze_patch.labels(ROWS):
        begun = train._start("dense.pkl", Request(ratio=2), folder / "work", said.append, trust=True)
        expected = squeeze_patch.apply(generator(folder / "dense.pkl"), ratio=2)
        assert begun.checkpoint is not None
        assert same(tensors(expected), tensors(generator(Path(begun.checkpoint))))
        for source in (None, begun.checkpoint):
            with pytest.raises(squeeze_patch.LabelsError, match="--labels is about dense files"):
                train._start(source, Request(), folder / "work", said.append, trust=True)
    code, _, err = cli("train", "--dense", "--labels", "labels.npy", "--", "train.py")
    assert code == 2
    assert "a dense run needs none" in err


def test_warnings_of_ours_are_one_line() -> None:
    ours = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Warning)]
    assert set(ours) == set(_WARNINGS)
