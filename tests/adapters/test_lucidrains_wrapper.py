"""lucidrains' training wrapper: both generators alike, or neither; its optimiser follows."""

from __future__ import annotations

import copy
from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.testing import trained
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from tests.helpers import count
from tests.hosts.lucidrains import LucidrainsHost


def test_the_training_wrapper(lucidrains: LucidrainsHost) -> None:
    """G and GE get the same channels, each from its own weights; its optimiser and its averaging go on."""
    gan = lucidrains.wrapper()
    trained(gan, seed=1)
    trained(gan.G, seed=2)  # so that the average is another generator
    dense = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    modules = {name: id(module) for name, module in gan.named_modules()}
    assert squeeze_patch.status(gan).state == "dense"
    assert squeeze_patch.apply(gan, ratio=2) is gan
    status = squeeze_patch.status(gan)
    assert status.state == "squeezed"
    assert status.parameters_after == count(gan.GE) + count(gan.SE) == count(gan.G) + count(gan.S)
    assert squeeze_patch.status(gan.G).plan == squeeze_patch.status(gan.GE).plan == status.plan
    with pytest.raises(squeeze_patch.StateError, match="in another way"):
        squeeze_patch.apply(gan, ratio=3)
    for generator, name in ((gan.G, "G"), (gan.GE, "GE")):
        old, new = dense[f"{name}.blocks.0.conv2.weight"], generator.blocks[0].conv2.weight  # later ones are refitted
        kept = [int((old - row).abs().flatten(1).amax(dim=1).argmin()) for row in new]
        assert torch.equal(old[kept], new)  # its own weights
        assert kept == kept_channels(gan, dense)  # of the same channels
    assert not any(parameter.requires_grad for parameter in gan.GE.parameters())
    assert all(parameter.requires_grad for parameter in gan.G.parameters())
    in_optimiser = {id(parameter) for parameter in gan.G_opt.param_groups[0]["params"]}
    assert in_optimiser == {id(parameter) for part in (gan.G, gan.S) for parameter in part.parameters()}

    assert squeeze_patch.remove(gan) is gan
    assert {name: id(module) for name, module in gan.named_modules()} == modules
    assert all(torch.equal(tensor, dense[name]) for name, tensor in gan.state_dict().items())
    in_optimiser = {id(parameter) for parameter in gan.G_opt.param_groups[0]["params"]}
    assert in_optimiser == {id(parameter) for part in (gan.G, gan.S) for parameter in part.parameters()}


def kept_channels(gan: Any, dense: Dict[str, torch.Tensor]) -> List[int]:
    """Of the average's first block."""
    old = dense["GE.blocks.0.conv2.weight"]
    return [int((old - row).abs().flatten(1).amax(dim=1).argmin()) for row in gan.GE.blocks[0].conv2.weight]


def test_steps_of_training(lucidrains: LucidrainsHost) -> None:
    """From scratch through the wrapper: the host's Generator, optimiser, path length and moving average."""
    from stylegan2_pytorch.stylegan2_pytorch import calc_pl_lengths

    gan = squeeze_patch.apply(lucidrains.wrapper(), init="random", keep_original=False)
    assert all(torch.equal(a, b) for a, b in zip(gan.G.parameters(), gan.GE.parameters()))
    z, c = lucidrains.latents({"G": gan.G})
    whole = {"S": gan.S, "G": gan.G}
    before = [parameter.clone() for parameter in gan.G.parameters()]
    for _ in range(2):
        gan.G_opt.zero_grad()
        ws, images = lucidrains.styles_and_images(whole, z, c)
        logits, _ = gan.D(images)
        (logits.mean() + (calc_pl_lengths(ws, images) - 1).square().mean()).backward()
        gradients = [parameter.grad for parameter in gan.G.parameters()]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
        assert all(gradient.abs().max() > 0 for gradient in gradients)
        gan.G_opt.step()
        gan.EMA()
    after, average = list(gan.G.parameters()), list(gan.GE.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after))
    for start, now, mean in zip(before, after, average):
        assert mean.shape == now.shape
        assert not torch.equal(mean, start)
        assert (mean - start).abs().sum() < (now - start).abs().sum()
    gan.reset_parameter_averaging()
    z, c = lucidrains.latents(whole)
    average_whole = {"S": gan.SE, "G": gan.GE}
    assert torch.equal(lucidrains.images(whole, z, c), lucidrains.images(average_whole, z, c))
    copied = copy.deepcopy(gan)
    assert squeeze_patch.status(copied) == squeeze_patch.status(gan)
    fresh = squeeze_patch.apply(lucidrains.wrapper(), init="random")
    fresh.load_state_dict(gan.state_dict(), strict=True)  # as the host's Trainer does
    with pytest.raises(RuntimeError, match="size mismatch"):
        lucidrains.wrapper().load_state_dict(gan.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapper_of_other_shapes(lucidrains: LucidrainsHost, kind: str) -> None:
    """G and GE alike, the optimiser over what is there now; layers that stay keep their moments, others have none."""
    gan = trained(lucidrains.wrapper(resolution=16), seed=1)
    trained(gan.G, seed=2)  # so that the average is another generator
    for parameter in gan.G_opt.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    gan.G_opt.step()
    stays, goes = gan.G.blocks[0].to_style1.weight, gan.G.blocks[0].conv1.weight
    moments = gan.G_opt.state[stays]["exp_avg"].clone()
    dense = [count(part) for part in (gan.G, gan.S)]
    plan = plan_of_kind(torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE}), kind)
    squeeze_patch.apply(gan, plan=plan, init="weights")
    status = squeeze_patch.status(gan)
    assert (status.state, status.plan, status.parameters_before) == ("squeezed", plan, sum(dense))
    mine, average = (squeeze_patch.status(part).plan for part in (gan.G, gan.GE))
    assert mine is not None
    assert average is not None
    assert mine.same_channels(average)
    assert mine.fingerprint != ""
    there = {id(parameter) for parameter in gan.G_opt.param_groups[0]["params"]}
    assert there == {id(parameter) for part in (gan.G, gan.S) for parameter in part.parameters()}
    assert torch.equal(gan.G_opt.state[stays]["exp_avg"], moments)
    assert goes not in gan.G_opt.state
    assert gan.G.blocks[0].conv1.weight not in gan.G_opt.state
    gan.G_opt.step()
    gan.EMA()
    squeeze_patch.apply(gan, plan=plan)  # is so already


