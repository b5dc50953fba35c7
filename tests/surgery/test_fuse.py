"""fuse and unfuse of the NVIDIA family: the same images from the same parameters, and nobody notices but the clock."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.adapters.nvidia import block as block_module
from squeeze_patch.adapters.nvidia.block import SqueezedBlock
from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.errors import ProofError, StateError
from squeeze_patch.fused_convolution import Deferred
from squeeze_patch.testing import float_error, trained
from tests.helpers import HOSTS

RESOLUTION = 64
HALVES = pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1 convolves no halves on a CPU")
MODES = [(noise, psi) for noise in ("const", "none", "random") for psi in (1.0, 0.5)]


def squeezed_generator(host: Any = None, **request: Any) -> Any:
    """Large enough that folding pays in its last blocks; ``host=None``: the demo's networks."""
    request = request or {"ratio": 2}
    if host is None:
        sizes = {"channel_base": 1024, "channel_max": 32}
        G: Any = trained(Generator(32, 0, 32, RESOLUTION, 3, synthesis_kwargs=sizes))
    else:
        G = trained(host.generator(resolution=RESOLUTION, num_fp16_res=0))
    return squeeze_patch.apply(G.requires_grad_(False), init="weights", **request)


@pytest.fixture(params=["demo", *HOSTS])
def G(request: Any) -> Iterator[Any]:
    if request.param == "demo":
        yield squeezed_generator()
        return
    with HOSTS[request.param].active():
        yield squeezed_generator(HOSTS[request.param])


@pytest.fixture
def demo() -> Any:
    return squeezed_generator()


def inputs(G: Any, n: int = 2) -> Any:
    random = torch.Generator().manual_seed(5)
    return torch.randn([n, G.z_dim], generator=random), torch.zeros([n, G.c_dim])


def images(G: Any, n: int = 2, noise: str = "const", psi: float = 1.0) -> torch.Tensor:
    torch.manual_seed(7)  # of random noise
    with torch.no_grad():
        z, c = inputs(G, n)
        return G(z, c, noise_mode=noise, truncation_psi=psi)  # type: ignore[no-any-return]


def assert_same(found: torch.Tensor, expected: torch.Tensor, G: Any) -> None:
    assert (found - expected).abs().max() <= float_error(G, expected)


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> List[None]:
    """Grows by one entry with every call of a function."""
    calls: List[None] = []
    function = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


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


def test_folding_saves_multiply_adds() -> None:
    """At 512 channels and ratio 1.5 from 32x32 on, as counted by hand: 9 O (c - q) + c q a pixel, for 9 O c q."""
    weight = torch.empty([512, 512, 3, 3], device="meta")
    saved = 9 * 512 * (512 - 344) + 512 * 344
    for side in (16, 24, 28, 29, 32):
        assert fused_convolution.pays(weight, 344, side**2) == (side**2 * saved > 9 * 512 * 512 * 344)
    assert fused_convolution.pays(weight, 344, 32**2)
    assert not fused_convolution.pays(weight, 344, 16**2)


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


@HALVES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Errors to float32 no larger than twice those of the plain layers, which round as often; shape, dtype and format
    as they were."""
    G = squeezed_generator()
    fused = squeeze_patch.fuse(copy.deepcopy(G))
    block, other = G.synthesis.b32, fused.synthesis.b32
    random = torch.Generator().manual_seed(1)
    f, w = torch.randn([2, 16, 16, 16], generator=random), torch.randn([2, G.w_dim], generator=random)
    excite = G.synthesis.b16.excite
    with torch.no_grad():
        exact = block.conv0(excite(f), w, noise_mode="const")
        plain = copy.deepcopy(block).to(dtype).conv0(excite(f.to(dtype)), w.to(dtype), noise_mode="const")
        kwargs = {"noise_mode": "const"}
        found = block_module._run_layer(other.conv0, Deferred(f.to(dtype), excite), w, True, kwargs)
        unfolded = block_module._run_layer(other.conv0, excite(f).to(dtype), w, True, kwargs)
    for result in (found, unfolded):
        assert result.dtype == dtype
        assert result.shape == exact.shape
        assert (result - exact).abs().max() <= 2 * (plain - exact).abs().max()


@HALVES
def test_float16_stays_in_range() -> None:
    """Styles and weights whose products and sums leave float16's range; demodulated, they do not matter."""
    random = torch.Generator().manual_seed(1)
    x, weight = torch.randn([2, 8, 4, 4], generator=random), torch.randn([8, 8, 3, 3], generator=random) * 300
    style = torch.rand([2, 8], generator=random) * 1000
    finish = fused_convolution.Finish()
    expected = fused_convolution.fused_layer(x, weight, style, finish)
    for side in (1, 8):  # modulated inputs, and modulated weights
        wide = x.repeat([1, 1, side, side])
        found = fused_convolution.fused_layer(wide.half(), weight, style, finish)
        assert found.isfinite().all()
        reference = fused_convolution.fused_layer(wide, weight, style, finish)
        assert (found - reference).abs().max() <= 2**-8 * reference.abs().max()  # 11 bits, sums of 72
    assert expected.isfinite().all()


