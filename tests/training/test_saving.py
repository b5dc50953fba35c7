"""squeeze-patch run: the Plan in what a script saves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.testing import trained
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from squeeze_patch.training.run import run
from squeeze_patch.training.saving import SavedPlans
from tests.hosts.flat import FlatHost

SCRIPT = """
import sys, torch
from model import Generator
G = Generator(8, 16, 1)
if sys.argv[1:]:
    G.load_state_dict(torch.load(sys.argv[1])["g"])
torch.save({"g": G.state_dict(), "args": sys.argv[1:]}, f"{len(sys.argv)}.pt")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_with_what_it_saved(
    rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In whatever shapes: those of narrowed blocks say nothing of how many channels there were."""
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator as Dense\nclass Generator(Dense): pass\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    from stylegan2.model import Generator

    dense = trained(Generator(8, 16, 1))
    torch.save({"g": dense.state_dict()}, tmp_path / "dense.pt")
    squeezed = squeeze_patch.convert(
        tmp_path / "dense.pt", tmp_path / "0.pt", plan=plan_of_kind(dense, kind), init="weights"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("path", "argv"):
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    monkeypatch.delitem(sys.modules, "model", raising=False)
    said: List[str] = []
    save = torch.save
    for file in ("0.pt", "2.pt"):  # the second time, its own
        run(["script.py", file], say=said.append)
        monkeypatch.delitem(sys.modules, "model")
        found = inspect(Path("2.pt"), trust=False)["g"].status
        assert found is not None
        assert found.plan == squeezed.plan
        assert found.plan is not None
        assert found.plan.same_channels(squeezed.plan)  # a relative still
    assert len(said) == 2
    assert said[0] == said[1]
    assert torch.save is save


def test_where_a_plan_is_put(rosinality: FlatHost, tmp_path: Path) -> None:
    G, other = (rosinality.generator(resolution=size) for size in (8, 16))
    plans = SavedPlans()
    for squeezed in (G, other):
        plans.add(squeeze_patch.apply(squeezed, ratio=2, init="random"))
    plan = squeeze_patch.status(other).plan
    assert plan is not None
    wrapped = {f"net.module.{name}": tensor for name, tensor in other.state_dict().items()}
    state = {"state": {0: {}}, "param_groups": []}
    dense = rosinality.generator(resolution=8).state_dict()
    rows: List[Any] = [
        ({"state_dict": wrapped, "optimiser": state}, plan.to_dict()),
        ({"g": other.state_dict(), "squeeze_plan": 1}, 1),
        ({"g": dense, "optimiser": state}, None),
    ]
    with plans.in_files():
        for obj, expected in rows:
            torch.save(obj=obj, f=tmp_path / "file.pt")
            assert read_entries(tmp_path / "file.pt", trust=False).get("squeeze_plan") == expected
