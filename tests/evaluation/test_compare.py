"""Two generators on the same latents."""

from __future__ import annotations

import copy
import json
import math
import sys
from types import ModuleType
from typing import Any, Dict, Tuple
from urllib.error import URLError

import pytest
import torch
from PIL import ImageFont

import squeeze_patch
from squeeze_patch.demo import CONFIG, trained_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.errors import MeasurementError
from squeeze_patch.evaluation import inception
from squeeze_patch.evaluation.grids import side_by_side
from squeeze_patch.evaluation.memory import LiveTensors
from squeeze_patch.evaluation.pixels import psnr, ssim
from squeeze_patch.sampling import sample
from squeeze_patch.testing import trained
from tests.hosts import Host


@pytest.fixture
def generators() -> Tuple[Any, Any]:
    dense = trained_generator()
    return dense, squeeze_patch.apply(copy.deepcopy(dense))


def test_a_generator_equals_itself_and_nothing_is_touched() -> None:
    G = trained_generator().train()
    G.mapping.eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = squeeze_patch.compare(G, copy.deepcopy(G), samples=20)
    assert torch.equal(torch.get_rng_state(), before)
    assert (G.training, G.mapping.training, G.synthesis.training) == (True, False, True)
    assert not any(module._forward_hooks for module in G.modules())
    assert found.psnr == math.inf
    assert found.ssim == pytest.approx(1, abs=1e-12)
    assert [row.relative for row in found.features] == [0, 0, 0]
    assert found.frechet.value == pytest.approx(0, abs=1e-9)
    assert [level.value for level in found.sliced_wasserstein.values()] == [0, 0]
    assert found.frechet.halves is not None
    assert found.frechet.halves > 0.1
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["psnr"] is None
    assert data["squared_error"] == 0
    assert "PSNR                     equal" in str(found)


def test_streamed_figures_are_those_of_all_images_at_once(generators: Tuple[Any, Any]) -> None:
    """In whatever batches. Kernels may differ with the batch size, by float32 rounding: 1e-4 in images of size 1."""
    whole = squeeze_patch.compare(*generators, samples=33, seed=4, batch=33)
    parts = squeeze_patch.compare(*generators, samples=33, seed=4, batch=10)
    a, b = (sample(G, 33, 4) for G in generators)
    for found in (whole, parts):
        assert found.psnr == pytest.approx(psnr(a, b), abs=1e-2)
        assert found.ssim == pytest.approx(float(ssim(a, b).mean()), abs=1e-3)
        assert found.frechet.value == pytest.approx(whole.frechet.value, rel=1e-2)
        for resolution in (32, 16):
            assert found.sliced_wasserstein[resolution].value == pytest.approx(
                whole.sliced_wasserstein[resolution].value, rel=1e-2
            )
    assert [row.resolution for row in parts.features] == [4, 8, 16]
    for one, other in zip(whole.features, parts.features):
        assert one.relative == pytest.approx(other.relative, rel=1e-3)


def test_images_are_not_kept(generators: Tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """96 images more take 64 features of 4 bytes each, for two generators, their copies in one tensor and in double
    precision (at most 6 x 512 bytes); the images themselves would take 2 x 4,096 bytes each."""
    monkeypatch.setattr(sys.modules["squeeze_patch.evaluation.compare"], "MOST_PATCHES", 32)
    peaks = []
    for samples in (32, 128):
        with LiveTensors() as live:
            squeeze_patch.compare(*generators, samples=samples, batch=4)
        peaks.append(live.peak)
    assert peaks[1] - peaks[0] < 96 * 6 * 512


def test_feature_distance_is_relative_and_per_resolution() -> None:
    a = trained_generator()
    b = copy.deepcopy(a)
    b.synthesis.b8.register_forward_hook(lambda module, inputs, output: (1.1 * output[0], output[1]))
    found = squeeze_patch.compare(a, b, samples=4)
    distances = {row.resolution: row.relative for row in found.features}
    assert distances[4] == 0
    assert distances[8] == pytest.approx(0.1, rel=1e-5)
    assert distances[16] > 0
    assert found.features_missing == ""


def test_features_that_cannot_be_compared_are_named() -> None:
    a = trained_generator()

    class Unknown(torch.nn.Module):
        z_dim, c_dim, img_resolution = 64, 0, 32

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 1024)

        def forward(self, z: torch.Tensor, c: torch.Tensor, noise_mode: str) -> torch.Tensor:
            return self.layer(z).reshape(-1, 1, 32, 32)

    found = squeeze_patch.compare(a, Unknown(), samples=4)
    assert found.features == ()
    assert found.features_missing == "not compared: no adapter knows the blocks of B (Unknown)"
    assert "no adapter knows the blocks of B" in str(found)
    narrow: Dict[str, Any] = {**CONFIG, "synthesis_kwargs": {"channel_base": 512, "channel_max": 64}}
    found = squeeze_patch.compare(a, Generator(**narrow), samples=4)
    assert [row.resolution for row in found.features] == [4, 8]
    assert found.features_missing == "16x16 has 64 channels in A, 32 in B"


def test_hooks_go_where_hooking_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may in an adapter of somebody else's."""
    G, taken = trained_generator(), []
    surgery = type(squeeze_patch.adapters.locate(G).surgery)
    watch = surgery.watch

    def failing(*arguments: Any) -> Any:
        taken.append(arguments[-1])
        if len(taken) % 4 == 0:
            raise RuntimeError("no more hooks")
        return watch(*arguments)

    monkeypatch.setattr(surgery, "watch", failing)
    with pytest.raises(RuntimeError, match="no more hooks"):
        squeeze_patch.compare(G, copy.deepcopy(G), samples=4)
    assert len(taken) == 4
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in G.modules())


