"""What is the user's own on and around layers that are replaced: carried over, followed, or refused by name."""

from __future__ import annotations

import copy
import types
from typing import Any, Callable, Dict, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.testing import trained
from squeeze_patch.testing.trained import float_error
from tests.hosts import Host

Change = Callable[[Any], None]


def block(G: Any) -> Any:
    return G.synthesis.b16


def give(path: str, name: str, value: Any) -> Change:
    return lambda G: setattr(block(G).get_submodule(path), name, value)


def half(path: str) -> Change:
    """A function of the user's in the place of a layer's forward."""

    def change(G: Any) -> None:
        layer = block(G).get_submodule(path)
        old = layer.forward
        layer.forward = lambda *a, **k: 0.5 * old(*a, **k)

    return change


def tied(G: Any) -> None:
    G.synthesis.b16.conv1.affine.weight = G.synthesis.b8.conv1.affine.weight


#: {case: (what the user did, what the refusal says)}
REFUSED: Dict[str, Tuple[Change, str]] = {
    "forward of conv1": (half("conv1"), r"b16.conv1 \(SynthesisLayer\) holds forward, a function of its own"),
    "forward of toRGB's affine": (half("torgb.affine"), r"b16.torgb.affine \(FullyConnectedLayer\) holds forward"),
    "forward of the block": (
        lambda G: setattr(block(G), "forward", block(G).forward),
        r"b16 \(SynthesisBlock\) holds forward",
    ),
    "a layer without parameters": (give("", "drop", torch.nn.Dropout(0.1)), r"b16 \(SynthesisBlock\) holds drop"),
    "a layer inside conv1": (give("conv1", "down", torch.nn.Linear(2, 2)), r"b16.conv1 .* holds down.weight, down.b"),
    "a buffer": (lambda G: block(G).conv1.register_buffer("mask", torch.ones(32)), r"b16.conv1 .* holds mask"),
    "a buffer that is not stored": (
        lambda G: block(G).torgb.register_buffer("mask", torch.ones(32), persistent=False),
        r"b16.torgb .* holds mask",
    ),
    "a tensor": (give("conv1", "scores", torch.ones(32)), r"b16.conv1 .* holds scores"),
    "tensors in a list": (give("conv1", "scores", [torch.ones(32)]), r"b16.conv1 .* holds scores"),
    "a gain of toRGB": (give("torgb", "weight_gain", 0.1), r"b16.torgb .* holds weight_gain = 0.1, which depends on"),
    "a list of parameters": (
        lambda G: setattr(G, "group", list(block(G).conv1.parameters())),
        r"group.0 holds b16.conv1.(weight|noise_strength)",
    ),
    "an optimiser": (
        lambda G: setattr(G, "optimiser", torch.optim.SGD(block(G).torgb.parameters(), 0.1)),
        r"optimiser.param_groups.0.params.0 holds b16.torgb",
    ),
    "a parameter under another name": (
        lambda G: G.register_parameter("head", block(G).torgb.weight),
        "head holds b16.torgb.weight",
    ),
    "weights that are shared": (tied, r"b16.conv1.affine.weight holds b8.conv1.affine.weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, draggan: Host) -> None:
    change, words = REFUSED[case]
    G = trained(draggan.generator())
    change(G)
    z, c = draggan.latents(G)
    images, modules = draggan.images(G, z, c), dict(G.named_modules())
    with pytest.raises(squeeze_patch.ProofError, match=words):
        squeeze_patch.apply(G, init="weights")
    assert dict(G.named_modules()) == modules
    assert torch.equal(draggan.images(G, z, c), images)
    with pytest.warns(squeeze_patch.LostWarning, match=f"lost by squeezing Generator: .*{words}"):
        squeeze_patch.apply(G, init="weights", verify=False)


#: attributes of the user's, also those that change what is computed
CARRIED: Dict[str, Tuple[str, str, Any]] = {
    "a note": ("conv1", "note", "trained on cats"),
    "numbers": ("torgb", "layers", {"depth": [3, 4]}),
    "a note on the block": ("", "stage", 3),
    "a function": ("conv1", "schedule", len),
    "a gain": ("conv1", "act_gain", 0.7),
    "a clamp": ("torgb", "conv_clamp", 0.4),
    "noise switched off": ("conv1", "use_noise", False),
    "an affine's gain": ("torgb.affine", "weight_gain", 0.3),
    "an affine's rate": ("conv1.affine", "bias_gain", 0.5),
}


@pytest.mark.parametrize("case", CARRIED)
def test_carried_over(case: str, draggan: Host) -> None:
    path, name, value = CARRIED[case]
    G = trained(draggan.generator())
    give(path, name, value)(G)
    z, c = draggan.latents(G)
    images = draggan.images(G, z, c)
    with squeeze_patch.squeezed(G, ratio=1, init="weights"):
        assert getattr(block(G).get_submodule(path), name) == value
        assert (draggan.images(G, z, c) - images).abs().max() <= float_error(G, images)
        assert getattr(block(copy.deepcopy(G)).get_submodule(path), name) == value
    assert torch.equal(draggan.images(G, z, c), images)


def containers(G: Any, b: Any) -> None:
    """References to layers, as tools for editing keep them."""
    G.styles = [b.conv1.affine, [b.torgb.affine]]
    G.by_name = {"b16": b, "more": (b.conv0, b.torgb)}
    G.editor = types.SimpleNamespace(block=b)
    G.draw = b.torgb.extra_repr
    G.alias = b.conv1
    G.named = torch.nn.ModuleDict({"rgb": b.torgb})
    G.unique = {b.conv1}


def follows(G: Any, b: Any) -> bool:
    return (
        G.styles[0] is b.conv1.affine
        and G.styles[1][0] is b.torgb.affine
        and G.by_name["b16"] is b
        and G.by_name["more"] == (b.conv0, b.torgb)
        and G.editor.block is b
        and G.draw.__self__ is b.torgb
        and G.alias is b.conv1
        and G.named["rgb"] is b.torgb
        and G.unique == {b.conv1}
    )


def test_references_follow(draggan: Host) -> None:
    """There and back, and after a refusal."""
    G = trained(draggan.generator())
    dense = block(G)
    containers(G, dense)
    squeeze_patch.apply(G, init="weights")
    assert block(G) is not dense
    assert follows(G, block(G))
    squeeze_patch.remove(G)
    assert block(G) is dense
    assert follows(G, dense)
    reader = torch.nn.Linear(32, 1)
    forward = G.forward
    G.forward = lambda *args, **kwargs: forward(*args, **kwargs) + reader(G.styles[0].bias[:32] * 0 + G.alias.bias)
    with pytest.raises(squeeze_patch.ProofError, match="does not run with squeezed blocks"):
        squeeze_patch.apply(G, init="weights")
    assert follows(G, dense)


def test_in_every_family(any_host: Host) -> None:
    """A list of style layers keeps pace, notes are carried over, functions refused, in layers of one flat list too."""
    G: Any = trained(any_host.generator())
    found = locate(G)
    spec = found.specs[1]

    def layer() -> Any:
        now = found.get_block(spec.name)
        return now.to_rgb if hasattr(now, "to_rgb") else now.torgb

    dense = layer()
    G.layers = [dense]
    dense.note = "mine"
    squeeze_patch.apply(G, init="weights")
    assert layer() is not dense
    assert G.layers == [layer()]
    assert layer().note == "mine"
    squeeze_patch.remove(G)
    assert G.layers == [dense]
    dense.forward = lambda *a, forward=dense.forward, **k: 0.5 * forward(*a, **k)
    with pytest.raises(squeeze_patch.ProofError, match="holds forward, a function of its own"):
        squeeze_patch.apply(G, init="weights")
