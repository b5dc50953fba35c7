"""When a budget is allocated without being asked for, how far that may go, and when a second wish is the same one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.demo import trained_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.planning.planner import is_meant, plan_for
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import plan_of_blocks
from squeeze_patch.testing import trained
from tests.helpers import cli
from tests.hosts.flat import flat_hosts


def is_uniform(plan: Plan) -> bool:
    return plan.ratio is not None


@pytest.mark.parametrize(
    ("wish", "uniform"),
    [
        ({}, False),
        ({"reduction": 0.2}, False),
        ({"multiply_adds": 0.8}, False),
        ({"method": "narrow"}, False),
        ({"ratio": 2}, True),
        ({"allocate": "uniform"}, True),
        ({"init": "weights"}, True),
        ({"init": "random"}, True),
        ({"init": "random", "allocate": "spectral"}, False),
        ({"ratio": 2, "allocate": "spectral"}, False),
    ],
)
def test_what_is_allocated(wish: Dict[str, Any], uniform: bool) -> None:
    assert is_uniform(squeeze_patch.plan(trained_generator(), **wish)) == uniform


def test_apply_does_what_plan_says() -> None:
    """A second wish of the same budget is the same wish, however the first came to its widths; others are refused."""
    G = trained_generator()
    plan = squeeze_patch.plan(G)
    assert any(block.inner is not None for block in plan.blocks)  # conv0's widths, too
    squeeze_patch.apply(G)
    now = squeeze_patch.status(G).plan
    assert now is not None
    assert now.same_widths(plan) or now.with_kept({}).same_widths(plan)
    before = {name: value.clone() for name, value in G.state_dict().items()}
    squeeze_patch.apply(G)
    squeeze_patch.apply(G, reduction=now.reduction, allocate="spectral")
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())
    for other in ({"reduction": 0.2}, {"ratio": 1.5}, {"allocate": "uniform"}, {"method": "narrow"}):
        with pytest.raises(squeeze_patch.StateError, match="in another way"):
            squeeze_patch.apply(G, **other)
    assert is_uniform(squeeze_patch.plan(G))  # its activations are those of a squeezed one


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_the_same_share_of_multiply_adds_is_the_same_wish(share: float) -> None:
    """Which is another share of the parameters than one ratio for all blocks would come to."""
    G = squeeze_patch.apply(trained_generator(), multiply_adds=share, keep_original=False)
    squeeze_patch.apply(G, multiply_adds=share)
    with pytest.raises(squeeze_patch.StateError, match="in another way"):
        squeeze_patch.apply(G, multiply_adds=share + 0.05)


def test_the_same_wish_where_one_channel_is_more_than_the_tolerance() -> None:
    torch.manual_seed(0)
    G = Generator(32, 0, 32, 4, 1, synthesis_kwargs={"channel_base": 96, "channel_max": 24}).eval()
    squeeze_patch.apply(G)
    plan = squeeze_patch.status(G).plan
    assert plan is not None
    assert plan.reduction - 0.121 > 0.01
    squeeze_patch.apply(G)
    squeeze_patch.apply(G, reduction=0.121)
    for other in (0.1, 0.16):
        with pytest.raises(squeeze_patch.StateError, match="in another way"):
            squeeze_patch.apply(G, reduction=other)


def test_the_same_wish_where_no_block_has_excite() -> None:
    """An allocation may leave fewer channels behind conv0 alone, as either method does; what is handed on stays."""
    G = trained_generator()
    specs = locate(G).specs
    block = BlockPlan("b8", 8, specs[1].channels, specs[1].channels, inner=20, excite=False)
    plan = plan_of_blocks(specs, sum(p.numel() for p in G.parameters()), "nvidia", [block])
    squeeze_patch.apply(G, plan=plan, init="weights")
    for method in ("squeeze", "narrow"):
        squeeze_patch.apply(G, reduction=plan.reduction, method=method)
    assert str(squeeze_patch.status(G)).startswith("squeezed: 1 of 4 blocks")


def test_one_ratio_is_what_a_wish_may_mean() -> None:
    G = squeeze_patch.apply(trained_generator(), init="random", keep_original=False)
    plan = squeeze_patch.status(G).plan
    assert plan is not None
    assert is_meant(Request(), locate(G), plan)
    assert not is_meant(Request(ratio=3), locate(G), plan)


class TestConv0:
    """Fewer channels behind it, only where that can be built and be told afterwards."""

    def test_hooks_on_it(self) -> None:
        """Those that it could not follow leave conv0 as it is, in every block; they go on being called."""
        G = trained_generator()
        calls = []
        G.synthesis.b16.conv0.register_forward_hook(lambda *_: calls.append(1))
        plan = squeeze_patch.plan(G)
        assert not is_uniform(plan)
        assert plan.is_told_by_shapes
        conv0 = G.synthesis.b16.conv0
        squeeze_patch.apply(G, init="calibrated")
        assert G.synthesis.b16.conv0 is conv0
        calls.clear()
        G.eval()(torch.zeros([1, G.z_dim]), None)
        assert calls

    def test_what_the_planner_is_told(self) -> None:
        found = locate(trained_generator())
        told, free = (plan_for(found, Request(), has_inner=has_inner) for has_inner in (False, True))
        assert told.is_told_by_shapes
        assert not free.is_told_by_shapes
        assert abs(told.reduction - free.reduction) <= 0.006  # both within 0.3 points of what was asked for

    def test_a_bare_state_dict(self, tmp_path: Path) -> None:
        """Has no place for the Plan: its blocks are the paper's, and the sizes of its layers tell."""
        (host,) = (host for host in flat_hosts() if host.name == "basicsr")
        with host.active():
            torch.save(trained(host.generator(resolution=16)).state_dict(), tmp_path / "bare.pt")
            wish = ("--reduction", "0.2")
            code, out, err = cli("convert", tmp_path / "bare.pt", tmp_path / "out.pt", *wish)
            assert (code, err) == (0, "")
            assert "fewer" in out
            G = squeeze_patch.load(host.generator(resolution=16), tmp_path / "out.pt")
            plan = squeeze_patch.status(G).plan
        assert plan is not None
        assert plan.is_told_by_shapes
        planned = Plan.from_json(cli("plan", tmp_path / "bare.pt", *wish, "--json")[1])
        assert planned.widths == plan.widths
        assert abs(planned.reduction - 0.2) <= 0.003


