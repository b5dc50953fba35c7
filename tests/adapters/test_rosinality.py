"""The rosinality family beyond the contract suite: its own interface, its layers' names, its trained start."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.from_weights import starts_from_weights
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.testing import float_error, trained
from tests.helpers import squeezed_to, transplant
from tests.hosts import Host
from tests.hosts.flat import FlatHost


def test_names_of_the_state_dict(flat_host: FlatHost) -> None:
    """Every name of the dense generator stays; what is new is excite, beside the layer that reads it."""
    G = trained(flat_host.generator())
    dense = {name: tuple(tensor.shape) for name, tensor in G.state_dict().items()}
    squeeze_patch.apply(G, widths={4: 24, 8: 20, 16: 16, 32: 4})
    squeezed = {name: tuple(tensor.shape) for name, tensor in G.state_dict().items()}
    convs = "convs" if hasattr(G, "convs") else "style_convs"
    excites = {f"{convs}.{2 * k}.excite.{name}" for k in range(3) for name in ("weight", "bias")}
    assert set(squeezed) == set(dense) | excites
    assert squeezed[f"{convs}.2.excite.weight"] == (32, 20, 1, 1)
    changed = {name.split(".conv.")[0].split(".modulated_conv.")[0] for name in dense if dense[name] != squeezed[name]}
    layers = {name.removesuffix(".activate.bias").removesuffix(".bias") for name in changed}
    first = "conv1" if convs == "convs" else "style_conv1"
    assert layers == {
        first,
        "to_rgb1",
        *(f"{convs}.{2 * k + 1}" for k in range(3)),
        *(f"to_rgbs.{k}" for k in range(3)),
    }
    modulated = "conv" if convs == "convs" else "modulated_conv"
    assert squeezed[f"{convs}.3.{modulated}.weight"][1:3] == (16, 32)
    assert squeezed[f"to_rgbs.1.{modulated}.weight"] == (1, 3, 16, 1, 1)


def test_layers_are_the_hosts_own(flat_host: FlatHost) -> None:
    G = trained(flat_host.generator())
    types = {name: type(module) for name, module in G.named_modules()}
    squeeze_patch.apply(G, ratio=2)
    new = {name: type(module) for name, module in G.named_modules() if name not in types}
    assert {name: cls for name, cls in new.items() if not name.endswith("excite")} == {}
    assert {name: type(module) for name, module in G.named_modules() if name in types} == types


def test_kept_channels_stay_what_they_were(flat_host: FlatHost) -> None:
    """In the last block, where all that comes before is at ratio 1, so the same up to rounding."""
    G = trained(flat_host.generator(resolution=16))
    z, c = flat_host.latents(G)
    convs = "convs" if hasattr(G, "convs") else "style_convs"
    seen = []
    for plan in ({4: 32, 8: 32, 16: 32}, {4: 32, 8: 32, 16: 12}):
        squeezed = squeeze_patch.apply(copy.deepcopy(G), widths=plan)
        getattr(squeezed, convs)[3].register_forward_hook(lambda _m, _i, out: seen.append(out))
        flat_host.images(squeezed, z, c)
    whole, kept = seen
    nearest = [(whole - kept[:, i : i + 1]).abs().amax(dim=(0, 2, 3)).min() for i in range(12)]
    assert max(nearest) <= float_error(G, whole)


def test_own_features_are_the_hosts(flat_host: FlatHost) -> None:
    """The arithmetic behind the statistics, where no window is cut out. gfpgan repeats the border when it upsamples,
    the others see zeros there; two convolutions carry that three pixels inwards, where its 8x8 features are compared.
    """
    G = trained(flat_host.generator(resolution=8))
    found = locate(G)
    with torch.no_grad():
        for parameter in G.parameters():
            if parameter.shape == (1,):  # noise strength
                parameter.zero_()
    blocks = found.dense_blocks()
    ws = found.sample_w(4, seed=0)
    for step in simulation.dense_run(blocks, [4] * len(blocks), ws, seed=0):
        block, own = step.block, step.y
        seen = []
        size = block.spec.resolution
        handle = G.get_submodule(block.spec.name).register_forward_hook(lambda _m, _i, out, to=seen: to.append(out))
        G([ws], input_is_latent=True)
        handle.remove()
        edge = 3 if flat_host.name == "gfpgan" and size == 8 else 0
        a, b = (x[:, :, edge : size - edge, edge : size - edge] for x in (own, seen[0]))
        assert (a - b).abs().max() <= float_error(G, own)


def test_starts_are_those_of_the_nvidia_family(draggan: Host) -> None:
    """The same dense weights in either family's generator make the same images and the same start."""
    from tests.helpers import FLAT_HOSTS

    theirs = trained(draggan.generator())
    flat = FLAT_HOSTS["draggan-rosinality"]
    with flat.active():
        ours = flat.generator()
        transplant(theirs, ours)
        z, c = draggan.latents(theirs)
        images = draggan.images(theirs, z, c, noise="none")
        assert (flat.images(ours, z, c, noise="none") - images).abs().max() <= float_error(theirs, images)
        starts = []
        for G in (theirs, ours):
            found = locate(G)
            specs = found.specs
            shapes = {spec.name: squeezed_to(spec, spec.channels // 2) for spec in specs}
            made = starts_from_weights(Observation(found, seed=0), shapes)
            starts.append(list(made.values()))
    for a, b in zip(*starts):
        assert torch.equal(a.kept.outputs, b.kept.outputs)
        for name in ("excite_weight", "excite_bias", "rgb_weight", "rgb_bias"):
            one, other = getattr(a, name), getattr(b, name)
            # Rounding of features (1e-6) through a regression; its condition number is below 1e3 in this network.
            assert (one is None and other is None) or torch.allclose(one, other, atol=1e-3 * one.abs().max()), name
        assert torch.allclose(a.rgb_style.weight, b.rgb_style.weight, atol=1e-3 * a.rgb_style.weight.abs().max())


def test_replicas_of_data_parallel(rosinality: FlatHost) -> None:
    """What torch.nn.DataParallel does on every device, on the CPU: shallow copies, parameters in their places."""
    G = squeeze_patch.apply(trained(rosinality.generator()), ratio=2)
    z, c = rosinality.latents(G)
    images = rosinality.images(G, z, c)
    replicas = {id(module): module._replicate_for_data_parallel() for module in G.modules()}
    for module in G.modules():
        replica: Any = replicas[id(module)]
        for name, child in module._modules.items():
            assert child is not None
            replica._modules[name] = replicas[id(child)]
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else parameter * 2)
    assert not torch.allclose(rosinality.images(replicas[id(G)], z, c), images)  # its own parameters, and no other's
    assert torch.equal(rosinality.images(G, z, c), images)


def test_hooks(rosinality: FlatHost) -> None:
    """Those on layers that stay go on working; those on layers that go are refused."""
    G = trained(rosinality.generator())
    seen = []
    G.convs[2].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[1]))
    squeeze_patch.apply(G, ratio=2)
    rosinality.images(G, *rosinality.latents(G))
    squeeze_patch.remove(G)
    rosinality.images(G, *rosinality.latents(G))
    assert seen == [32, 32]
    assert list(G.convs[0]._forward_pre_hooks) == []
    for path in ("convs.1", "convs.3.conv", "to_rgbs.0.conv.modulation", "conv1"):
        G = rosinality.generator()
        G.get_submodule(path).register_forward_hook(lambda *_: None)
        with pytest.raises(squeeze_patch.StateError, match=rf"^{path} has hooks"):
            squeeze_patch.apply(G, ratio=1.5)
        assert squeeze_patch.status(G).state == "dense"