def test_every_host(host: Host) -> None:
    """With classes; the start from the weights is nearer than random layers by every figure."""
    dense = trained(host.generator(c_dim=3))
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), ratio=1.5)
    random = squeeze_patch.apply(copy.deepcopy(dense), ratio=1.5, init="random")
    near, far = (squeeze_patch.compare(dense, other, samples=24) for other in (squeezed, random))
    assert [row.resolution for row in near.features] == [4, 8, 16]
    assert near.psnr > far.psnr
    assert near.ssim is not None
    assert far.ssim is not None
    assert near.ssim > far.ssim
    assert near.frechet.value < far.frechet.value
    assert all(one.relative < other.relative for one, other in zip(near.features, far.features))


def test_small_images_have_no_ssim() -> None:
    tiny: Dict[str, Any] = {**CONFIG, "img_resolution": 8}
    found = squeeze_patch.compare(Generator(**tiny), Generator(**tiny), samples=3)
    assert found.ssim is None
    assert found.frechet.halves is None  # halves of one image have no covariance
    assert [level.halves for level in found.sliced_wasserstein.values()] == [None]
    assert "smaller than 11 pixels" in str(found)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"samples": 1}, "samples has to be 2 or more, not 1"),
        ({}, {"batch": 0}, "batch has to be 1 or more"),
        ({}, {"noise_mode": "random"}, "one of const, none, not 'random'"),
        ({}, {"truncation": math.nan}, "truncation has to be a finite number"),
        ({}, {"fid": True, "samples": 3}, "more than 3 samples"),
        ({"z_dim": 32}, {}, "A has latent size 64, B 32"),
        ({"img_resolution": 16}, {}, "A has image size 32, B 16"),
        ({"img_channels": 3}, {}, r"A makes images \[N, C, H, W\] of \[16, 1, 32, 32\], B of \[16, 3, 32, 32\]"),
    ],
)
def test_what_cannot_be_compared(changes: Dict[str, Any], arguments: Dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        squeeze_patch.compare(trained_generator(), Generator(**{**CONFIG, **changes}), **arguments)


def test_no_image_is_in_both_halves(generators: Tuple[Any, Any]) -> None:
    four, five = (squeeze_patch.compare(*generators, samples=samples, noise_mode="none") for samples in (4, 5))
    halves = [[level.halves for level in found.sliced_wasserstein.values()] for found in (four, five)]
    assert halves[0] == halves[1]


def test_pictures_have_labels_of_all_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with the font of Pillow before 10.1."""
    black = torch.full([1, 1, 16, 16], -1.0)
    newer = ImageFont.load_default
    for font in (newer, getattr(ImageFont, "load_default_imagefont", newer)):
        monkeypatch.setattr(ImageFont, "load_default", font)
        side_by_side((black, black), ("A: \N{CJK UNIFIED IDEOGRAPH-56FE}.pkl", "B: \udcff"))


def test_diverged_generators_and_parts_of_generators_are_named() -> None:
    a, b = trained_generator(), trained_generator()
    with torch.no_grad():
        b.synthesis.b32.torgb.bias.fill_(math.nan)
    with pytest.raises(MeasurementError, match="B's images hold values that are not finite"):
        squeeze_patch.compare(a, b, samples=2)
    with pytest.raises(MeasurementError, match="does not say its latent size"):
        squeeze_patch.compare(a.synthesis, b, samples=2)


def fake_fidelity(monkeypatch: pytest.MonkeyPatch, weights: bool) -> None:
    """Stands in for torch-fidelity 0.4: the names, arguments and results that are used, without its weights."""

    class Extractor(torch.nn.Module):
        def __init__(self, name: str, features_list: Any, verbose: bool) -> None:
            super().__init__()
            if not weights:
                raise URLError("no route to host")

        def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor]:
            assert x.dtype == torch.uint8
            assert x.shape[1:] == (3, 32, 32)
            return (x.float().flatten(1)[:, :2048],)

    modules: Dict[str, Dict[str, Any]] = {
        "feature_extractor_inceptionv3": {"FeatureExtractorInceptionV3": Extractor},
        "metric_fid": {
            "fid_features_to_statistics": lambda x: float(x.mean()),
            "fid_statistics_to_metric": lambda x, y, verbose: {"frechet_inception_distance": abs(x - y)},
        },
        "metric_kid": {
            "kid_features_to_metric": lambda x, y, kid_subset_size, verbose: {
                "kernel_inception_distance_mean": float(kid_subset_size)
            }
        },
        "metric_prc": {"calculate_precision_recall_full": lambda x, y: (len(x) / 100, len(y) / 10)},
    }
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"torch_fidelity.{name}", module)


def test_fid_is_handed_to_torch_fidelity(generators: Tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fidelity(monkeypatch, weights=True)
    found = squeeze_patch.compare(*generators, samples=6, batch=4, fid=True)
    a, b = ((sample(G, 6, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).float() for G in generators)
    a, b = (x.expand(-1, 3, -1, -1).flatten(1)[:, :2048] for x in (a, b))
    assert found.inception is not None
    assert found.inception.fid == pytest.approx(abs(float(a.mean() - b.mean())), abs=0.05)
    assert found.inception == inception.InceptionDistances(found.inception.fid, kid=6, precision=0.06, recall=0.6)
    assert "FID " in str(found)
    assert found.to_dict()["inception"]["recall"] == 0.6


def test_missing_package_and_weights_are_one_clear_line(
    generators: Tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MeasurementError, match=r"pip install 'squeeze-patch\[fid\]'"):
        squeeze_patch.compare(*generators, samples=4, fid=True)
    fake_fidelity(monkeypatch, weights=False)
    with pytest.raises(MeasurementError, match="weights are missing and cannot be downloaded"):
        squeeze_patch.compare(*generators, samples=4, fid=True)
