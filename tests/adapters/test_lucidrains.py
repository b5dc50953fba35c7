"""lucidrains' family beyond the contract suite: its arithmetic, its sizes, its layers, its training wrapper."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Dict, List, Set

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.simulation import WINDOW
from squeeze_patch.planning.plans import BlockPlan
from squeeze_patch.testing import float_error, trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.helpers import compare_windows, count
from tests.hosts.lucidrains import LucidrainsHost

#: image size: parameters of the Generator at network_capacity 16 and fmap_max 512, dense and squeezed at ratio 1.5
SIZES = {128: (16_726_688, 15_067_090), 256: (22_236_832, 19_892_709)}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts(lucidrains: LucidrainsHost, size: int) -> None:
    from stylegan2_pytorch.stylegan2_pytorch import Generator

    G = Generator(size, 512)
    assert count(G) == SIZES[size][0]
    assert abs(squeeze_patch.plan(G, init="random").reduction - 0.121) <= 0.003
    assert squeeze_patch.plan(G, ratio=1.5).parameters_after == SIZES[size][1]
    squeeze_patch.apply(G, ratio=1.5, init="random", keep_original=False)
    assert count(G) == SIZES[size][1]
    assert squeeze_patch.status(G).parameters_before == SIZES[size][0]


def test_the_mapping_network_counts(lucidrains: LucidrainsHost) -> None:
    """As in other families, where it is part of what is passed; at a standard size."""
    from stylegan2_pytorch.stylegan2_pytorch import Generator, StyleVectorizer

    whole = torch.nn.ModuleDict({"S": StyleVectorizer(512, 8), "G": Generator(128, 512)})
    assert abs(squeeze_patch.plan(whole, init="random").reduction - 0.121) <= 0.003


@pytest.mark.parametrize("noise", ["const", "none"])
def test_ratio_1_changes_no_image(lucidrains: LucidrainsHost, noise: str) -> None:
    G = trained(lucidrains.generator())
    z, c = lucidrains.latents(G)
    dense = lucidrains.images(G, z, c, noise)
    for init in ("calibrated", "weights"):
        with squeeze_patch.squeezed(G, ratio=1.0, init=init):
            assert (lucidrains.images(G, z, c, noise) - dense).abs().max() <= float_error(G, dense), init


def test_windows_are_the_hosts_features_and_images(lucidrains: LucidrainsHost) -> None:
    """Bilinear upsampling, plain convolutions, blurred images: every value is the host's, also at the maps' edges."""
    G = trained(lucidrains.generator(resolution=64))
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if "to_noise" in name and name.endswith("weight"):
                parameter.zero_()
    found = locate(G)
    network: Any = found.network
    blocks = found.dense_blocks()
    ws = found.sample_w(96, seed=0)
    seen: Dict[str, torch.Tensor] = {}
    for block in blocks:
        layer = found.get_block(block.spec.name)
        layer.register_forward_hook(lambda _m, _i, out, name=block.spec.name: seen.update({name: out[0]}))
    image = network(ws[:, None].repeat(1, network.num_layers, 1), lucidrains.noise(G, 96))
    compare_windows(G, blocks, ws, seen, image)


def test_noise_is_what_the_step_says(lucidrains: LucidrainsHost) -> None:
    """One uniform image for both convolutions, with a weight for every channel; the host swaps its axes."""
    G = trained(lucidrains.generator(resolution=4))
    found = locate(G)
    network: Any = found.network
    (block,) = found.dense_blocks()
    ws = found.sample_w(2, seed=0)
    (step,) = simulation.sample_windows([block], [2], seed=0)
    assert torch.equal(step.noise0, step.noise1)
    assert 0 <= step.noise0.min() < step.noise0.max() < 1
    seen: List[torch.Tensor] = []
    network.blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    network(ws[:, None], step.noise0.permute(0, 3, 2, 1))
    own = simulation.run(block, None, ws, step)
    assert (own - seen[0]).abs().max() <= float_error(G, own)
    assert block.conv1.noise_strength.abs().min() > 0  # type: ignore[union-attr]


def test_noise_windows_belong_together(lucidrains: LucidrainsHost) -> None:
    G = lucidrains.generator(resolution=32)
    blocks = locate(G).dense_blocks()
    step = simulation.sample_windows(blocks, [3] * len(blocks), seed=0)[-1]
    assert step.noise0.shape[2:] == (WINDOW + 2, WINDOW + 2)
    assert torch.equal(step.noise0[:, :, 1:-1, 1:-1], step.noise1)


def test_names_and_shapes(lucidrains: LucidrainsHost) -> None:
    """What the state dict gains is excite and rgb_bias; layers are of the host's classes, those that stay are the same
    objects."""
    G = trained(lucidrains.generator())["G"]
    dense = {name: tuple(tensor.shape) for name, tensor in G.state_dict().items()}
    objects = {name: (id(module), type(module)) for name, module in G.named_modules()}
    squeeze_patch.apply(G, widths={4: 24, 8: 20, 16: 16, 32: 12}, init="random")
    squeezed = {name: tuple(tensor.shape) for name, tensor in G.state_dict().items()}
    new = {f"blocks.{k}.excite.{name}" for k in range(3) for name in ("weight", "bias")}
    assert set(squeezed) == set(dense) | new | {f"blocks.{k}.rgb_bias" for k in range(4)}
    assert squeezed["blocks.1.excite.weight"] == (32, 20, 1, 1)
    changed = {name.split(".", 2)[2] for name in dense if dense[name] != squeezed[name]}
    rgb = {"to_rgb.to_style.weight", "to_rgb.to_style.bias", "to_rgb.conv.weight"}
    assert changed == {"conv2.weight", "to_noise2.weight", "to_noise2.bias"} | rgb
    for name, module in G.named_modules():
        parts = name.split(".", 2)
        if parts[0] != "blocks" or len(parts) < 3:
            continue
        if parts[2].split(".")[0] in ("conv2", "to_noise2", "to_rgb"):
            assert type(module) is objects[name][1]
        elif parts[2] != "excite":
            assert id(module) == objects[name][0]
    assert G.blocks[2].conv2.filters == G.blocks[2].to_rgb.to_style.out_features == 16


def test_kept_channels_stay_what_they_were(lucidrains: LucidrainsHost) -> None:
    """In the last block, where all that comes before is at ratio 1, so the same up to rounding."""
    G = trained(lucidrains.generator(resolution=16))
    z, c = lucidrains.latents(G)
    seen = []
    for plan in ({4: 32, 8: 32, 16: 32}, {4: 32, 8: 32, 16: 12}):
        squeezed = squeeze_patch.apply(copy.deepcopy(G), widths=plan)
        # of the image's layer, as what comes in is to be seen
        squeezed["G"].blocks[2].to_rgb.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
        lucidrains.images(squeezed, z, c)
    whole, kept = seen
    nearest = [(whole - kept[:, i : i + 1]).abs().amax(dim=(0, 2, 3)).min() for i in range(12)]
    assert max(nearest) <= float_error(G, whole)


def test_trained_starts_are_near(lucidrains: LucidrainsHost) -> None:
    """Nearer to the dense images than the mean image is, which is what a start that knows nothing would be at best."""
    G = trained(lucidrains.generator())
    z, c = lucidrains.latents(G, n=64)
    dense = lucidrains.images(G, z, c)
    spread = (dense - dense.mean(dim=0)).square().mean()
    for init in ("calibrated", "weights"):
        near = lucidrains.images(squeeze_patch.apply(copy.deepcopy(G), init=init), z, c)
        assert (near - dense).square().mean() < spread, init
        # where toRGB has no bias to make the mean good with
        narrow = squeeze_patch.apply(copy.deepcopy(G), plan=plan_of_kind(G, "narrow", share=0.75), init=init)
        assert (lucidrains.images(narrow, z, c) - dense).square().mean() < spread, init


def test_layers_of_other_shapes(lucidrains: LucidrainsHost) -> None:
    """What keeps its size is the dense block's own, also its hooks; a narrowed block is of the host's class."""
    G = trained(lucidrains.generator(resolution=16))
    dense = list(G["G"].blocks)
    plan = squeeze_patch.plan(G, widths={4: 24})
    (block,) = plan.blocks
    first = dataclasses.replace(block, inner=16)
    squeeze_patch.apply(G, plan=dataclasses.replace(plan, blocks=(first,)), init="random")
    ours = G["G"].blocks[0]
    assert shared(ours, dense[0]) == {"to_style1", "activation"}
    assert (ours.conv1.filters, ours.to_noise1.out_features, ours.to_style2.out_features) == (16, 16, 16)
    assert ours.excite.weight.shape == (32, 24, 1, 1)
    handle = ours.conv1.register_forward_hook(lambda *_: None)
    with pytest.raises(squeeze_patch.StateError, match=r"^blocks\.0\.conv1 has hooks"):
        squeeze_patch.remove(G)
    handle.remove()
    squeeze_patch.remove(G)
    assert list(G["G"].blocks) == dense

    narrow = dataclasses.replace(block, excite=False)
    handle = dense[1].to_style2.register_forward_hook(lambda *_: None)  # of a layer that stays
    blocks = [narrow, BlockPlan("blocks.1", 8, 32, 32, excite=False)]
    squeeze_patch.apply(G, plan=dataclasses.replace(plan, blocks=tuple(blocks)), init="weights")
    first, second, third = G["G"].blocks
    assert [type(part).__name__ for part in (first, second)] == ["GeneratorBlock"] * 2
    assert shared(first, dense[0]) == {"to_style1", "to_noise1", "conv1", "to_style2", "activation"}
    assert shared(second, dense[1]) == {"upsample", "to_style2", "activation"}
    assert third is dense[2]
    handle.remove()
    squeeze_patch.remove(G)
    dense[1].to_style1.register_forward_hook(lambda *_: None)
    with pytest.raises(squeeze_patch.StateError, match=r"^blocks\.1\.to_style1 has hooks"):
        squeeze_patch.apply(G, plan=dataclasses.replace(plan, blocks=tuple(blocks)), init="weights")
    assert list(G["G"].blocks) == dense


def shared(block: Any, dense: Any) -> Set[str]:
    return {name for name, layer in block._modules.items() if layer is dense._modules.get(name)}


def test_attention_reads_all_channels(lucidrains: LucidrainsHost) -> None:
    """So what it reads can be squeezed, behind conv1 as well as conv2, but not narrowed."""
    G = lucidrains.generator(resolution=16, attn_layers=[2])  # in front of the second block
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"blocks\.0 .*attns\.1.*method='squeeze'"):
        squeeze_patch.apply(G, plan=plan_of_kind(G, "narrow"), init="random")
    assert squeeze_patch.status(G).state == "dense"
    plan = squeeze_patch.plan(G, widths={16: 16})
    last = dataclasses.replace(plan, blocks=(dataclasses.replace(plan.blocks[0], excite=False),))
    for plan in (plan_of_kind(G, "inner"), last):
        with squeeze_patch.squeezed(G, plan=plan, init="random"):
            assert lucidrains.images(G, *lucidrains.latents(G)).isfinite().all()


@pytest.mark.parametrize("kind", ["inner", "mixed"])
def test_fused_blocks_of_other_shapes(lucidrains: LucidrainsHost, kind: str) -> None:
    """Squeezed ones run fused, also between narrowed ones, which do not."""
    G = trained(lucidrains.generator()).eval().requires_grad_(False)
    squeeze_patch.apply(G, plan=plan_of_kind(G, kind), init="weights")
    z, c = lucidrains.latents(G)
    before = lucidrains.images(G, z, c)
    squeeze_patch.fuse(G)
    assert squeeze_patch.status(G).fused_blocks == sum(spec.is_squeezed for spec in locate(G).specs) >= 2
    after = lucidrains.images(G, z, c)
    assert not torch.equal(after, before)  # computed in another order
    assert (after - before).abs().max() <= float_error(G, before)
    squeeze_patch.unfuse(G)
    assert torch.equal(lucidrains.images(G, z, c), before)


@pytest.mark.filterwarnings("ignore:no proof was made:squeeze_patch.UnprovedWarning")  # one of them cannot be run
def test_what_a_trained_start_needs(lucidrains: LucidrainsHost) -> None:
    def refused(root: Any, match: str) -> None:
        before = {name: id(module) for name, module in root.named_modules()}
        with pytest.raises(squeeze_patch.UnsupportedModelError, match=match):
            squeeze_patch.apply(root)
        assert {name: id(module) for name, module in root.named_modules()} == before

    refused(lucidrains.generator()["G"], "Generator holds 0 mapping networks .*apply takes the StyleGAN2 wrapper")
    refused(lucidrains.generator(attn_layers=[2]), r"attention in front of blocks\.2 \(attns\.2\)")
    refused(lucidrains.generator(no_const=True), "no_const: blocks.0 starts from styles")
    G = lucidrains.generator()
    G["G"].blocks[2].upsample.mode = "nearest"
    refused(G, "blocks.1.to_rgb.upsample or blocks.2.upsample is not bilinear")
    G = lucidrains.generator()
    G["G"].blocks[1].conv2.demod = False
    refused(G, "blocks.1.conv2 has no demodulation")


@pytest.mark.parametrize("kwargs", [{"attn_layers": [1, 2]}, {"no_const": True}, {"transparent": True}])
def test_every_generator_starts_at_random(lucidrains: LucidrainsHost, kwargs: Any) -> None:
    """Attention, a beginning without a constant, images with alpha: shapes and gradients."""
    G = squeeze_patch.apply(lucidrains.generator(**kwargs), init="random")
    _, images = lucidrains.styles_and_images(G, *lucidrains.latents(G))
    assert images.shape == (3, 4 if "transparent" in kwargs else 3, 32, 32)
    images.square().mean().backward()
    assert [name for name, p in G["G"].named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_random_layers_begin_as_the_hosts(lucidrains: LucidrainsHost) -> None:
    """Variance 2 / fan-in and no noise; excite keeps the features' variance. 5 standard deviations of a variance's
    estimate, sqrt(2 / n) of it."""
    gan = squeeze_patch.apply(lucidrains.wrapper(network_capacity=16), ratio=2, init="random")
    block = gan.G.blocks[1]
    for weight, gain in ((block.conv2.weight, 2), (block.to_rgb.to_style.weight, 2), (block.excite.weight, 1)):
        wanted = gain / weight[0].numel()
        assert abs(weight.var().item() / wanted - 1) < 5 * (2 / weight.numel()) ** 0.5
    assert not block.to_noise2.weight.any()
    assert not block.to_noise2.bias.any()


def test_hooks(lucidrains: LucidrainsHost) -> None:
    """Those on blocks and on layers that stay go on working; those on layers that go are refused."""
    G = trained(lucidrains.generator())
    seen = []
    handle = G["G"].blocks[1].register_forward_hook(lambda module, _i, _o: seen.append(type(module).__name__))
    G["G"].blocks[1].conv1.register_forward_hook(lambda *_: seen.append("conv1"))
    squeeze_patch.apply(G, ratio=1.5)
    lucidrains.images(G, *lucidrains.latents(G))
    handle.remove()
    lucidrains.images(G, *lucidrains.latents(G))
    assert seen == ["conv1", "SqueezedGeneratorBlock", "conv1"]
    for path in ("conv2", "to_noise2", "to_rgb.to_style"):
        G = lucidrains.generator()
        G["G"].blocks[1].get_submodule(path).register_forward_hook(lambda *_: None)
        with pytest.raises(squeeze_patch.StateError, match=rf"^blocks\.1\.{path} has hooks"):
            squeeze_patch.apply(G, ratio=1.5)
        assert squeeze_patch.status(G).state == "dense"


def test_training_and_frozen_flags_carry_over(lucidrains: LucidrainsHost) -> None:
    G = lucidrains.generator()["G"].train().requires_grad_(False)
    G.blocks[1].conv2.requires_grad_(True)
    squeeze_patch.apply(G, init="random")
    assert all(module.training for module in G.modules())
    trainable = {name for name, parameter in G.named_parameters() if parameter.requires_grad}
    assert trainable == {f"blocks.1.{name}" for name in ("conv2.weight", "excite.weight", "excite.bias", "rgb_bias")}


def test_refusals(lucidrains: LucidrainsHost) -> None:
    def refused(match: str) -> None:
        with pytest.raises(squeeze_patch.UnsupportedModelError, match=match):
            squeeze_patch.apply(G, init="random")

    G = lucidrains.generator()
    torch.nn.utils.parametrizations.spectral_norm(G["G"].blocks[1].to_style1)
    refused("blocks.1 computes its weights from others")

    G = lucidrains.generator()
    G["G"].blocks[2].conv2.weight = torch.nn.Parameter(torch.randn(16, 32, 3, 3))
    refused("the shapes of blocks.2's conv1, conv2 and to_rgb do not belong")

    G = lucidrains.generator()
    del G["G"].blocks[0].to_noise2
    refused("blocks.0 .GeneratorBlock. has no parameter to_noise2.bias and no to_noise2.weight")

    G = lucidrains.generator()
    del G["G"].attns
    refused("has the blocks of lucidrains' stylegan2-pytorch, but no attns: it is a fork's")
    del G["G"].initial_conv
    refused("but no initial_conv and no attns: it is a fork's, or of an early version")

    G = lucidrains.wrapper().D
    refused("no StyleGAN2 generator found in Discriminator")