def test_training_and_frozen_flags_carry_over(rosinality: FlatHost) -> None:
    G = rosinality.generator().train().requires_grad_(False)
    G.convs[3].requires_grad_(True)
    squeeze_patch.apply(G, ratio=1.5)
    assert all(module.training for module in G.modules())
    layers = {name.rsplit(".", 1)[0] for name, p in G.named_parameters() if p.requires_grad}
    parts = ("conv", "conv.modulation", "noise", "activate")
    assert layers == {*(f"convs.3.{part}" for part in parts), "convs.4.excite"}


def test_attributes_changed_behind_the_constructor_count(rosinality: FlatHost) -> None:
    G = trained(rosinality.generator())
    G.convs[1].conv.fused = False
    G.convs[1].activate.scale = 3.0
    z, c = rosinality.latents(G)
    dense = rosinality.images(G, z, c)
    squeeze_patch.apply(G, ratio=1)
    assert not G.convs[1].conv.fused
    assert (rosinality.images(G, z, c) - dense).abs().max() <= float_error(G, dense)


def test_features_under_conditions(gfpgan: FlatHost) -> None:
    """gfpgan's restoration network multiplies and shifts what lies between a resolution's two convolutions."""
    from gfpgan.archs.gfpganv1_clean_arch import StyleGAN2GeneratorCSFT

    G = trained(StyleGAN2GeneratorCSFT(32, 32, 2, narrow=1 / 16))
    z, _ = gfpgan.latents(G)
    random = torch.Generator().manual_seed(0)
    conditions = [torch.randn(1, 32, r, r, generator=random) for r in (8, 8, 16, 16, 32, 32)]
    dense, _ = G([z], conditions, randomize_noise=False)
    with pytest.warns(squeeze_patch.UnprovedWarning, match="no proof was made .* it wants conditions, too"):
        squeeze_patch.apply(G, ratio=1)
    squeezed, _ = G([z], conditions, randomize_noise=False)
    assert (squeezed - dense).abs().max() <= float_error(G, dense)


