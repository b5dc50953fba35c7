"""Generators of the rosinality family are run, on latents and on styles: by their hosts' code, and by our own where
there is but a state dict."""

from __future__ import annotations

import copy
import math
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate, sampler
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.sampling import sample
from squeeze_patch.testing import float_error, trained
from tests.helpers import FLAT_HOSTS, ORIGINALS, check_images, transplant
from tests.hosts import Host
from tests.hosts.flat import FlatHost


def mapping_of(G: Any) -> Any:
    return getattr(G, "style", None) or G.style_mlp


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.parametrize("ratio", [None, 2])
@pytest.mark.parametrize("kernel", [[1, 3, 3, 1], [1, 2, 4, 1]])
def test_a_state_dict_makes_the_hosts_images(name: str, ratio: Any, kernel: Any) -> None:
    """Dense and squeezed; the lopsided filter tells which way round it is laid on."""
    host = FLAT_HOSTS[name]
    with host.active():
        G = trained(host.generator(blur_kernel=kernel))
        if ratio:
            squeeze_patch.apply(G, ratio=ratio)
        body = stand_in(G.state_dict())
        assert type(body).__module__.startswith("squeeze_patch.")
        check_images(host, G, body)


def test_gradients_of_a_state_dicts_images_are_the_hosts(rosinality: FlatHost) -> None:
    """As recovery takes them; in float64, where rounding (1e-16) is far below the tolerance, which is relative to the
    largest gradient, and any error of a formula far above it."""
    G = squeeze_patch.apply(trained(rosinality.generator()), ratio=2).double()
    body: Any = stand_in(G.state_dict())
    found = locate(G)
    ws = torch.randn(2, found.running.num_ws(G), 32, dtype=torch.float64)
    weight = torch.randn(2, 3, 32, 32)
    gradients = []
    for network in (G, body):
        network.zero_grad()
        (found.running.synthesis(network, ws, "const") * weight).sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    assert {name for name, gradient in gradients[0].items() if gradient is None} == {
        f"style.{i}.{what}" for i in (1, 2) for what in ("weight", "bias")
    }
    largest = max(gradient.abs().max() for gradient in gradients[0].values() if gradient is not None)
    for name, gradient in gradients[0].items():
        if gradient is not None:
            assert (gradient - gradients[1][name]).abs().max() <= 1e-9 * largest, name


def test_images_are_those_of_the_hosts_call(flat_host: FlatHost) -> None:
    G = squeeze_patch.apply(trained(flat_host.generator()))
    source = sampler(G)
    z, c = flat_host.latents(G)
    assert (source.z_dim, source.c_dim, source.img_resolution) == (32, 0, 32)
    for noise in ("const", "none"):
        images = flat_host.images(G, z, c, noise=noise)
        assert (source.images(z, c, noise, 1.0) - images).abs().max() <= float_error(G, images)
    found = locate(G)
    centre = found.sample_w(4096, seed=0).mean(0, keepdim=True)
    images, _ = G([z], truncation=0.5, truncation_latent=centre, randomize_noise=False)
    for _ in range(2):
        assert (source.images(z, c, "const", 0.5) - images).abs().max() <= float_error(G, images)


def test_styles_of_single_layers(flat_host: FlatHost) -> None:
    """Style mixing: the second latent's style from a layer on."""
    G = squeeze_patch.apply(trained(flat_host.generator()))
    found = locate(G)
    z, _ = flat_host.latents(G)
    other, _ = flat_host.latents(G, seed=3)
    images, _ = G([z, other], inject_index=3, randomize_noise=False)
    ws = torch.stack([mapping_of(G)(x) for x in (z, other)])[[0] * 3 + [1] * (found.running.num_ws(G) - 3)]
    made = found.running.synthesis(G, ws.transpose(0, 1), "const")
    assert (made - images).abs().max() <= float_error(G, images)


