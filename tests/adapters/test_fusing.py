"""fuse and unfuse of the rosinality and lucidrains families: the same images from the same parameters."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.connection import Excite
from squeeze_patch.errors import ProofError
from squeeze_patch.fused_convolution import Deferred
from squeeze_patch.testing import trained
from tests.helpers import FLAT_HOSTS, LUCIDRAINS, same, tensors
from tests.hosts import Host

RESOLUTION = 32
NOISES = ("const", "none", "random")
#: relative to the largest pixel, as fuse promises
PROMISED = 1e-5
SIZES = {"channel_base": 512, "channel_max": 16}


def squeezed_generator(host: Host, init: str = "random", **request: Any) -> Any:
    """Folding pays from 4x4 inputs on in networks this narrow. What random starts leave at zero, noise among it, is made
    up."""
    G = trained(host.generator(resolution=RESOLUTION, **SIZES)).eval().requires_grad_(False)
    G = squeeze_patch.apply(G, init=init, **(request or {"ratio": 2}))
    random = torch.Generator().manual_seed(3)
    for name, parameter in G.named_parameters():
        if ("excite" in name and name.endswith("bias")) or "rgb_bias" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        elif not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return G


@pytest.fixture(params=[*FLAT_HOSTS, LUCIDRAINS.name])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    chosen = {**FLAT_HOSTS, LUCIDRAINS.name: LUCIDRAINS}[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def G(host: Host) -> Any:
    return squeezed_generator(host)


def images(host: Any, G: Any, n: int = 2, noise: str = "const", psi: float = 1.0) -> torch.Tensor:
    torch.manual_seed(7)  # of random noise
    with torch.no_grad():
        return host.images(G, *host.latents(G, n), noise, psi)  # type: ignore[no-any-return]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= PROMISED * expected.abs().max()


def network(G: Any) -> Any:
    return locate(G).network


def reader(G: Any, block: int = 1) -> torch.nn.Module:
    """What excite's features of a block go to, which folds it where it is fused."""
    found = locate(G)
    name = found.specs[block].name
    if found.adapter.name == "lucidrains":
        return found.get_block(found.specs[block + 1].name)
    convs, _, index = name.rpartition(".")
    return found.network.get_submodule(f"{convs}.{int(index) + 1}")


def second(G: Any, block: int = 1) -> torch.nn.Module:
    """The narrowed convolution of a block."""
    found = locate(G)
    layer: Any = found.get_block(found.specs[block].name)
    return layer.conv2 if found.adapter.name == "lucidrains" else layer.conv1  # type: ignore[no-any-return]


def traces(G: torch.nn.Module) -> Dict[str, Any]:
    """Of every module: its class, its attributes, its hooks."""
    return {
        name: (type(module), {k: v if isinstance(v, (bool, str)) else id(v) for k, v in vars(module).items()},
               list(module._forward_pre_hooks.items()), list(module._forward_hooks.items()))
        for name, module in G.named_modules()
    }  # fmt: skip


def folds_of(monkeypatch: pytest.MonkeyPatch) -> List[None]:
    """Grows by one entry wherever excite is folded."""
    calls: List[None] = []
    folded = fused_convolution._folded

    def counted(*args: Any) -> Any:
        calls.append(None)
        return folded(*args)

    monkeypatch.setattr(fused_convolution, "_folded", counted)
    return calls


