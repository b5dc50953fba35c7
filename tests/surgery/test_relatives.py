"""Relatives: generators of one origin that are squeezed with the same channels, so that their weights can be mixed."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.sampling import sample
from squeeze_patch.testing import trained
from tests.helpers import tensors
from tests.hosts import Host
from tests.hosts.flat import FlatHost


def child_of(G: Any) -> Any:
    """Fine-tuned, as it were: every weight has moved by a tenth of its size."""
    child, random = copy.deepcopy(G), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in child.synthesis.named_parameters():
            if "noise" not in name:
                parameter += 0.1 * parameter.std(unbiased=False) * torch.randn(parameter.shape, generator=random)
    return child


def psnr(a: Any, b: Any) -> float:
    return 10 * math.log10(4 / float((sample(a, 64, seed=0) - sample(b, 64, seed=0)).square().mean()))


def mixed(a: Any, b: Any, swap: bool) -> Any:
    """The average of two generators; or ``a`` with the blocks of ``b`` from 16x16 on."""
    G, states = copy.deepcopy(a), (a.state_dict(), b.state_dict())
    state = {}
    for name, tensor in states[0].items():
        theirs = states[1][name]
        late = name.startswith(("synthesis.b16", "synthesis.b32"))
        state[name] = (theirs if late else tensor) if swap else (tensor + theirs) / 2
    G.load_state_dict(state)
    return G


@pytest.mark.parametrize("swap", [False, True])
def test_averages_and_swaps(swap: bool) -> None:
    """Of relatives with the same channels, they are as near to the dense average or swap as the worse of the two is to
    its own dense generator, within 1 dB. Averages of others are far from it; swapped blocks bring their own excite."""
    parent = trained_generator()
    child = child_of(parent)
    dense = mixed(parent, child, swap)
    a = squeeze_patch.apply(copy.deepcopy(parent), ratio=2)
    apart = squeeze_patch.apply(copy.deepcopy(child), ratio=2)
    alike = squeeze_patch.apply(copy.deepcopy(child), like=a)
    fingerprints = [squeeze_patch.status(G).plan.fingerprint for G in (a, apart, alike)]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    worse = min(psnr(a, parent), psnr(alike, child))
    assert psnr(mixed(a, alike, swap), dense) > worse - 1
    assert swap or psnr(mixed(a, apart, swap), dense) < worse - 3


def test_kept_channels_are_the_dense_ones(any_host: Host) -> None:
    """With the rows that they name, through copies; a second squeeze like the first keeps them."""
    G: Any = trained(any_host.generator())
    dense = copy.deepcopy(G)
    squeeze_patch.apply(G, ratio=2, init="weights")
    kept = squeeze_patch.kept_channels(copy.deepcopy(G))
    assert {name: len(channels) for name, channels in kept.items()} == {
        block.name: block.width for block in squeeze_patch.status(G).plan.blocks
    }
    conv = {"nvidia": ("synthesis.{}.conv1.weight", 0), "lucidrains": ("G.{}.conv2.weight", 0)}
    pattern, dim = conv.get(
        any_host.family, ("{}.conv.weight" if hasattr(G, "conv1") else "{}.modulated_conv.weight", 1)
    )
    for name, channels in kept.items():
        path = pattern.format(name)
        assert torch.equal(G.state_dict()[path], dense.state_dict()[path].index_select(dim, channels))
    again = squeeze_patch.apply(dense, like=squeeze_patch.status(G).plan, init="weights")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in tensors(G).items())


def test_without_record() -> None:
    G = trained_generator()
    with pytest.raises(squeeze_patch.StateError, match="the generator is dense"):
        squeeze_patch.kept_channels(G)
    with pytest.raises(squeeze_patch.PlanError, match="like is a dense Generator; squeeze it first"):
        squeeze_patch.apply(trained_generator(), like=G)
    squeeze_patch.apply(G, init="random")
    with pytest.raises(squeeze_patch.StateError, match="no record of the channels"):
        squeeze_patch.kept_channels(G)
    other = trained_generator()
    with pytest.raises(squeeze_patch.PlanError, match="no record of the channels"):
        squeeze_patch.apply(other, like=G)
    relative = squeeze_patch.apply(trained_generator(), init="weights")
    with pytest.raises(squeeze_patch.PlanError, match="init='random' keeps none"):
        squeeze_patch.apply(other, like=relative, init="random")
    with pytest.raises(squeeze_patch.PlanError, match="like says everything"):
        squeeze_patch.apply(other, like=relative, ratio=2)
    assert squeeze_patch.status(other).state == "dense"


def test_a_damaged_record_is_refused() -> None:
    plan = squeeze_patch.status(squeeze_patch.apply(trained_generator(), init="weights")).plan
    data = plan.to_dict()
    assert squeeze_patch.Plan.from_json(json.dumps(data)).kept == plan.kept
    for wrong in ([0] * len(data["blocks"][0]["kept"]), data["blocks"][0]["kept"][1:], ["x"], [10**6]):
        data["blocks"][0]["kept"] = wrong
        with pytest.raises(squeeze_patch.PlanError, match="the squeeze plan is damaged"):
            squeeze_patch.Plan.from_dict(data)


def test_files_like_another(full_host: Host, tmp_path: Path) -> None:
    """convert --like, and info's fingerprint."""
    for seed, name in ((0, "a"), (1, "b")):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps({"G_ema": trained(full_host.generator(), seed)}))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments, "--trust"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    a, b, first, second, apart = (str(tmp_path / f"{name}.pkl") for name in ("a", "b", "first", "second", "apart"))
    run("convert", a, first, "--ratio", "2", "--init", "weights")
    run("convert", b, apart, "--ratio", "2", "--init", "weights")
    run("convert", b, second, "--like", first, "--init", "weights")
    prints = [run("info", file).split("channels ")[1].strip() for file in (first, second, apart)]
    assert prints[0] == prints[1] != prints[2]
    assert f"channels    {prints[0]} " in run("convert", b, second, "--like", first, "--init", "weights", "--force")
    done = CliRunner().invoke(main, ["convert", b, second, "--like", a, "--force", "--trust"])
    assert done.exit_code == 2
    assert "no squeezed generator in this file to be like" in done.output


def test_the_record_goes_with_state_dicts(rosinality: FlatHost, tmp_path: Path) -> None:
    G = trained(rosinality.generator())
    torch.save({"g_ema": G.state_dict()}, tmp_path / "dense.pt")
    done = squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights")
    loaded = squeeze_patch.load(trained(rosinality.generator(), seed=2), tmp_path / "squeezed.pt")
    assert squeeze_patch.status(loaded).plan.kept == done.plan.kept != {}
    relative = trained(rosinality.generator(), seed=3)
    torch.save({"g_ema": relative.state_dict()}, tmp_path / "other.pt")
    like = tmp_path / "squeezed.pt"
    other = squeeze_patch.convert(tmp_path / "other.pt", tmp_path / "like.pt", like=like, init="weights")
    assert other.plan.kept == done.plan.kept