def test_watched_features_are_what_the_next_block_reads(flat_host: FlatHost) -> None:
    """At ratio 1 the same, squeezed, as dense, but for rounding; with all channels at any ratio."""
    G = trained(flat_host.generator())

    def features(G: Any) -> Dict[int, torch.Tensor]:
        found = locate(G)
        seen: Dict[int, torch.Tensor] = {}
        specs = [spec for spec in found.specs if not spec.is_last]
        handles = [
            found.surgery.watch(found.network, spec.name, lambda x, r=spec.resolution: seen.__setitem__(r, x))
            for spec in specs
        ]
        flat_host.images(G, *flat_host.latents(G))
        for handle in handles:
            handle.remove()
        flat_host.images(G, *flat_host.latents(G, n=1))
        assert all(len(x) == 3 for x in seen.values())  # the handles end it
        return seen

    dense = features(G)
    assert {r: tuple(x.shape) for r, x in dense.items()} == {r: (3, 32, r, r) for r in (4, 8, 16)}
    with squeeze_patch.squeezed(G, ratio=1):
        for r, x in features(G).items():
            assert (x - dense[r]).abs().max() <= float_error(G, dense[r])
    with squeeze_patch.squeezed(G, ratio=2):
        assert {r: x.shape for r, x in features(G).items()} == {r: x.shape for r, x in dense.items()}


def test_a_generator_equals_itself(flat_host: FlatHost) -> None:
    G = trained(flat_host.generator()).train()
    random = torch.get_rng_state()
    found = squeeze_patch.compare(G, copy.deepcopy(G), samples=6, truncation=0.7)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in G.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in G.modules())
    assert found.psnr == math.inf
    assert found.features_missing == ""
    assert [(row.resolution, row.relative) for row in found.features] == [(4, 0), (8, 0), (16, 0)]
    assert [level.value for level in found.sliced_wasserstein.values()] == [0, 0]


def test_a_start_from_weights_is_nearer_than_a_random_one(flat_host: FlatHost) -> None:
    dense = trained(flat_host.generator())
    near, far = (
        squeeze_patch.compare(
            dense, squeeze_patch.apply(copy.deepcopy(dense), ratio=1.5, init=init), samples=8, noise_mode="none"
        )
        for init in ("weights", "random")
    )
    assert near.psnr > far.psnr
    assert all(0 < one.relative < other.relative for one, other in zip(near.features, far.features))


def test_a_stand_in_is_compared_with_its_host(rosinality: FlatHost) -> None:
    G = squeeze_patch.apply(trained(rosinality.generator()))
    found = squeeze_patch.compare(G, stand_in(G.state_dict()), samples=4)
    scale = sample(G, 4, seed=0).abs().max()
    assert 0 < found.squared_error**0.5 <= float_error(G, scale)
    assert len(found.features) == 3


def test_families_are_compared_with_one_another(draggan: Host) -> None:
    """One set of weights in NVIDIA's generator and in rosinality's."""
    theirs = trained(draggan.generator())
    flat = FLAT_HOSTS["draggan-rosinality"]
    with flat.active():
        ours = flat.generator()
        transplant(theirs, ours)
        found = squeeze_patch.compare(theirs, ours, samples=4, noise_mode="none")
    scale = sample(theirs, 4, seed=0, noise_mode="none").abs().max()
    assert found.squared_error**0.5 <= float_error(theirs, scale)
    assert [row.resolution for row in found.features] == [4, 8, 16]
    assert all(row.relative < 1e-4 for row in found.features)  # of rounding at 1e-7, through a few layers


def test_measure(rosinality: FlatHost) -> None:
    from squeeze_patch.evaluation.measure import measure, pair

    G = squeeze_patch.apply(trained(rosinality.generator()), ratio=2)
    random = torch.get_rng_state()
    dense, squeezed = pair(G)
    assert torch.equal(torch.get_rng_state(), random)
    assert squeezed is G
    assert {n: p.shape for n, p in dense.state_dict().items()} == {
        n: p.shape for n, p in rosinality.generator().state_dict().items()
    }
    found = measure(dense, squeezed, repeats=2)
    assert found.cost.parameters_before == sum(p.numel() for p in rosinality.generator().parameters())
    fewer = found.cost.parameters_before - found.cost.parameters_after
    assert found.memory_before.weights - found.memory_after.weights == 4 * fewer  # buffers are the same
    assert found.memory_before.working > 0
    assert found.memory_after.working > 0
    assert found.latency.dense.median > 0
    rosinality.images(dense, *rosinality.latents(dense))
    assert squeeze_patch.status(dense).state == "dense"


