"""What users have put onto squeezed layers, and done to them, when the dense blocks come back."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any, Callable, Dict, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.demo import trained_generator
from squeeze_patch.testing import trained
from tests.hosts import Host

Change = Callable[[Any], None]


def squeezed(host: Host) -> Any:
    return squeeze_patch.apply(trained(host.generator()), ratio=2, init="weights")


def half(layer: Any) -> None:
    old = layer.forward
    layer.forward = lambda *a, **k: 0.5 * old(*a, **k)


def test_it_is_handed_back(draggan: Host) -> None:
    """Switched off in the whole generator, it is switched off in all of it, not in the layers that stayed."""
    G = squeezed(draggan)
    for module in G.modules():
        if hasattr(module, "use_noise"):
            module.use_noise = False
    b = G.synthesis.b16
    b.note, b.torgb.conv_clamp, b.conv1.weight.rate = {"depth": [3]}, 0.4, 0.1
    b.fp16_on_cpu = not b.fp16_on_cpu  # of no dense block's
    squeeze_patch.fuse(G.eval())
    G.share_memory()
    squeeze_patch.remove(G)
    assert [m.use_noise for m in G.modules() if hasattr(m, "use_noise")] == [False] * 7
    dense = G.synthesis.b16
    assert dense is not b
    assert (dense.note, dense.torgb.conv_clamp, vars(dense.conv1.weight)) == ({"depth": [3]}, 0.4, {"rate": 0.1})
    assert not {"fused", "defers", "squeezed_channels", "fp16_on_cpu"} & set(vars(dense))
    assert all(tensor.is_shared() for tensor in G.state_dict().values())


def test_modes_of_single_layers() -> None:
    """conv0 is in both blocks, conv1 and toRGB are not."""
    G = trained_generator().train()
    for layer in (G.synthesis.b16.conv0, G.synthesis.b16.conv1, G.synthesis.b8.torgb):
        layer.eval()
    before = {path: module.training for path, module in G.named_modules()}
    squeeze_patch.apply(G, ratio=2, init="weights")
    after = {path: module.training for path, module in G.named_modules() if "excite" not in path}
    assert after == before
    G.synthesis.b4.conv1.eval()
    squeeze_patch.remove(G)
    changed = {path for path, module in G.named_modules() if module.training != before[path]}
    assert changed == {"synthesis.b4.conv1", "synthesis.b4.conv1.affine"}


def test_a_diverged_generator_has_not_been_trained_since() -> None:
    """NaN is another number than itself."""
    G = trained_generator()
    with torch.no_grad():
        G.mapping.fc0.weight[0, :2] = torch.tensor([float("nan"), float("inf")])
        G.mapping.fc1.bias[0] = float("inf")
    with pytest.warns(squeeze_patch.UnprovedWarning):
        squeeze_patch.apply(G, ratio=2, init="random")
    assert squeeze_patch.status(squeeze_patch.remove(G)).state == "dense"


def test_what_came_along_stays(draggan: Host) -> None:
    """Nothing changed on the squeezed layers, nothing is changed on the dense ones; a list that grew is."""
    G = trained(draggan.generator())
    G.synthesis.b16.conv1.history = [1]
    G.synthesis.b8.conv1.weight.rate = 1.0
    before = {name: set(vars(module)) for name, module in G.named_modules()}
    squeeze_patch.apply(G, ratio=2, init="weights")
    G.synthesis.b16.conv1.history.append(2)
    G.synthesis.b8.conv1.weight.rate = 2.0
    squeeze_patch.remove(G)
    assert {name: set(vars(module)) for name, module in G.named_modules()} == before
    assert G.synthesis.b16.conv1.history == [1, 2]
    assert not any(tensor.is_shared() for tensor in G.state_dict().values())
    assert G.synthesis.b8.conv1.weight.rate == 2.0


REFUSED: Dict[str, Tuple[Change, str]] = {
    "a function": (lambda b: half(b.conv1), r"b16.conv1 \(SynthesisLayer\) holds forward, a function of its own"),
    "a buffer": (lambda b: b.conv1.register_buffer("mask", torch.ones(3)), r"b16.conv1 .* holds mask"),
    "a layer": (lambda b: setattr(b, "drop", torch.nn.Dropout(0.1)), r"b16 \(SqueezedBlock\) holds drop"),
    "a gradient's hook": (
        lambda b: b.torgb.weight.register_hook(lambda gradient: 0 * gradient),
        "b16.torgb .* holds hooks on the gradient of weight",
    ),
    "a state dict's hook": (
        lambda b: b.conv1._register_state_dict_hook(lambda *_: None),
        "b16.conv1 .* holds hooks on its state dict",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, draggan: Host) -> None:
    change, words = REFUSED[case]
    G = squeezed(draggan).eval()
    squeeze_patch.fuse(G)
    change(G.synthesis.b16)
    modules = dict(G.named_modules())
    with pytest.raises(squeeze_patch.StateError, match=f"in Generator {words}.*the dense blocks cannot have"):
        squeeze_patch.remove(G)
    assert dict(G.named_modules()) == modules
    assert squeeze_patch.status(G).fused_blocks == 4


def test_in_every_family(any_host: Host) -> None:
    """Also narrowed, and fused in between."""
    for method in ("squeeze", "narrow"):
        G: Any = trained(any_host.generator()).eval()
        modules = dict(G.named_modules())
        before = {name: set(vars(module)) for name, module in modules.items()}
        squeeze_patch.apply(G, ratio=2, init="weights", method=method)
        if method == "squeeze":
            squeeze_patch.fuse(G, verify=False)
        squeeze_patch.remove(G)
        assert dict(G.named_modules()) == modules
        assert {name: set(vars(module)) for name, module in modules.items()} == before


def reordered(weight: torch.Tensor) -> None:
    weight.copy_(weight.flip(0))


def negated(weight: torch.Tensor) -> None:
    weight.neg_()


def mirrored(weight: torch.Tensor) -> None:
    """Its sum stays."""
    weight.copy_(2 * weight.mean() - 3 * (weight - weight.mean()))


@pytest.mark.parametrize("change", [reordered, negated, mirrored])
def test_layers_that_stayed_and_changed_are_seen(change: Callable[[torch.Tensor], None], draggan: Host) -> None:
    G = squeezed(draggan)
    with torch.no_grad():
        change(G.synthesis.b16.conv0.weight)
    with pytest.raises(squeeze_patch.StateError, match=r"1 parameters were .*\(synthesis.b16.conv0.w"):
        squeeze_patch.remove(G)


def test_what_was_made_in_inference_mode_comes_back(draggan: Host) -> None:
    with torch.inference_mode():
        G = trained(draggan.generator())
    dense = G.synthesis.b16
    squeeze_patch.remove(squeeze_patch.apply(G, ratio=2, init="weights"))
    assert G.synthesis.b16 is dense


def test_generators_of_a_class_that_a_user_derived(draggan: Host) -> None:
    """Copies and pickles are the host's class, as those of the dense one."""
    base: Any = type(draggan.generator())

    class Doubled(base):  # type: ignore[misc]
        def __init__(self, scale: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.scale = scale

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.scale * super().forward(*args, **kwargs)

    G = trained(Doubled(2.0, **draggan.generator()._init_kwargs))
    z, c = draggan.latents(G)
    squeeze_patch.apply(G, ratio=2, init="weights")
    images = draggan.images(G, z, c)
    for other in (copy.deepcopy(G), pickle.loads(pickle.dumps(G))):
        assert squeeze_patch.status(other).state == "squeezed"
        assert isinstance(other, base.__mro__[1])
        assert torch.equal(2.0 * draggan.images(other, z, c), images)
    found = locate(G)
    assert squeeze_patch.status(found.surgery.dense_like(G, found.network)).state == "dense"
    assert squeeze_patch.status(squeeze_patch.remove(G)).state == "dense"


def test_another_generator_with_the_same_synthesis_network() -> None:
    """Its mapping differs, so that its fingerprints do; the one that apply was called on brings both back."""
    G, other = trained_generator(), trained_generator()
    other.synthesis = G.synthesis
    with torch.no_grad():
        other.mapping.fc1.weight.mul_(1.1)
    squeeze_patch.apply(G, ratio=2, init="random")
    which = r"another generator .* network, and other parameters .*\(mapping\.fc1\.weight, \.\.\.\); "
    with pytest.raises(squeeze_patch.StateError, match=f"{which}call remove on that one"):
        squeeze_patch.remove(other)
    assert {squeeze_patch.status(each).state for each in (G, other)} == {"squeezed"}
    squeeze_patch.remove(G)
    assert {squeeze_patch.status(each).state for each in (G, other)} == {"dense"}
    squeeze_patch.apply(G, ratio=2, init="random")
    del G
    gc.collect()
    with pytest.raises(squeeze_patch.StateError, match=f"{which}load the dense checkpoint"):
        squeeze_patch.remove(other)