def test_what_only_an_allocation_reaches(tmp_path: Path) -> None:
    """In convert as in plan; of what leaves next to nothing, and of a ratio that is not reached, both warn."""
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G_ema": trained_generator()}))
    dense, target = tmp_path / "dense.pkl", tmp_path / "squeezed.pkl"
    code, out, err = cli("plan", dense, "--trust", "--reduction", "0.8", "--json")
    assert (code, "80% of the parameters go" in err) == (0, True)
    assert abs(Plan.from_json(out).reduction - 0.8) <= 0.003
    code, out, err = cli("convert", dense, target, "--trust", "--reduction", "0.8", "--json")
    assert (code, "80% of the parameters go" in err) == (0, True)
    assert abs(Plan.from_dict(json.loads(out)["plan"]).reduction - 0.8) <= 0.003
    code, _, err = cli("plan", dense, "--trust", "--reduction", "0.8", "--allocate", "uniform")
    assert (code, "by one ratio for all blocks" in err) == (2, True)
    code, _, err = cli("plan", dense, "--trust", "--reduction", "0.99")
    assert (code, "with channels allocated" in err) == (2, True)
    code, _, err = cli("plan", dense, "--trust", "--ratio", "1000")
    assert (code, "a ratio of 1000 is not reached, but 8" in err) == (0, True)


def test_a_diverged_generator_is_not_planned() -> None:
    G = trained_generator()
    with torch.no_grad():
        G.synthesis.b16.conv1.weight.view(-1)[0] = float("nan")
    with pytest.raises(squeeze_patch.SqueezeError, match=r"b16\.conv1\.weight holds values that are not finite"):
        squeeze_patch.plan(G)
    assert is_uniform(squeeze_patch.plan(G, allocate="uniform"))


def test_a_generator_without_values() -> None:
    with pytest.raises(squeeze_patch.SqueezeError, match="on the meta device"):
        squeeze_patch.plan(trained_generator().to("meta"))
    assert is_uniform(squeeze_patch.plan(trained_generator().to("meta"), init="random"))
