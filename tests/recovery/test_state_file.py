"""State files that were edited, cut, or are of other parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.atomic import POSIX
from squeeze_patch.recovery import state_file
from squeeze_patch.recovery.optimiser import Optimiser
from squeeze_patch.recovery.paths import check_paths, state_path
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.state_file import Evaluation, Origin, State

#: {what was done to a state file: to its content}
EDITS: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "no settings": lambda state: state.pop("settings"),
    "no history": lambda state: state.pop("history"),
    "an empty history": lambda state: state.update(history=[]),
    "an evaluation cut": lambda state: state["history"][0].pop("psnr"),
    "an evaluation in words": lambda state: state["history"][0].update(psnr="good"),
    "something more": lambda state: state.update(note="edited"),
    "a step in words": lambda state: state.update(step="3"),
    "a list cut": lambda state: state["weights"].pop(),
    "one number for many": lambda state: state["best"].__setitem__(0, torch.zeros([1])),
    "no tensors": lambda state: state.update(average=[1, 2]),
    "no list": lambda state: state.update(optimiser={}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_states_that_were_edited(edit: str, tmp_path: Path) -> None:
    """Words, where a shorter list was taken up in part, and one number for all of a weight."""
    parameters = [torch.zeros([3, 2]), torch.zeros([3])]
    state = State(1, parameters, parameters, parameters, 20.0, [{}], [Evaluation(0, 20.0, None, None, 0.0)])
    origin = Origin("whole", "rest")
    state_file.save(tmp_path / "state", state, Settings(), origin, None)
    assert state_file.load(tmp_path / "state", Settings(), origin, parameters)[0].step == 1
    content = torch.load(tmp_path / "state", weights_only=True)
    EDITS[edit](content)
    torch.save(content, tmp_path / "state")
    with pytest.raises(squeeze_patch.RecoveryError, match="damaged.*Delete it to start anew"):
        state_file.load(tmp_path / "state", Settings(), origin, parameters)


def test_an_optimiser_of_other_parameters_is_not_taken_up() -> None:
    def optimiser(*sizes: int) -> Optimiser:
        parameters = [torch.nn.Parameter(torch.ones([size])) for size in sizes]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        made = Optimiser([*parameters, torch.nn.Parameter(torch.ones([2, 2]))], 0.1)
        made.step(0.1)
        return made

    good = optimiser(3).state_dict()
    optimiser(3).load_state_dict(good)
    for other, words in ((good[:1], "1 parts"), (optimiser(5).state_dict(), "of another shape")):
        with pytest.raises(ValueError, match=words):
            optimiser(3).load_state_dict(other)


def test_the_state_of_a_recovery_is_looked_at_before(tmp_path: Path) -> None:
    """What would stop its first evaluation, or be waited for: a folder, a pipe, a name that is too long."""
    source, target = tmp_path / "dense.pkl", tmp_path / "out.pkl"
    source.write_bytes(b"dense")
    check_paths(source, None, target, tmp_path / "log", force=False)
    state_path(target).mkdir()
    with pytest.raises(squeeze_patch.CheckpointError, match="out.pkl.state: this is a folder"):
        check_paths(source, None, target, tmp_path / "log", force=False)
    state_path(target).rmdir()
    if POSIX:
        os.mkfifo(state_path(target))
        with pytest.raises(squeeze_patch.CheckpointError, match="out.pkl.state: this is a named pipe"):
            check_paths(source, None, target, tmp_path / "log", force=False)
    with pytest.raises(squeeze_patch.CheckpointError, match="state could not be written: the name is too long"):
        check_paths(source, None, tmp_path / ("x" * 251), tmp_path / "log", force=False)
