"""fuse and unfuse of the NVIDIA family: the same images from the same parameters, and nobody notices but the clock."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, Callable, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution, handing_on
from squeeze_patch.adapters.nvidia import fused_layers
from squeeze_patch.adapters.nvidia.block import SqueezedBlock
from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.errors import ProofError, StateError, UnsupportedModelError
from tests.fused import MODES, assert_same, count, images, inputs, squeezed_generator


@pytest.mark.parametrize("n", [1, 3])
def test_images_stay(G: Any, n: int) -> None:
    expected = {mode: images(G, n, *mode) for mode in MODES}
    assert squeeze_patch.fuse(G) is G
    assert squeeze_patch.status(G).fused_blocks == 5
    for mode in MODES:
        assert_same(images(G, n, *mode), expected[mode], G)
    squeeze_patch.unfuse(G)
    for mode in MODES:
        assert images(G, n, *mode).equal(expected[mode])
    assert squeeze_patch.status(G).fused_blocks == 0


def test_style_mixing(G: Any) -> None:
    ws = torch.randn([2, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = G.synthesis(ws, noise_mode="const")
        assert_same(squeeze_patch.fuse(G).synthesis(ws, noise_mode="const"), expected, G)


def test_something_is_folded(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All convolutions take the fast way, and excite is folded where that pays: from 8x8 inputs on here."""
    squeeze_patch.fuse(demo)
    layers, folds = count(monkeypatch, fused_layers, "fused_layer"), count(monkeypatch, fused_convolution, "_folded")
    unfolded = count(monkeypatch, handing_on.Handed, "own_features")
    images(demo)
    assert (len(layers), len(folds), len(unfolded)) == (9, 3, 1)
    del layers[:]
    images(squeeze_patch.unfuse(demo))
    assert layers == []


def test_wrong_folding_is_seen(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without excite's bias at the borders, which a plain bias in its place would get wrong."""
    expected = images(demo)
    monkeypatch.setattr(
        fused_convolution, "_with_ones", lambda x, channels: torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    )
    with pytest.raises(ProofError, match="images .* are off by"):
        squeeze_patch.fuse(demo)
    assert squeeze_patch.status(demo).fused_blocks == 0
    assert images(demo).equal(expected)


def test_blocks_out_of_state_dicts(tmp_path: Path) -> None:
    """They are made of tensors alone, and say nothing of how they run."""
    G = squeezed_generator()
    torch.save({"G_ema": G.state_dict(), "squeeze_plan": G.synthesis.squeeze_plan}, tmp_path / "squeezed.pt")
    other = load_generator(tmp_path / "squeezed.pt", trust=False)
    expected = images(other)
    assert squeeze_patch.status(other).fused_blocks == 0
    assert_same(images(squeeze_patch.fuse(other)), expected, G)
    assert squeeze_patch.status(other).fused_blocks == 5


def test_dense_blocks_in_between() -> None:
    G = squeezed_generator(widths={8: 8, 32: 8, 64: 8})
    expected = images(G)
    squeeze_patch.fuse(G)
    assert squeeze_patch.status(G).fused_blocks == 3
    assert [getattr(G.synthesis, f"b{r}").defers for r in (8, 32, 64)] == [False, True, False]
    assert_same(images(G), expected, G)


def test_state_dict_stays(G: Any) -> None:
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    after = squeeze_patch.fuse(G).state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(before[name]) for name in before)


def test_weights_are_read_anew(demo: Any) -> None:
    """Nothing of the weights is kept: also a change that torch does not count, through .data, is seen at once."""
    squeeze_patch.fuse(demo)
    images(demo)
    for parameter in demo.parameters():
        parameter.data.mul_(1.05)
    found = images(demo)
    assert_same(found, images(squeeze_patch.unfuse(demo)), demo)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda G: pickle.loads(pickle.dumps(G))], ids=["deepcopy", "pickle"])
def test_copies_run_fused(copied: Callable[[Any], Any], G: Any) -> None:
    expected = images(G)
    other = copied(squeeze_patch.fuse(G))
    assert squeeze_patch.status(other).fused_blocks == 5
    assert_same(images(other), expected, G)
    squeeze_patch.unfuse(other)
    assert squeeze_patch.status(G).fused_blocks == 5


def test_remove_after_fuse(demo: Any) -> None:
    squeeze_patch.fuse(demo)
    squeezed = images(demo)
    dense = squeeze_patch.remove(demo)
    assert squeeze_patch.status(dense).state == "dense"
    assert squeeze_patch.status(dense).fused_blocks == 0
    assert (images(dense) - squeezed).abs().max() > 1e-3  # the dense images, not the squeezed ones
    again = squeeze_patch.apply(dense, ratio=2, init="weights")
    assert_same(images(again), squeezed, again)


def test_a_second_fuse(demo: Any) -> None:
    """It verifies against the plain run, and an interrupted one leaves the generator fused as it was."""
    squeeze_patch.fuse(demo)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        squeeze_patch.fuse(demo, progress=stop)
    assert squeeze_patch.status(demo).fused_blocks == 5
    assert [getattr(demo.synthesis, f"b{r}").defers for r in (4, 8, 16, 32, 64)] == [True] * 4 + [False]
    make_louder(demo.synthesis.b32.conv0, "SynthesisLayer.forward")
    with pytest.raises(ProofError, match="cannot be fused"):
        squeeze_patch.fuse(demo)


def test_noise_of_other_shapes(demo: Any) -> None:
    """What the host's layer broadcasts."""
    for layer in (demo.synthesis.b16.conv1, demo.synthesis.b32.conv0):
        layer.noise_const = layer.noise_const[None, None].repeat(2, 1, 1, 1)
    expected = images(demo)
    assert_same(images(squeeze_patch.fuse(demo)), expected, demo)


