"""What has to hold on every host: the published contract suite, and what is particular to these hosts."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any, Dict, Tuple

import pytest
import torch
from torch.overrides import TorchFunctionMode

import squeeze_patch
from squeeze_patch.testing import AdapterContract, float_error, trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.helpers import latents
from tests.hosts import Host
from tests.hosts.training import need_second_derivatives

#: configurations of the hosts: resolution, channel_base, mapping layers, dense parameters, squeezed at ratio 1.5
SIZES = {
    "cifar": (32, 32768, 2, 19_947_539, 17_033_459),
    "paper256": (256, 16384, 8, 24_767_458, 21_743_434),
    "config-f 256": (256, 32768, 8, 30_034_338, 26_340_794),
    "paper512": (512, 32768, 8, 30_276_583, 26_568_199),
    "1024": (1024, 32768, 8, 30_370_060, 26_657_860),
}


def count(G: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in G.parameters())


class NoDraws(TorchFunctionMode):
    """Zeros in place of random numbers: drawing thirty million takes half a second, and only counts matter here."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (torch.zeros if function is torch.randn else function)(*args, **(kwargs or {}))


def sized(host: Host, size: str) -> Any:
    resolution, base, layers, _, _ = SIZES[size]
    with NoDraws():
        return host.sized(resolution, base, layers)


class TestContract(AdapterContract):
    """The published suite on every host at hand; those that have classes get three."""

    @pytest.fixture(autouse=True)
    def _on_a_host(self, any_host: Host) -> None:
        self.host = any_host
        self.family = any_host.family

    def make_generator(self) -> Any:
        return self.host.generator(c_dim=3 if self.family == "nvidia" else 0)

    def latents(self, G: Any) -> Tuple[torch.Tensor, torch.Tensor]:
        return self.host.latents(G)

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.host.images(G, z, c)

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        return self.host.calls(G, z, c)

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        need_second_derivatives(self.host)
        return self.host.styles_and_images(G, z, c)


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_at_ratio_1_5(official_host: Host, size: str) -> None:
    G = sized(official_host, size)
    *_, dense, squeezed = SIZES[size]
    assert count(G) == dense
    assert squeeze_patch.plan(G, ratio=1.5).parameters_after == squeezed
    with NoDraws():
        squeeze_patch.apply(G, ratio=1.5, init="random", keep_original=False, verify=False)  # large images take long
    assert count(G) == squeezed
    assert squeeze_patch.status(G).parameters_before == dense


@pytest.mark.parametrize("size", SIZES)
def test_default_reduction_is_the_papers(official_host: Host, size: str) -> None:
    plan = squeeze_patch.plan(sized(official_host, size), init="random")
    assert abs(plan.reduction - 0.121) <= 0.003


def test_host_rebuilds_it_in_fp16(full_host: Host) -> None:
    """legacy.load_network_pkl(force_fp16=True) rebuilds G from its init_kwargs; draggan does so by default."""
    import legacy  # the host's

    G = squeeze_patch.apply(trained(full_host.generator()), ratio=1.5)
    data = {"G": G, "D": full_host.discriminator(), "G_ema": copy.deepcopy(G)}
    for source in (data, pickle.loads(pickle.dumps(data))):
        rebuilt = legacy.load_network_pkl(io.BytesIO(pickle.dumps(source)), force_fp16=True)["G_ema"]
        assert squeeze_patch.status(rebuilt) == squeeze_patch.status(G)
        assert [getattr(rebuilt.synthesis, f"b{r}").use_fp16 for r in (4, 8, 16, 32)] == [False, True, True, True]
        assert rebuilt.synthesis.b8.excite.conv_clamp == 256
        z, c = latents(G)
        a = G(z, c, noise_mode="const", force_fp32=True)
        b = rebuilt(z, c, noise_mode="const", force_fp32=True)
        # The only difference is the clamp at 256, which these activations do not reach.
        assert (a - b).abs().max() <= float_error(G, a)


@pytest.mark.parametrize("kind", ["inner", "narrow"])
def test_host_rebuilds_other_shapes_in_fp16(kind: str, full_host: Host) -> None:
    import legacy  # the host's

    dense = trained(full_host.generator())
    G = squeeze_patch.apply(dense, plan=plan_of_kind(dense, kind), init="weights")
    data = {"G": G, "D": full_host.discriminator(), "G_ema": copy.deepcopy(G)}
    rebuilt = legacy.load_network_pkl(io.BytesIO(pickle.dumps(data)), force_fp16=True)["G_ema"]
    assert squeeze_patch.status(rebuilt) == squeeze_patch.status(G)
    assert [getattr(rebuilt.synthesis, f"b{r}").use_fp16 for r in (4, 8, 16, 32)] == [False, True, True, True]
    z, c = latents(G)
    a = G(z, c, noise_mode="const", force_fp32=True)
    b = rebuilt(z, c, noise_mode="const", force_fp32=True)
    assert (a - b).abs().max() <= float_error(G, a)  # as above


def test_features_keep_their_channels(host: Host) -> None:
    G = trained(host.generator())
    dense = block_outputs(G)
    squeeze_patch.apply(G, ratio=2)
    squeezed = block_outputs(G)
    assert [x.shape for x, _ in dense.values()] == [x.shape for x, _ in squeezed.values()]
    assert [img.shape for _, img in dense.values()] == [img.shape for _, img in squeezed.values()]
    assert all(img.dtype == torch.float32 for _, img in squeezed.values())