def test_refusals(rosinality: FlatHost) -> None:
    def refused(match: str) -> None:
        before = {name: id(module) for name, module in G.named_modules()}
        with pytest.raises(squeeze_patch.UnsupportedModelError, match=match):
            squeeze_patch.apply(G, ratio=1.5)
        assert {name: id(module) for name, module in G.named_modules()} == before

    G = rosinality.generator()
    torch.nn.utils.parametrizations.spectral_norm(G.convs[1].conv.modulation)
    refused("convs.1 computes its weights from others")

    G = rosinality.generator()
    del G.to_rgbs[2]
    refused("convs has 6 layers and to_rgbs 2")

    G = rosinality.generator()
    G.convs[1].conv.weight = torch.nn.Parameter(torch.randn(1, 16, 32, 3, 3))
    refused("the shapes of convs.1 and to_rgbs.0 do not belong")

    G = rosinality.generator(blur_kernel=[1, 2, 1])
    refused("to_rgbs.0: ToRGB builds other parameters|no blur kernel of 4x4")

    class Other(type(G.convs[1])):  # type: ignore[misc]
        def __init__(self) -> None:
            raise NotImplementedError

    G = rosinality.generator()
    G.convs[1].__class__ = Other
    refused(r"convs.1: Other\(32, .*its host needs an adapter of its own")


def test_features_in_half_precision_prove_nothing(rosinality: FlatHost) -> None:
    """A fork whose forward casts features on their way, whatever its parameters are: what float16 rounds away is no
    sign of blocks that compute something else."""

    def half(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        y = type(self).__mro__[1].forward(self, x.float(), *args, **kwargs)  # type: ignore[attr-defined]
        return y.half() if hasattr(self, "noise") else y

    G = trained(rosinality.generator())
    for layer in (G.conv1, *G.convs, G.to_rgb1, *G.to_rgbs):
        layer.__class__ = type("Half", (type(layer),), {"forward": half})
    with pytest.warns(squeeze_patch.UnprovedWarning, match="no proof .* float error is .*, computed in float16"):
        squeeze_patch.apply(G, init="random")
    assert squeeze_patch.status(G).state == "squeezed"
    with pytest.warns(squeeze_patch.UnprovedWarning, match="computed in float16"):
        squeeze_patch.fuse(G.eval())