def test_moments_of_parameters_that_stay(lucidrains: LucidrainsHost) -> None:
    gan = lucidrains.wrapper()
    for parameter in gan.G_opt.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    gan.G_opt.step()
    moments = gan.G_opt.state[gan.G.blocks[1].conv1.weight]["exp_avg"].clone()
    squeeze_patch.apply(gan, init="random")
    assert torch.equal(gan.G_opt.state[gan.G.blocks[1].conv1.weight]["exp_avg"], moments)
    there = {id(parameter) for parameter in gan.G_opt.param_groups[0]["params"]}
    assert {id(parameter) for parameter in gan.G_opt.state} <= there
    assert gan.G.blocks[1].conv2.weight not in gan.G_opt.state
    gan.G_opt.step()


def test_what_else_the_optimiser_trains_stays(lucidrains: LucidrainsHost) -> None:
    """A layer of the user's beside the generator, with its moments; and dense again, all is in the host's order."""
    gan = lucidrains.wrapper()
    before = list(gan.G_opt.param_groups[0]["params"])
    own = torch.nn.Parameter(torch.ones(3))
    gan.G_opt.param_groups[0]["params"].append(own)
    own.grad = torch.ones(3)
    gan.G_opt.step()
    moments = gan.G_opt.state[own]["exp_avg"].clone()
    squeeze_patch.apply(gan, init="random")
    expected = [*gan.G.parameters(), *gan.S.parameters(), own]
    assert all(a is b for a, b in zip(gan.G_opt.param_groups[0]["params"], expected))
    assert len(gan.G_opt.param_groups[0]["params"]) == len(expected)
    assert torch.equal(gan.G_opt.state[own]["exp_avg"], moments)
    squeeze_patch.remove(gan)
    assert [*map(id, gan.G_opt.param_groups[0]["params"])] == [*map(id, [*before, own])]


def test_a_wrapper_is_squeezed_whole_or_not_at_all(lucidrains: LucidrainsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from squeeze_patch.adapters.lucidrains.wrapper import LucidrainsWrapper

    gan = lucidrains.wrapper()
    modules = {name: id(module) for name, module in gan.named_modules()}
    gan.G.blocks[1].conv2.register_forward_hook(lambda *_: None)  # GE has none and would be squeezed
    with pytest.raises(squeeze_patch.StateError, match=r"^blocks\.1\.conv2 has hooks"):
        squeeze_patch.apply(gan, init="random")
    assert {name: id(module) for name, module in gan.named_modules()} == modules
    assert squeeze_patch.status(gan).state == "dense"

    gan = lucidrains.wrapper()
    modules = {name: id(module) for name, module in gan.named_modules()}
    with monkeypatch.context() as patched:

        def failing(*_: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(LucidrainsWrapper, "refresh_optimiser", failing)
        with pytest.raises(KeyboardInterrupt):
            squeeze_patch.apply(gan, init="random")
    assert {name: id(module) for name, module in gan.named_modules()} == modules

    squeeze_patch.apply(gan.G, init="random")
    assert squeeze_patch.status(gan).detail == "the generator and its moving average are squeezed differently"
    with pytest.raises(squeeze_patch.StateError, match="half squeezed"):
        squeeze_patch.apply(gan)
    with pytest.raises(squeeze_patch.StateError, match="another module .* a parameter initial_block; call remove"):
        squeeze_patch.remove(gan)
    squeeze_patch.remove(gan.G)
    assert squeeze_patch.status(gan).state == "dense"
    squeeze_patch.apply(gan, init="random")
    with torch.no_grad():
        gan.G.blocks[1].conv1.weight.add_(1)
    squeezed = {name: id(module) for name, module in gan.named_modules()}
    with pytest.raises(squeeze_patch.StateError, match="parameters were changed since apply"):
        squeeze_patch.remove(gan)
    assert {name: id(module) for name, module in gan.named_modules()} == squeezed  # GE, too
