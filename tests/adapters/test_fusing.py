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
from squeeze_patch.errors import ProofError
from squeeze_patch.testing import trained
from tests.fusing import (
    NOISES,
    PROMISED,
    RESOLUTION,
    SIZES,
    assert_same,
    folds_of,
    images,
    network,
    squeezed_generator,
    traces,
)
from tests.helpers import FLAT_HOSTS, LUCIDRAINS, same, tensors
from tests.hosts import Host


@pytest.fixture(params=[*FLAT_HOSTS, LUCIDRAINS.name])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    chosen = {**FLAT_HOSTS, LUCIDRAINS.name: LUCIDRAINS}[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def G(host: Host) -> Any:
    return squeezed_generator(host)


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
    body: Any = stand_in(tensors(G))
    body.eval().requires_grad_(False)
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
        return z.grad  # type: ignore[no-any-return]

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
            return [n.grad for n in noise]

        torch.manual_seed(1)
        expected = gradient()
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
