"""Features of images that need no download."""

from __future__ import annotations

import torch

from squeeze_patch.evaluation.descriptors import RandomNetwork, _double, normalised, patches, pyramid


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_pyramid_loses_nothing() -> None:
    images = noise(2, 3, 64, 128)
    levels = pyramid(images)
    assert [tuple(level.shape[2:]) for level in levels] == [(64, 128), (32, 64), (16, 32)]
    rebuilt = levels[-1]
    for level in levels[-2::-1]:
        rebuilt = level + _double(rebuilt)
    assert (rebuilt - images).abs().max() < 1e-5  # three sums in float32


def test_a_plain_image_is_in_the_coarsest_level_only() -> None:
    """Borders included. What is left is the rounding of filters whose taps are exact in binary."""
    *fine, coarse = pyramid(torch.full([1, 1, 64, 64], 0.7))
    assert all(level.abs().max() < 1e-6 for level in fine)
    assert (coarse - 0.7).abs().max() < 1e-6


def test_patches_are_cut_out_of_the_image() -> None:
    """Of an image whose channels are its row and column numbers: every patch counts up from where it lies."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    level = torch.stack([rows, columns])[None].expand(4, -1, -1, -1) + torch.arange(4.0)[:, None, None, None] * 100
    found = patches(level, 200, torch.Generator().manual_seed(0))
    assert found.shape == (800, 2, 7, 7)
    steps = torch.arange(7.0)
    assert torch.equal(found[:, 0], found[:, 0, :1, :1] + steps[:, None].expand(7, 7))
    assert torch.equal(found[:, 1], found[:, 1, :1, :1] + steps.expand(7, 7))
    corners = found[:, :, 0, 0].reshape(4, 200, 2) - torch.arange(4.0)[:, None, None] * 100
    assert corners.amin(dim=(0, 1)).tolist() == [0, 0]  # 800 draws of 14 and 24 places: both ends are met
    assert corners.amax(dim=(0, 1)).tolist() == [13, 23]
    random = torch.Generator().manual_seed(0)
    in_batches = torch.cat([patches(level[:1], 200, random), patches(level[1:], 200, random)])
    assert torch.equal(in_batches, found)
    assert patches(noise(2, 3, 4, 4), 5, random).shape == (10, 3, 4, 4)


def test_normalised_patches() -> None:
    found = normalised(torch.cat([noise(50, 2, 7, 7) * 3 + 5, torch.ones(50, 1, 7, 7)], dim=1)).reshape(50, 3, 49)
    assert found[:, :2].mean(dim=(0, 2)).abs().max() < 1e-5
    assert (found[:, :2].std(dim=(0, 2)) - 1).abs().max() < 1e-5
    assert not found[:, 2].any()


def test_the_random_network_is_fixed() -> None:
    images = noise(3, 1, 32, 32)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RandomNetwork(1, seed=0)(images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(RandomNetwork(1, seed=0)(images), first)
    assert not torch.equal(RandomNetwork(1, seed=1)(images), first)
    assert first.shape == (3, 64)
    assert RandomNetwork(3)(noise(2, 3, 128, 128)).shape == (2, 64)


def test_the_random_network_sees_where_things_are() -> None:
    """Not only how much of them there is: moving a spot changes the features more than rounding does."""
    images = torch.zeros([2, 1, 64, 64])
    images[0, 0, 10:20, 10:20] = images[1, 0, 40:50, 40:50] = 1
    a, b = RandomNetwork(1)(images)
    assert (a - b).norm() > 0.1 * a.norm()