def test_training_mode(demo: Any) -> None:
    with pytest.raises(StateError, match=r"training mode.*call G.eval\(\) first"):
        squeeze_patch.fuse(demo.train())
    expected = images(demo)
    squeeze_patch.fuse(demo.eval())
    assert images(demo.train()).equal(expected)


def test_states(demo: Any) -> None:
    with pytest.raises(StateError, match=r"this one is dense: call squeeze_patch.apply\(G\) first"):
        squeeze_patch.fuse(squeeze_patch.remove(demo))
    assert squeeze_patch.unfuse(demo) is demo
    squeeze_patch.apply(demo, ratio=2, init="random")
    demo.synthesis.squeeze_plan["blocks"].pop()
    with pytest.raises(StateError, match="half squeezed"):
        squeeze_patch.fuse(demo)


def test_layers_that_compute_something_else(demo: Any) -> None:
    """A fork's layer under the family's names; no part of the generator stays fused."""
    make_louder(demo.synthesis.b32.conv0, "SynthesisLayer.forward")
    expected = images(demo)
    with pytest.raises(ProofError, match="cannot be fused: images .* are off by"):
        squeeze_patch.fuse(demo)
    assert images(demo).equal(expected)
    assert squeeze_patch.status(demo).fused_blocks == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["conv0", "conv1", "torgb", "excite"])
@pytest.mark.parametrize("how", ["instance", "subclass", "class", "wrapped"])
def test_changed_calls_are_respected(
    how: str, name: str, when: str, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the user has made of a layer, before or after, runs as it is. No adapter knows a wrapped convolution."""
    if how == "wrapped" and name != "excite" and when == "before":
        setattr(demo.synthesis.b32, name, Wrapped(getattr(demo.synthesis.b32, name)).eval())
        with pytest.raises(UnsupportedModelError):
            squeeze_patch.fuse(demo)
        return
    untouched = copy.deepcopy(demo)
    block = demo.synthesis.b32
    layer = getattr(block, name)

    def change() -> None:
        forward = layer.forward
        if how == "instance":
            layer.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5
        elif how == "subclass":
            make_louder(layer)
        elif how == "class":
            plain = type(layer).forward
            monkeypatch.setattr(type(layer), "forward", lambda *args, **kwargs: plain(*args, **kwargs) * 0.5)
        else:
            setattr(block, name, Wrapped(layer).eval())

    other = copy.deepcopy(demo)
    if when == "after":
        squeeze_patch.fuse(demo)
    change()
    found = images(demo if when == "after" else squeeze_patch.fuse(demo, verify=False))
    block = other.synthesis.b32
    layer = getattr(block, name)
    if how != "class":
        change()
    assert_same(found, images(other), untouched)


class Wrapped(torch.nn.Module):
    """As adapters do it (LoRA): around a layer, which stays what it is."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base(*args, **kwargs) * 0.5

    def __getattr__(self, name: str) -> Any:  # others ask the layer what it is
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base, name)


def make_louder(layer: Any, called: str = "Louder.forward") -> None:
    plain = type(layer).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **kwargs) * 1.01

    forward.__qualname__ = called
    layer.__class__ = type("Louder", (type(layer),), {"forward": forward})


def test_blocks_that_clamp_keep_excite() -> None:
    """Folding leaves out excite's clamp: a block whose features come close to it is not folded, and images stay."""
    G = squeezed_generator()
    G.synthesis.b32.excite.conv_clamp = 1.0
    G.synthesis.b16.excite.conv_clamp = 1e4
    expected = images(G)
    squeeze_patch.fuse(G)
    assert (G.synthesis.b16.defers, G.synthesis.b32.defers) == (True, False)
    assert_same(images(G), expected, G)


def test_features_that_are_no_numbers_are_close_to_a_clamp() -> None:
    """Those of the first image alone; the others are far from it."""
    G = squeezed_generator()
    G.synthesis.b16.excite.conv_clamp = 1e4
    seen: List[None] = []

    def spoil(_module: Any, _inputs: Any, output: torch.Tensor) -> Any:
        seen.append(None)
        return output * float("nan") if len(seen) == 1 else None

    handle = G.synthesis.b16.excite.register_forward_hook(spoil)
    squeeze_patch.fuse(G, verify=False)
    handle.remove()
    assert len(seen) == 8
    assert not G.synthesis.b16.defers


def test_one_attribute_says_it(G: Any) -> None:
    """Nothing but two switches on each block tells a fused generator."""
    before = {name: set(vars(module)) for name, module in G.named_modules()}
    squeeze_patch.fuse(G)
    assert {name: set(vars(module)) for name, module in G.named_modules()} == before
    blocks = [module for module in G.modules() if type(module).__name__ == SqueezedBlock.__name__]
    assert [block.fused for block in blocks] == [True] * 5
    assert [block.defers for block in blocks] == [True] * 4 + [False]


@pytest.mark.parametrize("is_fused", [False, True])
def test_what_the_dense_generator_runs_on(demo: Any, is_fused: bool) -> None:
    func = pytest.importorskip("torch.func", reason="vmap, and dense generators of no images, came with torch 2.0")
    G = squeeze_patch.fuse(demo) if is_fused else demo
    z, c = inputs(G)
    with torch.no_grad():
        assert G(z[:0], c[:0]).shape == (0, 3, 64, 64)  # a batch of no images
        found = func.vmap(lambda one: G(one[None], None, noise_mode="const")[0])(z)
    assert_same(found, images(G), G)
