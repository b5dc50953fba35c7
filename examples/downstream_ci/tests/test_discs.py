"""The fixtures come with squeeze_patch: the generator of squeeze.toml, and what was recorded of it."""

from __future__ import annotations

import torch


def test_no_disc_is_grey(squeezed_generator) -> None:
    z = torch.randn(8, squeezed_generator.z_dim, generator=torch.Generator().manual_seed(1))
    images = squeezed_generator(z, noise_mode="const")
    assert images.shape == (8, 3, 16, 16)
    assert images.std(dim=(2, 3)).max(dim=1).values.min() > 0.1


def test_what_is_shipped_is_what_was_recorded(squeezed_generator, squeeze_baseline) -> None:
    recorded = next(iter(squeeze_baseline.generators.values()))
    assert sum(parameter.numel() for parameter in squeezed_generator.parameters()) == recorded.parameters