def test_generators_that_want_conditions(gfpgan: FlatHost) -> None:
    """gfpgan's CSFT; its state dict is that of the generator without conditions, as the message says."""
    from gfpgan.archs.gfpganv1_clean_arch import StyleGAN2GeneratorCSFT

    dense = trained(StyleGAN2GeneratorCSFT(32, 32, 2, narrow=1 / 16))
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), verify=False)
    message = "StyleGAN2GeneratorCSFT makes no images from latents alone, it wants conditions, too. Load"
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"^{message}"):
        squeeze_patch.recover(squeezed, dense)
    with pytest.raises(squeeze_patch.MeasurementError, match=f"^A: {message}"):
        squeeze_patch.compare(dense, squeezed)
    plain = gfpgan.generator()
    plain.load_state_dict(dense.state_dict(), strict=True)
    assert squeeze_patch.compare(plain, plain, samples=2).psnr == math.inf


def test_what_is_missing_is_said(rosinality: FlatHost) -> None:
    G = trained(rosinality.generator())
    state = {name: value for name, value in G.state_dict().items() if not name.startswith("noises.")}
    body: Any = stand_in(state)
    assert squeeze_patch.compare(body, body, samples=2).psnr == math.inf  # noise that is the same every time
    del state["to_rgbs.0.bias"]
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="to_rgbs.0.bias"):
        stand_in(state)
    some = trained(rosinality.generator())
    del some.noises.noise_3
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="6 stored noise maps for 7 convolutions.*none"):
        squeeze_patch.compare(some, some, samples=2)
    assert squeeze_patch.compare(some, some, samples=2, noise_mode="none").psnr == math.inf
    other: Any = stand_in(rosinality.generator(lr_mlp=1).state_dict())
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="lr_mlp=0.01.*in Python"):
        squeeze_patch.compare(other, other, samples=2)


@pytest.fixture
def forks(rosinality: FlatHost) -> Any:
    """A generator whose forward is that of a fork: ``forks(forward)``."""

    def made(forward: Any) -> Any:
        G = trained(rosinality.generator())
        G.__class__ = type("Generator", (type(G),), {"forward": forward})
        return G

    return made


def test_a_fork_that_takes_styles_and_answers_with_images(rosinality: FlatHost, forks: Any) -> None:
    """Proved, squeezed and compared like the others: warnings are errors here, that of an unproved generator, too."""

    def forward(self: Any, styles: torch.Tensor, input_is_latent: bool = False, noise: Any = None) -> torch.Tensor:
        assert styles.shape[1:] == (8, 32)  # a list has no shape
        answer = super(type(self), self).forward([styles], input_is_latent=input_is_latent, noise=noise)
        images: torch.Tensor = answer[0]
        return images

    G = forks(forward)
    dense = copy.deepcopy(G)
    squeeze_patch.apply(G, ratio=1)
    ws = torch.randn(2, 8, 32)
    noise = [torch.zeros_like(n) for n in G.make_noise()]
    with torch.no_grad():
        expected, found = (network(ws, input_is_latent=True, noise=noise) for network in (dense, G))
    assert (found - expected).abs().max() <= float_error(G, expected)
    squeeze_patch.apply(squeeze_patch.remove(G), ratio=2)
    assert squeeze_patch.compare(dense, G, samples=16).psnr < 60  # of other images, and finite


def test_a_fork_that_is_called_otherwise(forks: Any) -> None:
    def forward(self: Any, styles: Any, input_is_latent: bool = False, noise: Any = None) -> Dict[str, Any]:
        return {"image": styles}

    G = forks(forward)
    with pytest.warns(squeeze_patch.UnprovedWarning, match="answers with dict"):
        squeeze_patch.apply(G, ratio=2)
    with pytest.raises(squeeze_patch.errors.UnsupportedModelError, match="is not called like it.*compare"):
        squeeze_patch.compare(G, G, samples=16)