@pytest.mark.parametrize("n", [1, 3])
def test_what_a_gpu_runs(n: int, G: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways that are chosen on a GPU, with the hosts' operations for filters and activations, here on a CPU."""
    expected = {mode: images(G, n, *mode) for mode in MODES}
    squeeze_patch.fuse(G)
    for module in (fused_convolution, block_module):
        monkeypatch.setattr(module, "on_gpu", lambda x: True)
    folds = count(monkeypatch, fused_convolution, "_folded")
    for mode in MODES:
        assert_same(images(G, n, *mode), expected[mode], G)
    assert folds == []


def test_groups_are_as_good_as_one_by_one() -> None:
    """What runs on a GPU, groups of one convolution, beside what runs on a CPU."""
    random = torch.Generator().manual_seed(1)
    x, weights = torch.randn([3, 5, 6, 6], generator=random), torch.randn([3, 4, 5, 3, 3], generator=random)
    fir = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2) / 64
    for filtered in (None, fused_convolution._plain_filter(fir)):
        together = fused_convolution._convolve(x, weights, filtered)
        alone = [fused_convolution._convolve(x[n : n + 1], weights[n : n + 1], filtered) for n in range(3)]
        assert (together - torch.cat(alone)).abs().max() <= 1e-5 * together.abs().max()


def test_deferred_features_are_a_tensor(demo: Any) -> None:
    excite = demo.synthesis.b16.excite
    f = torch.randn([2, excite.in_channels, 4, 4])
    with torch.no_grad():
        expected = excite(f)

        def deferred() -> Any:
            return Deferred(f, excite)

        assert deferred().shape == expected.shape
        assert deferred().dtype == expected.dtype
        assert deferred().device == expected.device
        assert not deferred().was_read
        readings: List[Callable[[Any], torch.Tensor]] = [
            lambda x: x + 0,
            lambda x: x.detach().cpu(),
            lambda x: x.clone(),
            lambda x: x[:, :],
            lambda x: torch.cat([x])[:],
            lambda x: torch.from_numpy(x.numpy()),
            lambda x: torch.tensor(x.tolist()),
            copy.deepcopy,
            lambda x: pickle.loads(pickle.dumps(x)),
            lambda x: torch.stack(list(x.unbind())),
        ]
        for reading in readings:
            x = deferred()
            assert reading(x).equal(expected)
            assert x.was_read
        assert repr(deferred()) == repr(expected)
        x = deferred()
        x.mul_(2)
        assert (x + 0).equal(expected * 2)


def test_one_attribute_says_it(G: Any) -> None:
    """Nothing but two switches on each block tells a fused generator."""
    before = {name: set(vars(module)) for name, module in G.named_modules()}
    squeeze_patch.fuse(G)
    assert {name: set(vars(module)) for name, module in G.named_modules()} == before
    blocks = [module for module in G.modules() if type(module).__name__ == SqueezedBlock.__name__]
    assert [block.fused for block in blocks] == [True] * 5
    assert [block.defers for block in blocks] == [True] * 4 + [False]
