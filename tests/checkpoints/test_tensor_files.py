"""Files of torch.save, read without running code, and without believing what they claim."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Tuple

import pytest
import torch

from squeeze_patch.checkpoints.tensor_files import load_tensors


class Reduced:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Tuple[Any, ...]:
        return self.call


@pytest.fixture(params=["zip", "before torch 1.6"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that `save` writes."""
    return tmp_path / request.param


def save(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=path.name == "zip")


def test_training_files(path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.002)
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = network.state_dict()
    save({"g": state, "g_optim": optimiser.state_dict(), "args": argparse.Namespace(lr=0.002, path="x")}, path)
    found = load_tensors(path)
    assert all(torch.equal(found["g"][name], state[name]) for name in state)
    assert found["g_optim"]["param_groups"][0]["lr"] == 0.002
    assert torch.equal(found["g_optim"]["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])
    assert found["args"] == argparse.Namespace(lr=0.002, path="x")


def test_no_code_is_run(path: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for call in (
        (os.mkdir, (str(ran),)),
        (eval, (f"open({str(ran)!r}, 'w')",)),
        (getattr, (torch.Size, "__doc__")),
        (OrderedDict, (), {"attribute": Reduced(os.mkdir, (str(ran),))}),
        (torch.nn.Linear, (1, 1)),
    ):
        save({"x": Reduced(*call)}, path)
        with pytest.raises(pickle.UnpicklingError):
            load_tensors(path)
    assert not ran.exists()
