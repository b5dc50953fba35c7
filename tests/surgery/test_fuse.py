"""fuse and unfuse of the NVIDIA family: the same images from the same parameters, and nobody notices but the clock."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.adapters.nvidia import block as block_module
from squeeze_patch.adapters.nvidia.block import SqueezedBlock
from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.errors import ProofError, StateError
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
    layers, folds = count(monkeypatch, block_module, "fused_layer"), count(monkeypatch, fused_convolution, "_folded")
    excites = count(monkeypatch, squeeze_patch.connection.Excite, "forward")
    images(demo)
    assert (len(layers), len(folds), len(excites)) == (9, 3, 1)
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


def test_hooks_see_c_channels(G: Any) -> None:
    seen: Dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        module = G.synthesis.get_submodule(name)
        return module.register_forward_hook(
            lambda _m, _i, out: seen.update({name: (out if isinstance(out, torch.Tensor) else out[0])})
        )

    names = ["b16", "b32", "b16.conv1", "b32.conv0", "b32.torgb", "b16.excite", "b32.conv0.affine"]
    handles = [listen(name) for name in names]
    expected_image = images(G)
    expected = {name: value.clone() for name, value in seen.items()}
    squeeze_patch.fuse(G)
    seen.clear()
    assert_same(images(G), expected_image, G)
    assert set(seen) == set(names)
    for name in names:
        assert seen[name].shape == expected[name].shape
        assert_same(seen[name] + 0, expected[name], G)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["one", "all"])
def test_a_hook_on_excite_alone(demo: Any, kind: str) -> None:
    """Nothing else listens: the layers that would read its features fold it no longer. So do hooks of all modules."""
    seen: List[torch.Tensor] = []

    def hook(module: Any, _inputs: Any, output: Any) -> None:
        if module is demo.synthesis.b16.excite:
            seen.append(output)

    squeeze_patch.fuse(demo)
    register: Any = torch.nn.modules.module.register_module_forward_hook
    handle = demo.synthesis.b16.excite.register_forward_hook(hook) if kind == "one" else register(hook)
    found = images(demo)
    handle.remove()
    assert [list(x.shape) for x in seen] == [[2, 32, 16, 16]]
    assert_same(images(demo), found, demo)


@pytest.mark.parametrize("change", ["in place", "returned"])
def test_hooks_that_change_features(demo: Any, change: str) -> None:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        x, image = output
        if change == "in place":
            x[:, 3] = 0
            return None
        return x * 0.5, image

    handles = [getattr(demo.synthesis, f"b{r}").register_forward_hook(hook) for r in (16, 32)]
    expected = images(demo)
    squeeze_patch.fuse(demo)
    assert_same(images(demo), expected, demo)
    for handle in handles:
        handle.remove()
    assert (images(demo) - expected).abs().max() > 1e-2


def test_gradients_take_the_other_way(demo: Any) -> None:
    """The very gradients: of latents, of parameters, of noise."""

    def gradients(G: Any) -> List[torch.Tensor]:
        z, c = inputs(G)
        z.requires_grad_()
        noise = [buffer for name, buffer in G.named_buffers() if name.endswith("noise_const")]
        wanted = [z, *G.parameters(), *noise]
        for tensor in noise:
            tensor.requires_grad_()
        found = torch.autograd.grad(G(z, c, noise_mode="const").square().mean(), wanted, allow_unused=True)
        for tensor in noise:
            tensor.requires_grad_(False)
        return [tensor for tensor in found if tensor is not None]

    demo.requires_grad_(True)
    expected = gradients(demo)
    found = gradients(squeeze_patch.fuse(demo))
    assert len(found) == len(expected) > 50
    assert all(one.equal(other) for one, other in zip(found, expected))


@pytest.mark.parametrize("what", ["latents", "noise", "one parameter"])
def test_one_gradient_is_enough(demo: Any, what: str) -> None:
    squeeze_patch.fuse(demo)
    z, c = inputs(demo)
    tensor = {
        "latents": z,
        "noise": demo.synthesis.b32.conv0.noise_const,
        "one parameter": demo.synthesis.b16.excite.weight,
    }[what]
    tensor.requires_grad_()
    (gradient,) = torch.autograd.grad(demo(z, c, noise_mode="const").square().mean(), tensor)
    squeeze_patch.unfuse(demo)
    (expected,) = torch.autograd.grad(demo(z, c, noise_mode="const").square().mean(), tensor)
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()  # float32 sums in another order


def test_training_mode(demo: Any) -> None:
    with pytest.raises(StateError, match=r"training mode.*call G.eval\(\) first"):
        squeeze_patch.fuse(demo.train())
    expected = images(demo)
    squeeze_patch.fuse(demo.eval())
    assert images(demo.train()).equal(expected)


def test_autocast_takes_the_other_way(demo: Any) -> None:
    z, c = inputs(demo)
    with torch.no_grad():
        ws = demo.mapping(z, c)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = demo.synthesis(ws, noise_mode="const")
            assert squeeze_patch.fuse(demo).synthesis(ws, noise_mode="const").equal(expected)


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
    layer = demo.synthesis.b32.conv0

    class Louder(type(layer)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().forward(*args, **kwargs) * 1.01  # type: ignore[no-any-return]

    layer.__class__ = Louder
    expected = images(demo)
    with pytest.raises(ProofError, match="cannot be fused: images .* are off by"):
        squeeze_patch.fuse(demo)
    assert images(demo).equal(expected)
    assert squeeze_patch.status(demo).fused_blocks == 0


def test_changed_calls_are_respected(demo: Any) -> None:
    layer = demo.synthesis.b32.conv1
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5
    expected = images(demo)
    assert_same(images(squeeze_patch.fuse(demo)), expected, demo)


def test_blocks_that_clamp_keep_excite() -> None:
    """Folding leaves out excite's clamp: a block whose features come close to it is not folded, and images stay."""
    G = squeezed_generator()
    G.synthesis.b32.excite.conv_clamp = 1.0
    G.synthesis.b16.excite.conv_clamp = 1e4
    expected = images(G)
    squeeze_patch.fuse(G)
    assert (G.synthesis.b16.defers, G.synthesis.b32.defers) == (True, False)
    assert_same(images(G), expected, G)


def test_one_attribute_says_it(G: Any) -> None:
    """Nothing but two switches on each block tells a fused generator."""
    before = {name: set(vars(module)) for name, module in G.named_modules()}
    squeeze_patch.fuse(G)
    assert {name: set(vars(module)) for name, module in G.named_modules()} == before
    blocks = [module for module in G.modules() if type(module).__name__ == SqueezedBlock.__name__]
    assert [block.fused for block in blocks] == [True] * 5
    assert [block.defers for block in blocks] == [True] * 4 + [False]