@pytest.mark.parametrize("n", [1, 3])
def test_images_stay(host: Any, G: Any, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = [(noise, psi) for noise in NOISES for psi in (1.0, 0.5)]
    expected = {mode: images(host, G, n, *mode) for mode in modes}
    keys, before = tensors(G), traces(G)
    assert squeeze_patch.fuse(G) is G
    assert squeeze_patch.status(G).fused_blocks == 4
    assert same(tensors(G), keys)
    folds = folds_of(monkeypatch)
    for mode in modes:
        assert_same(images(host, G, n, *mode), expected[mode])
    assert len(folds) == 3 * len(modes)
    assert (expected["random", 1.0] - expected["const", 1.0]).abs().max() > 100 * PROMISED
    squeeze_patch.unfuse(G)
    assert traces(G) == before
    for mode in modes:
        assert images(host, G, n, *mode).equal(expected[mode])
    assert squeeze_patch.status(G).fused_blocks == 0


def test_every_call_of_the_host(host: Any, G: Any) -> None:
    """Styles of their own for every layer, mixing, truncation, noise that is given."""

    def calls() -> Dict[str, torch.Tensor]:
        torch.manual_seed(7)
        with torch.no_grad():
            return host.calls(G, *host.latents(G))  # type: ignore[no-any-return]

    expected = calls()
    squeeze_patch.fuse(G)
    for name, found in calls().items():
        assert_same(found, expected[name])


@pytest.mark.parametrize("part", ["bias", "matrix"])
def test_a_wrong_fold_is_seen(host: Any, G: Any, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, opened = images(host, G), fused_convolution._opened

    def wrong(x: Any, weight: torch.Tensor) -> Any:
        f, excite = opened(x, weight)
        if excite is not None:
            excite[:, -1 if part == "bias" else 0] = 0
        return f, excite

    before = traces(G)
    monkeypatch.setattr(fused_convolution, "_opened", wrong)
    with pytest.raises(ProofError, match="images .* are off by"):
        squeeze_patch.fuse(G)
    assert traces(G) == before
    assert images(host, G).equal(expected)
    squeeze_patch.fuse(G, verify=False)
    with pytest.raises(AssertionError):
        assert_same(images(host, G), expected)


def test_dense_blocks_in_between(host: Any) -> None:
    G = squeezed_generator(host, widths={4: 8, 16: 8, 32: 8})
    expected = images(host, G, 3)
    squeeze_patch.fuse(G)
    assert squeeze_patch.status(G).fused_blocks == 3
    assert_same(images(host, G, 3), expected)


def test_lopsided_filters() -> None:
    host = FLAT_HOSTS["draggan-rosinality"]
    with host.active():
        for kernel in ([1, 2, 4, 1], [1, 2, 1], [1, 2, 3, 3, 2, 1]):
            G = trained(host.generator(resolution=RESOLUTION, blur_kernel=kernel)).eval().requires_grad_(False)
            squeeze_patch.apply(G, init="random")
            expected = images(host, G)
            assert_same(images(host, squeeze_patch.fuse(G)), expected)


def test_stand_ins(host: Any, G: Any) -> None:
    """Generators of our own, made of state dicts."""
    body: Any = stand_in(tensors(G)).eval().requires_grad_(False)
    assert type(network(body)).__module__.startswith("squeeze_patch.")
    found = locate(body)
    ws = torch.randn(3, found.running.num_ws(found.network), 32)
    for noise in ("const", "none"):
        expected = found.running.synthesis(found.network, ws, noise)
        squeeze_patch.fuse(body)
        assert_same(found.running.synthesis(found.network, ws, noise), expected)
        squeeze_patch.unfuse(body)


def gradients(host: Any, G: Any) -> Tuple[torch.Tensor, Dict[str, Any]]:
    G.zero_grad()
    image = host.images(G, *host.latents(G, 2), "const")
    image.square().mean().backward()
    return image.detach(), {name: None if p.grad is None else p.grad.clone() for name, p in G.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
def test_where_something_is_trained_nothing_changes(host: Any, G: Any, training: bool) -> None:
    G.requires_grad_(True)
    image, expected = gradients(host, G.train(training))
    fused, found = gradients(host, squeeze_patch.fuse(G.eval()).train(training))
    assert fused.equal(image)
    assert all(found[name] is value is None or found[name].equal(value) for name, value in expected.items())
    if training:
        before = images(host, squeeze_patch.unfuse(G))
        assert images(host, squeeze_patch.fuse(G.eval()).train()).equal(before)


def test_gradients_of_inputs(host: Any, G: Any) -> None:
    """As projectors take them, of styles."""

    def gradient() -> torch.Tensor:
        z, c = host.latents(G, 2)
        z.requires_grad_(True)
        host.images(G, z, c, "const").square().mean().backward()
        return z.grad  # type: ignore[return-value]

    expected = gradient()
    squeeze_patch.fuse(G)
    assert gradient().equal(expected)


def test_gradients_of_noise() -> None:
    host: Any = FLAT_HOSTS["draggan-rosinality"]
    with host.active():
        G = squeezed_generator(host)

        def gradient() -> List[torch.Tensor]:
            noise = [n.detach().clone().requires_grad_(True) for n in G.make_noise()]
            G([torch.ones(2, 32)], noise=noise)[0].square().mean().backward()
            return [n.grad for n in noise]  # type: ignore[misc]

        torch.manual_seed(1)
        expected = gradient()
        torch.manual_seed(1)
        squeeze_patch.fuse(G)
        torch.manual_seed(1)
        assert all(map(torch.equal, gradient(), expected))


def test_autocast(host: Any, G: Any) -> None:
    def run() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return images(host, G)

    expected = run()
    squeeze_patch.fuse(G)
    assert run().equal(expected)


def test_double_precision(host: Any, G: Any) -> None:
    G.double()
    w_dim = locate(G).specs[0].w_dim
    ws = torch.randn(2, locate(G).running.num_ws(network(G)), w_dim, dtype=torch.float64)
    expected = locate(G).running.synthesis(network(G), ws, "none")
    squeeze_patch.fuse(G)
    assert locate(G).running.synthesis(network(G), ws, "none").equal(expected)


def test_hooks_see_what_they_saw(host: Any, G: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and outputs of every layer, in calls of their own."""
    layers = {n: m for n, m in network(G).named_modules() if n and not isinstance(m, torch.nn.ModuleList)}

    def seen(name: str) -> Dict[str, torch.Tensor]:
        found: Dict[str, torch.Tensor] = {}

        def hook(_module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            values = [v for v in (*inputs, first) if isinstance(v, torch.Tensor)]
            found.update({f"{k}": value + 0 for k, value in enumerate(values)})

        handle = layers[name].register_forward_hook(hook)
        expected_images = images(host, G)
        handle.remove()
        return {**found, "images": expected_images}

    chosen = [n for n in layers if not n.startswith(("style", "noises", "initial"))]
    expected = {name: seen(name) for name in chosen}
    squeeze_patch.fuse(G)
    for name in chosen:
        found = seen(name)
        assert found.keys() == expected[name].keys(), name
        for key, value in found.items():
            assert value.shape == expected[name][key].shape, name
            assert (value - expected[name][key]).abs().max() <= 2e-5 * expected[name][key].abs().max(), name


def in_place(_module: Any, inputs: Any) -> None:
    inputs[0][:, 1] += 1


def returned(_module: Any, inputs: Any) -> Any:
    return (inputs[0] * 1.5, *inputs[1:])


def output_in_place(_module: Any, _inputs: Any, output: Any) -> None:
    x = output[0] if isinstance(output, tuple) else output
    x[:, 1] += 1


@pytest.mark.parametrize("change", [in_place, returned])
@pytest.mark.parametrize("choose", [reader, second])
def test_hooks_that_change_inputs(host: Any, G: Any, choose: Callable[..., Any], change: Any) -> None:
    plain = images(host, G)
    squeeze_patch.fuse(G)
    choose(G).register_forward_pre_hook(change)
    found = images(host, G)
    expected = images(host, squeeze_patch.unfuse(G))
    assert_same(found, expected)
    assert (plain - expected).abs().max() > 100 * PROMISED * expected.abs().max()


@pytest.mark.parametrize("choose", [reader, second, lambda G: network(G).get_submodule(excite_of(G))])
def test_hooks_that_change_outputs(host: Any, G: Any, choose: Callable[..., Any]) -> None:
    plain = images(host, G)
    squeeze_patch.fuse(G)
    choose(G).register_forward_hook(output_in_place)
    found = images(host, G)
    expected = images(host, squeeze_patch.unfuse(G))
    assert_same(found, expected)
    assert (plain - expected).abs().max() > 100 * PROMISED * expected.abs().max()


def excite_of(G: Any) -> str:
    """That of the last block but one."""
    return [name for name, module in network(G).named_modules() if isinstance(module, Excite)][-1]


def test_features_that_are_handed_on(host: Any, G: Any) -> None:
    """They have c channels for everybody, and nothing keeps a listener from folding but reading."""
    seen: List[Any] = []
    squeeze_patch.fuse(G)
    reader(G).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images(host, G)
    (features,) = seen
    assert isinstance(features, Deferred)
    assert features.shape == (2, 16, 8, 8)
    assert not features.was_read
    assert features.view(2, 16, -1).shape == (2, 16, 64)


def test_a_changed_forward_is_called(host: Any, G: Any) -> None:
    squeeze_patch.fuse(G)
    layer: Any = second(G)
    forward = layer.forward
    layer.forward = lambda *inputs, **named: forward(*inputs, **named) * 2
    found = images(host, G)
    del layer.forward
    squeeze_patch.unfuse(G)
    layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    assert_same(found, images(host, G))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda G: pickle.loads(pickle.dumps(G))])
def test_copies_and_pickles(
    host: Any, G: Any, duplicate: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = images(host, G)
    fused = images(host, squeeze_patch.fuse(G))
    other = duplicate(G)
    assert squeeze_patch.status(other).fused_blocks == 4
    folds = folds_of(monkeypatch)
    assert images(host, other).equal(fused)
    assert folds
    for parameter in other.parameters():
        parameter.mul_(0.9)  # it is on its own
    assert images(host, G).equal(fused)
    assert images(host, squeeze_patch.unfuse(G)).equal(plain)
    assert squeeze_patch.status(other).fused_blocks == 4


def test_remove(host: Any) -> None:
    G = trained(host.generator(resolution=RESOLUTION, **SIZES)).eval()
    before, dense = traces(G), images(host, G)
    squeeze_patch.remove(squeeze_patch.fuse(squeeze_patch.apply(G, init="random")))
    assert images(host, G).equal(dense)
    assert {n: (t[0], t[2:]) for n, t in traces(G).items()} == {n: (t[0], t[2:]) for n, t in before.items()}


def test_the_dense_generator_beside_a_fused_one(host: Any, G: Any) -> None:
    """As report makes it for its timings."""
    squeeze_patch.fuse(G)
    found = locate(G)
    dense = found.surgery.dense_like(G, found.network)
    assert squeeze_patch.status(dense).state == "dense"
    plain = trained(host.generator(resolution=RESOLUTION, **SIZES))
    assert [type(m) for m in dense.modules()] == [type(m) for m in plain.modules()]
    assert squeeze_patch.status(G).fused_blocks == 4
