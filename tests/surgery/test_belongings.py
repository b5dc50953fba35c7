"""What is the user's own on and around layers that are replaced: carried over, followed, or refused by name."""

from __future__ import annotations

import collections
import copy
import functools
import types
import weakref
from typing import Any, Callable, Dict, List, Tuple

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


def knows(layer: Any) -> Any:
    def hook(*_: Any, layer: Any = layer) -> None:
        pass

    return hook


def calls(G: Any) -> None:
    forward = block(G).conv1.forward
    G.call = lambda *a: forward(*a)


class Slow(torch.nn.Parameter):
    """A parameter that a training script tells from others."""


class Ranged(torch.Tensor):
    """A tensor that knows more than its numbers, as quantised ones do."""


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
    "a gain of toRGB": (give("torgb", "weight_gain", 0.1), r"b16.torgb .* holds weight_gain = 0.1 \(which depends on"),
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
    "hooks on a state dict": (
        lambda G: block(G).conv1._register_state_dict_hook(lambda *_: None),
        r"b16.conv1 \(SynthesisLayer\) holds hooks on its state dict",
    ),
    "hooks on the loading of a block": (
        lambda G: block(G)._register_load_state_dict_pre_hook(lambda *_: None),
        r"b16 \(SynthesisBlock\) holds hooks on its state dict",
    ),
    "a hook on a gradient": (
        lambda G: block(G).torgb.affine.bias.register_hook(lambda gradient: 0 * gradient),
        r"b16.torgb.affine .* holds hooks on the gradient of bias",
    ),
    "a parameter of another class": (
        lambda G: setattr(block(G).conv1, "weight", Slow(block(G).conv1.weight.detach())),
        r"b16.conv1 .* holds weight \(of a class of its own, Slow\)",
    ),
    "a buffer of another class": (
        lambda G: setattr(block(G).conv1, "noise_const", block(G).conv1.noise_const.as_subclass(Ranged)),
        r"b16.conv1 .* holds noise_const \(of a class of its own, Ranged\)",
    ),
    "a tensor on a parameter": (
        lambda G: setattr(block(G).conv1.weight, "fisher", torch.ones(32)),
        r"b16.conv1 .* holds weight.fisher",
    ),
    "rates by parameter": (
        lambda G: setattr(G, "rates", {block(G).conv1.weight: 0.1}),
        "rates.a key holds b16.conv1.weight",
    ),
    "a function that knows a layer": (
        lambda G: G.mapping.register_forward_hook(knows(block(G).conv1)),
        "mapping._forward_hooks.[0-9]+.a default holds b16.conv1",
    ),
    "a function that calls a layer": (calls, "call.forward holds b16.conv1"),
    "a function that calls a partial": (
        lambda G: setattr(G, "call", knows((functools.partial(len, block(G).conv1),))),
        r"call.a default.0.args.0 holds b16.conv1",
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


@pytest.mark.parametrize("method", ["squeeze", "narrow"])
def test_what_is_said_of_tensors(method: str, draggan: Host) -> None:
    """Notes on parameters; which buffers are stored; memory that processes have in common; its format."""
    G = trained(draggan.generator()).to(memory_format=torch.channels_last)
    b = block(G)
    b.conv1.weight.rate, b.conv0.weight.rate = 0.1, {"lr": 0.2}
    b.conv1.weight._dynamo_static_input_type = "guarded"  # torch.compile's, of that very tensor
    b.conv1._non_persistent_buffers_set.add("noise_const")
    G.share_memory()
    keys = set(G.state_dict())
    z, c = draggan.latents(G)
    images = draggan.images(G, z, c)
    squeeze_patch.apply(G, ratio=1, method=method, init="weights")
    assert (draggan.images(G, z, c) - images).abs().max() <= float_error(G, images)
    squeeze_patch.apply(squeeze_patch.remove(G), reduction=0.3, method=method, init="calibrated")
    assert (vars(block(G).conv1.weight), vars(block(G).conv0.weight)) == ({"rate": 0.1}, {"rate": {"lr": 0.2}})
    assert {key for key in G.state_dict() if "excite" not in key} == keys
    assert all(tensor.is_shared() for tensor in G.state_dict().values())
    kernels = [p for p in G.synthesis.parameters() if p.ndim == 4 and p.shape[-1] == 3]
    assert [p.is_contiguous(memory_format=torch.channels_last) for p in kernels] == [True] * len(kernels) != []


def test_backward_hooks_of_a_block(draggan: Host) -> None:
    """torch keeps two kinds in one table; registered before or after, they are called there and back."""
    G = trained(draggan.generator())
    seen: List[Tuple[int, ...]] = []
    z, c = draggan.latents(G)

    def gradients() -> List[Tuple[int, ...]]:
        seen.clear()
        draggan.images(G, z, c).sum().backward()
        return list(seen)

    def watch() -> Any:
        return block(G).register_full_backward_hook(lambda _module, _inputs, outputs: seen.append(outputs[0].shape))

    handle = watch()
    assert gradients() == [(3, 32, 16, 16)]
    squeeze_patch.apply(G, ratio=2, init="weights")
    assert gradients() == [(3, 32, 16, 16)]
    handle.remove()
    assert gradients() == []
    watch()
    squeeze_patch.remove(G)
    assert gradients() == [(3, 32, 16, 16)]


def test_remove_is_asked_the_same(draggan: Host) -> None:
    G = squeeze_patch.apply(trained(draggan.generator()), ratio=2, init="weights")
    G.optimiser = torch.optim.SGD(block(G).excite.parameters(), 0.1)
    with pytest.raises(squeeze_patch.StateError, match=r"optimiser.param_groups.0.params.0 holds b16.excite.weight"):
        squeeze_patch.remove(G)
    assert squeeze_patch.status(G).state == "squeezed"
    del G.optimiser
    assert squeeze_patch.status(squeeze_patch.remove(G)).state == "dense"


def containers(G: Any, b: Any) -> None:
    """References to layers, as tools for editing keep them."""
    G.styles = [b.conv1.affine, [b.torgb.affine]]
    G.by_name = {"b16": b, "more": (b.conv0, b.torgb)}
    G.editor = types.SimpleNamespace(block=b)
    G.draw = b.torgb.extra_repr
    G.alias = b.conv1
    G.named = torch.nn.ModuleDict({"rgb": b.torgb})
    G.unique = {b.conv1}
    G.recent = collections.deque([b.torgb], maxlen=3)
    G.seed = functools.partial(torch.nn.Module.train, b.torgb, mode=False)
    G.weak = weakref.ref(b.torgb)
    G.rates = {b.conv1: 0.5, b.conv0: 0.25}
    G.slots = Slots(b.conv1)
    G.deep = {"a": [{"b": [{"c": [b.conv1]}]}]}


class Slots:
    __slots__ = ("layer",)

    def __init__(self, layer: Any) -> None:
        self.layer = layer


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
        and G.recent == collections.deque([b.torgb])
        and G.recent.maxlen == 3
        and G.seed() is b.torgb
        and G.weak() is b.torgb
        and list(G.rates.items()) == [(b.conv1, 0.5), (b.conv0, 0.25)]
        and G.slots.layer is b.conv1
        and G.deep["a"][0]["b"][0]["c"][0] is b.conv1
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
    for parameter in dense.parameters():
        parameter.rate = 0.5
    squeeze_patch.apply(G, init="weights")
    assert layer() is not dense
    assert G.layers == [layer()]
    assert layer().note == "mine"
    assert {parameter.rate for parameter in layer().parameters()} == {0.5}
    squeeze_patch.remove(G)
    assert G.layers == [dense]
    for parameter in dense.parameters():
        handle = parameter.register_hook(lambda gradient: 2 * gradient)
        with pytest.raises(squeeze_patch.ProofError, match="holds hooks on the gradient of "):
            squeeze_patch.apply(G, init="weights")
        handle.remove()
    dense.forward = lambda *a, forward=dense.forward, **k: 0.5 * forward(*a, **k)
    with pytest.raises(squeeze_patch.ProofError, match="holds forward, a function of its own"):
        squeeze_patch.apply(G, init="weights")
