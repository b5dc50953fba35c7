"""lucidrains' model_N.pt: the training wrapper's state dict through `convert` and `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.state_dicts import read_archive
from squeeze_patch.checkpoints.tensor_files import load_tensors
from tests.helpers import save_wrapper, trained_wrapper
from tests.hosts.lucidrains import LucidrainsHost


def same(a: Dict[str, torch.Tensor], b: Dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("init", ["calibrated", "weights"])
def test_convert_does_what_apply_does(lucidrains: LucidrainsHost, tmp_path: Path, init: str) -> None:
    """The file that comes out is the state of a wrapper squeezed in memory, to the bit, and has its plan."""
    gan = trained_wrapper(lucidrains)
    source = save_wrapper(gan, tmp_path)
    dense = torch.load(source, weights_only=True)
    result = convert(source, tmp_path / "squeezed.pt", ratio=2, init=init)
    assert result.generators == ("GAN.GE", "GAN.G")
    assert result.shared_channels
    assert result.carried == ("GAN", "version")
    assert same(torch.load(source, weights_only=True)["GAN"], dense["GAN"])  # the source is left as it was

    squeeze_patch.apply(gan, ratio=2, init=init)
    squeezed = load_tensors(tmp_path / "squeezed.pt")
    assert same(squeezed["GAN"], gan.state_dict())
    assert squeezed["version"] == "1.9.0"
    assert squeeze_patch.Plan.from_dict(squeezed["squeeze_plan"]) == squeeze_patch.status(gan).plan
    others = [name for name in dense["GAN"] if name.startswith(("D.", "D_aug.", "S.", "SE."))]
    assert len(others) > 0
    assert all(torch.equal(squeezed["GAN"][name], dense["GAN"][name]) for name in others)


def test_load_into_the_wrapper(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    gan = squeeze_patch.apply(trained_wrapper(lucidrains), ratio=2, init="weights")
    path = save_wrapper(gan, tmp_path)  # stores no plan
    fresh = lucidrains.wrapper()
    assert squeeze_patch.load(fresh, path) is fresh
    assert same(fresh.state_dict(), gan.state_dict())
    assert squeeze_patch.status(fresh).plan.same_widths(squeeze_patch.status(gan).plan)
    in_optimiser = {id(parameter) for parameter in fresh.G_opt.param_groups[0]["params"]}
    assert in_optimiser == {id(parameter) for part in (fresh.G, fresh.S) for parameter in part.parameters()}
    squeeze_patch.load(fresh, path)  # squeezed in the same way already
    assert same(squeeze_patch.load(lucidrains.wrapper(), gan.state_dict()).state_dict(), gan.state_dict())

    whole = squeeze_patch.load(lucidrains.generator(channel_base=256, channel_max=512), path)
    assert same(whole["G"].state_dict(), gan.GE.state_dict())
    whole = squeeze_patch.load(lucidrains.generator(channel_base=256, channel_max=512), path, entry="GAN.G")
    assert same(whole["G"].state_dict(), gan.G.state_dict())


def test_load_refuses_and_changes_nothing(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    gan = squeeze_patch.apply(lucidrains.wrapper(), ratio=2, init="random")
    path = save_wrapper(gan, tmp_path)
    other = lucidrains.wrapper(network_capacity=8)
    modules = {name: id(module) for name, module in other.named_modules()}
    with pytest.raises(squeeze_patch.PlanError, match="does not fit"):
        squeeze_patch.load(other, path)
    assert {name: id(module) for name, module in other.named_modules()} == modules

    damaged = torch.load(path, weights_only=True)
    del damaged["GAN"]["D.to_logit.weight"]
    torch.save(damaged, path)
    fresh = lucidrains.wrapper()
    modules = {name: id(module) for name, module in fresh.named_modules()}
    with pytest.raises(squeeze_patch.CheckpointError, match=r"1 tensors differ \(D.to_logit.weight: missing"):
        squeeze_patch.load(fresh, path)
    assert {name: id(module) for name, module in fresh.named_modules()} == modules

    dense = save_wrapper(lucidrains.wrapper(), tmp_path)
    with pytest.raises(squeeze_patch.CheckpointError, match="this generator is dense"):
        squeeze_patch.load(fresh, dense)


@pytest.mark.parametrize("kwargs", [{}, {"attn_layers": [1, 2]}, {"no_const": True}, {"transparent": True}])
def test_stand_ins_are_the_hosts(lucidrains: LucidrainsHost, tmp_path: Path, kwargs: Any) -> None:
    """Plans, blocks and styles, dense and squeezed; every tensor comes back where it was."""
    from squeeze_patch.adapters import locate

    gan = trained_wrapper(lucidrains, **kwargs)
    for state in ("dense", "squeezed"):
        archive = read_archive(save_wrapper(gan, tmp_path), trust=False)
        for name, host in (("GAN.GE", {"S": gan.SE, "G": gan.GE}), ("GAN.G", {"S": gan.S, "G": gan.G})):
            theirs, ours = torch.nn.ModuleDict(host), archive[name]
            assert squeeze_patch.plan(theirs) == squeeze_patch.plan(ours)
            assert squeeze_patch.status(ours).state == state
            assert torch.equal(locate(ours).sample_w(5, seed=0), locate(theirs).sample_w(5, seed=0))
        with open(tmp_path / "again.pt", "wb") as stream:
            archive.save(stream)
        assert same(torch.load(tmp_path / "again.pt", weights_only=True)["GAN"], gan.state_dict())
        if state == "dense":
            squeeze_patch.apply(gan, init="random")


def test_files_that_are_nearly_the_hosts(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    gan = lucidrains.wrapper()
    path = save_wrapper(gan, tmp_path)
    entries = inspect(path, trust=False)
    assert [name for name, entry in entries.items() if entry.status is not None] == ["GAN.GE", "GAN.G"]
    for name, match in (  # left out, or, where there is none, added
        ("G.blocks.1.conv2.weight", "it has no conv2.weight"),
        ("GE.blocks.0.to_rgb.upsample.1.f", r"is another network's: .*blocks\.0\.to_rgb\.upsample\.1\.f"),
        ("GE.unknown", "but is another network's"),
    ):
        state = gan.state_dict()
        if name in state:
            del state[name]
        else:
            state[name] = torch.zeros(1)
        torch.save({"GAN": state}, path)
        with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"looks like the state of lucidrains.*{match}"):
            read_archive(path, trust=False)
