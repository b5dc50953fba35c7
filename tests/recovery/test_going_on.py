"""A recovery that time, or its caller, has stopped goes on as an unbroken run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.recovery.pair import Pair, pair_of
from squeeze_patch.testing import trained
from tests.helpers import QUICK, SMALL, same, tensors
from tests.hosts import Host


@pytest.fixture
def both(draggan: Host) -> Pair:
    torch.manual_seed(0)
    dense = trained(draggan.generator(**SMALL))
    return pair_of(squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False), dense)


def test_it_goes_on_with_the_student_that_it_left(both: Pair, tmp_path: Path) -> None:
    """As in a notebook, where the same line is run again; with a changed one it does not."""
    whole, dense = both.student.root, both.teacher.root
    student, state = copy.deepcopy(whole), tmp_path / "state"
    how: Dict[str, Any] = {**QUICK, "evaluate_every": 3, "learning_rate": 1e-3}
    squeeze_patch.recover(whole, dense, **how)
    for steps in (1, 1, 6):  # the second time there is no time for a step
        before = tensors(student)
        done = squeeze_patch.recover(student, dense, minutes=1e-9 if steps == 1 else None, state=state, **how)
        assert (done.steps, same(tensors(student), before)) == (steps, steps == 1 and done.resumed_at == 1)
    assert same(tensors(student), tensors(whole))
    assert squeeze_patch.recover(student, dense, state=state, **how).resumed_at == 6
    with torch.no_grad():
        student.synthesis.b8.conv1.bias[0] += 1
    with pytest.raises(squeeze_patch.RecoveryError, match="other generators"):
        squeeze_patch.recover(student, dense, state=state, **how)


def test_time_that_is_up_between_evaluations_leaves_no_trace(both: Pair, tmp_path: Path) -> None:
    """The weights at hand are evaluated for who stops there; what goes on later is the unbroken run, patience, too."""
    student, dense = both.student.root, both.teacher.root
    broken = copy.deepcopy(student)
    how: Dict[str, Any] = {**QUICK, "patience": 1, "learning_rate": 3.0}
    whole = squeeze_patch.recover(student, dense, **how)
    for _ in range(2):  # the second time there is no time for a step
        timed = squeeze_patch.recover(copy.deepcopy(broken), dense, minutes=1e-9, state=tmp_path / "state", **how)
        assert (timed.stopped, [entry.step for entry in timed.history]) == ("minutes", [0, 1])
    done = squeeze_patch.recover(broken, dense, state=tmp_path / "state", **how)
    assert [(e.step, e.psnr, e.loss) for e in done.history] == [(e.step, e.psnr, e.loss) for e in whole.history]
    assert same(tensors(broken), tensors(student))
