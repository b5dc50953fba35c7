"""PSNR and SSIM, sampling, pictures."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from squeeze_patch.adapters import sampler
from squeeze_patch.demo import trained_generator
from squeeze_patch.errors import MeasurementError
from squeeze_patch.evaluation.grids import first_images, grid, side_by_side, to_pixels
from squeeze_patch.evaluation.pixels import K1, psnr, ssim
from squeeze_patch.sampling import draw, evaluation, latents, sample


def images(n: int, channels: int, height: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand([n, channels, height, width], generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr() -> None:
    a = torch.zeros(2, 1, 4, 4)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 0.2) == pytest.approx(10 * math.log10(4 / 0.04), abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels: int) -> None:
    """With the settings that its documentation names for Wang et al.; both compute in float64, so only the order of
    sums differs: about 121 roundings of 1e-16, amplified by the division by C2 = 0.0036 at the most."""
    a = images(3, channels, 20, 31, 0)
    b = (0.8 * a + 0.3 * images(3, channels, 20, 31, 1)).clamp(-1, 1)
    found = ssim(a, b)
    assert found.shape == (3,)
    for index in range(3):
        expected = structural_similarity(
            a[index].double().numpy(),
            b[index].double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=0,
        )
        assert float(found[index]) == pytest.approx(expected, abs=1e-11)


def test_ssim_of_plain_images() -> None:
    """Without variance only the luminance term is left (Wang et al. 2004, equation 6)."""
    a, b = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), -0.2)
    c1 = (K1 * 2) ** 2
    expected = (2 * 0.5 * -0.2 + c1) / (0.5**2 + 0.2**2 + c1)
    assert float(ssim(a, b)) == pytest.approx(expected, rel=1e-6)
    assert float(ssim(a, a)) == pytest.approx(1, abs=1e-12)
    assert float(ssim(a[..., :11, :11], b[..., :11, :11])) == pytest.approx(expected, rel=1e-6)
    for few in (a[..., :10, :], a[0]):
        with pytest.raises(ValueError, match="11 x 11"):
            ssim(few, few)


def test_samples_do_not_depend_on_the_batch_and_leave_the_mode() -> None:
    G = trained_generator().train()
    a, b = sample(G, 7, seed=3, batch=7), sample(G, 7, seed=3, batch=2)
    assert a.shape == (7, 1, 32, 32)
    assert (a - b).abs().max() <= 1e-4  # kernels may differ with the batch size
    assert G.training


def test_truncation_draws_towards_the_mean() -> None:
    G = trained_generator()
    source = sampler(G)
    z, c = latents(source, 4, seed=0)
    with evaluation(G):
        spread = [draw(source, z, c, truncation=psi).std(dim=0).mean() for psi in (1.0, 0.5, 0.0)]
    assert spread[0] > spread[1] > spread[2] == 0


def test_what_is_no_image_is_refused() -> None:
    class Dict(torch.nn.Linear):
        z_dim, c_dim, img_resolution = 1, 0, 1

        def forward(self, z: torch.Tensor, c: torch.Tensor, noise_mode: str) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"image": z}

    with pytest.raises(MeasurementError, match="the generator returns dict, not images"):
        draw(sampler(Dict(1, 1)), torch.zeros(1, 1), torch.zeros(1, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_grid(channels: int) -> None:
    a = torch.rand(5, channels, 8, 8) * 2 - 1
    image = grid(a, -a, scale=3)
    assert image.size == (5 * 8 * 3, 3 * (8 * 3 + 16))
    white = image.getpixel((0, 15))
    assert white == (255, 255, 255)  # the label's strip
    same = grid(a, a).crop((0, 2 * (8 + 16) + 16, 40, 3 * (8 + 16)))
    assert same.getextrema() == ((0, 0),) * 3  # no difference is black


def test_side_by_side_shows_the_first_samples() -> None:
    G = trained_generator()
    images = first_images(G, G, samples=20, seed=5)
    assert torch.equal(*images)
    picture = side_by_side(images, ("a", "b"))
    assert picture.size == (8 * 64, 3 * (64 + 16))
    expected = grid(sample(G, 20, 5)[:8], sample(G, 20, 5)[:8], scale=2)
    rows = [picture.crop((0, 16, 512, 80)), expected.crop((0, 16, 512, 80))]
    levels = [torch.frombuffer(bytearray(row.tobytes()), dtype=torch.uint8).int() for row in rows]
    assert (levels[0] - levels[1]).abs().max() <= 1  # other batches, other kernels: one grey level


def test_pixels_are_rounded_to_the_nearest_level() -> None:
    levels = torch.arange(256) / 127.5 - 1
    images = torch.stack([levels, levels + 0.49 / 127.5, levels - 0.49 / 127.5]).reshape(1, 3, 16, 16)
    assert (to_pixels(images).reshape(256, 3) == torch.arange(256)[:, None].numpy()).all()
    assert (to_pixels(torch.full([1, 3, 1, 2], 5.0)) == 255).all()


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_pixels_of_any_number_of_channels(channels: int, shown: list[int]) -> None:
    images = torch.rand(2, channels, 4, 6) * 2 - 1
    expected = to_pixels(images.repeat_interleave(3, dim=1)[:, [3 * channel for channel in shown]])
    assert expected.shape == (2, 4, 6, 3)
    assert (to_pixels(images) == expected).all()