def block_outputs(G: Any, **kwargs: Any) -> Dict[int, Any]:
    outputs: Dict[int, Any] = {}
    handles = []
    for resolution in G.synthesis.block_resolutions:
        block = getattr(G.synthesis, f"b{resolution}")
        handles.append(block.register_forward_hook(lambda _m, _i, out, at=resolution: outputs.update({at: out})))
    G(*latents(G), noise_mode="const", **kwargs)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("channels_last", [False, True])
def test_fp16_blocks(host: Host, channels_last: bool) -> None:
    """Dtypes and memory formats are the dense block's; the images are the float32 ones to half precision."""
    G = trained(host.generator(num_fp16_res=2, conv_clamp=256, fp16_channels_last=channels_last))
    dense = block_outputs(G)
    squeeze_patch.apply(G, ratio=1.5)
    half = block_outputs(G)
    assert [x.dtype for x, _ in half.values()] == [x.dtype for x, _ in dense.values()]
    for (a, _), (b, _) in zip(dense.values(), half.values()):
        assert a.is_contiguous(memory_format=torch.channels_last) == b.is_contiguous(memory_format=torch.channels_last)
    full = block_outputs(G, force_fp32=True)
    image_half, image_full = half[32][1], full[32][1]
    assert torch.isfinite(image_half).all()
    # float_error with half's epsilon in the place of float32's
    ratio = torch.finfo(torch.float16).eps / torch.finfo(torch.float32).eps
    assert (image_half - image_full).abs().max() <= float_error(G, image_full) * ratio


def test_clamping_is_applied_to_excite(host: Host) -> None:
    G = trained(host.generator(conv_clamp=0.5))
    squeeze_patch.apply(G, init="random")
    outputs = block_outputs(G)
    for resolution in (4, 8, 16):
        assert outputs[resolution][0].abs().max() <= 0.5


def test_noise_truncation_mixing_labels(host: Host) -> None:
    G = squeeze_patch.apply(trained(host.generator(c_dim=3)), ratio=1.5)
    z, c = latents(G)
    const = G(z, c, noise_mode="const")
    assert torch.equal(G(z, c, noise_mode="const"), const)
    assert not torch.equal(G(z, c, noise_mode="none"), const)
    assert not torch.equal(G(z, c, noise_mode="random"), G(z, c, noise_mode="random"))
    assert not torch.equal(G(z, c.roll(1, dims=0), noise_mode="const"), const)
    mean = G(z, c, noise_mode="const", truncation_psi=0)
    assert torch.allclose(mean[0], mean[1], atol=float_error(G, mean))
    ws = G.mapping(z, c)
    assert ws.shape == (3, G.num_ws, G.w_dim)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), const)
    mixed = ws.clone()
    mixed[:, 4:] = ws.flip(0)[:, 4:]
    assert not torch.equal(G.synthesis(mixed, noise_mode="const"), const)


def test_projector_finds_the_noise_buffers(host: Host) -> None:
    G = host.generator()

    def noise() -> Any:
        return {name: tuple(b.shape) for name, b in G.synthesis.named_buffers() if "noise_const" in name}

    dense = noise()
    squeeze_patch.apply(G, ratio=1.5)
    assert noise() == dense
    assert all(len(shape) == 2 and shape[0] == shape[1] for shape in dense.values())


def test_hooks_on_blocks_go_on_working(host: Host) -> None:
    G = trained(host.generator())
    seen = []
    handle = G.synthesis.b8.register_forward_hook(lambda module, _i, _o: seen.append(type(module).__name__))
    squeeze_patch.apply(G, ratio=1.5)
    G(*latents(G))
    handle.remove()
    G(*latents(G))
    assert seen == ["SqueezedBlock"]
    for path in ("conv1", "torgb.affine"):
        G = host.generator()
        G.synthesis.b8.get_submodule(path).register_forward_hook(lambda *_: None)
        with pytest.raises(squeeze_patch.StateError, match=rf"b8\.{path} has hooks"):
            squeeze_patch.apply(G, ratio=1.5)
        assert squeeze_patch.status(G).state == "dense"


def test_training_and_frozen_flags_carry_over(host: Host) -> None:
    G = host.generator().train().requires_grad_(False)
    G.synthesis.b16.conv1.requires_grad_(True)
    squeeze_patch.apply(G, ratio=1.5)
    assert all(module.training for module in G.modules())
    assert {name.rsplit(".", 1)[0] for name, p in G.named_parameters() if p.requires_grad} == {
        "synthesis.b16.conv1",
        "synthesis.b16.conv1.affine",
        "synthesis.b16.excite",
    }


@pytest.mark.parametrize("architecture", ["orig", "resnet"])
def test_other_architectures_are_refused(host: Host, architecture: str) -> None:
    G = host.generator(architecture=architecture)
    before = {name: id(module) for name, module in G.named_modules()}
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"b4 has architecture '{architecture}'"):
        squeeze_patch.apply(G, ratio=1.5)
    assert {name: id(module) for name, module in G.named_modules()} == before


def test_discriminators_are_refused(full_host: Host) -> None:
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="no StyleGAN2 generator found in Discriminator"):
        squeeze_patch.apply(full_host.discriminator())
