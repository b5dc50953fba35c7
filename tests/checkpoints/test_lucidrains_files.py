"""lucidrains' model_N.pt: the training wrapper's state dict through `convert` and `load`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate, sampler
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.state_dicts import read_archive
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.testing import float_error
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from tests.helpers import cli, save_wrapper, trained_wrapper
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
    assert result.carried == ("the rest of GAN", "version")
    assert same(torch.load(source, weights_only=True)["GAN"], dense["GAN"])  # the source is left as it was

    squeeze_patch.apply(gan, ratio=2, init=init)
    squeezed = load_tensors(tmp_path / "squeezed.pt")
    assert same(squeezed["GAN"], gan.state_dict())
    assert squeezed["version"] == "1.9.0"
    assert squeeze_patch.Plan.from_dict(squeezed["squeeze_plan"]) == squeeze_patch.status(gan).plan
    others = [name for name in dense["GAN"] if name.startswith(("D.", "D_aug.", "S.", "SE."))]
    assert len(others) > 0
    assert all(torch.equal(squeezed["GAN"][name], dense["GAN"][name]) for name in others)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_shapes(lucidrains: LucidrainsHost, tmp_path: Path, kind: str) -> None:
    """The file is what apply makes in memory, is read with its Plan, makes its images, and comes back into a host."""
    gan = trained_wrapper(lucidrains, resolution=16)
    whole = torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE})
    plan = plan_of_kind(whole, kind)
    target = tmp_path / "changed.pt"
    convert(save_wrapper(gan, tmp_path), target, plan=plan, init="weights")
    squeeze_patch.apply(gan, plan=plan, init="weights")
    assert same(load_tensors(target)["GAN"], gan.state_dict())

    body = read_archive(target, trust=False)["GAN.GE"]
    assert squeeze_patch.status(body) == squeeze_patch.status(whole)
    assert squeeze_patch.status(body).plan == plan
    z, c = lucidrains.latents(whole)
    expected = lucidrains.images(whole, z, c, "none").detach() * 2 - 1  # 0 to 1 becomes -1 to 1
    made = sampler(body).images(z, c, "none", 1.0).detach()
    assert (made - expected).abs().max() <= float_error(whole, expected)
    found = locate(body)
    dense = locate(found.surgery.dense_like(body, found.network))
    assert [spec.shape for spec in dense.specs] == [None] * 3
    assert sum(p.numel() for p in dense.root.parameters()) == plan.parameters_before

    fresh = squeeze_patch.load(lucidrains.wrapper(resolution=16), target)
    assert same(fresh.state_dict(), gan.state_dict())
    assert squeeze_patch.status(fresh).plan == plan


def test_a_narrowed_file_without_its_plan(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    """How many channels there were is in no tensor; and a Plan that the tensors contradict is none."""
    gan = trained_wrapper(lucidrains, resolution=16)
    plan = plan_of_kind(torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE}), "narrow")
    squeeze_patch.apply(gan, plan=plan, init="random")
    path = save_wrapper(gan, tmp_path)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"blocks\.0.* is narrowed, but no Plan"):
        read_archive(path, trust=False)
    for change in ({"excite": True}, {"width": 3}):
        blocks = [{**block, **change} for block in plan.to_dict()["blocks"]]
        entries = {**torch.load(path, weights_only=True), "squeeze_plan": {**plan.to_dict(), "blocks": blocks}}
        torch.save(entries, path)
        for body in (read_archive(path, trust=False)[name] for name in ("GAN.GE", "GAN.G")):
            found = squeeze_patch.status(body).plan
            assert found is None or found.parameters_before < plan.parameters_before  # what is there now, not more
        fresh = squeeze_patch.load(lucidrains.wrapper(resolution=16), path)  # beside a dense one, their sizes tell
        assert same(fresh.state_dict(), gan.state_dict())


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
    gan = trained_wrapper(lucidrains, **kwargs)
    for state in ("dense", "squeezed"):
        archive = read_archive(save_wrapper(gan, tmp_path), trust=False)
        for name, host in (("GAN.GE", {"S": gan.SE, "G": gan.GE}), ("GAN.G", {"S": gan.S, "G": gan.G})):
            theirs, ours = torch.nn.ModuleDict(host), archive[name]
            plans = [squeeze_patch.plan(G, init="random") for G in (theirs, ours)]
            assert plans[0] == plans[1]
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


def test_files_of_forks_and_of_generators_alone(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    """Their blocks are the host's; they are refused for what they are, and not for holding no generator."""
    gan, path = lucidrains.wrapper(), tmp_path / "fork.pt"
    whole = {name: tensor for name, tensor in gan.state_dict().items() if ".initial_conv." not in name}
    for contents, match in (
        (whole, "G: this generator has the blocks of lucidrains.*but no initial_conv: it is a fork's"),
        (gan.GE.state_dict(), "the state of lucidrains' Generator alone, whose mapping network is missing"),
    ):
        torch.save(contents, path)
        for command in (["info"], ["convert", str(tmp_path / "out.pt")]):
            code, _, error = cli(command[0], path, *command[1:])
            assert code == 2
            assert re.search(match, error)
    torch.save({"GAN": torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE}).state_dict()}, path)
    assert cli("info", path)[0] == 0
