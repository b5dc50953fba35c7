"""Generators whose images are no square, or no power of two: constants of other sides than 4x4."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.planning.cost import report, table
from squeeze_patch.testing import float_error, trained
from tests.helpers import compare_windows
from tests.hosts.flat import FlatHost

#: sides of the constant: wide, tall, odd, so flat that one side never needs a window, and larger than a window
SHAPES = [(4, 8), (6, 4), (5, 5), (3, 7), (1, 4), (18, 2)]


def generator(host: FlatHost, sides: Tuple[int, int]) -> Any:
    """The host's, with a constant of other sides and noise to go with it; nothing else in it says how large it is."""
    G = host.generator()
    G.input.input = torch.nn.Parameter(torch.randn(1, 32, *sides))
    for index in range(len(G.convs) + 1):
        scale = 2 ** ((index + 1) // 2)
        setattr(G.noises, f"noise_{index}", torch.randn(1, 1, sides[0] * scale, sides[1] * scale))
    return trained(G)


@pytest.mark.parametrize("sides", SHAPES)
def test_windows_are_the_hosts_features_and_images(sides: Tuple[int, int], rosinality: FlatHost) -> None:
    G = generator(rosinality, sides)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("noise.weight"):
                parameter.zero_()
    found = locate(G)
    blocks = found.dense_blocks()
    ws = found.sample_w(160, seed=0)
    seen: Dict[str, torch.Tensor] = {}
    for block in blocks:
        layer = G.get_submodule(block.spec.name)
        layer.register_forward_hook(lambda _m, _i, out, name=block.spec.name: seen.update({name: out}))
    image, _ = G([ws], input_is_latent=True, randomize_noise=False)
    assert image.shape[2:] == (8 * sides[0], 8 * sides[1])
    compare_windows(G, blocks, ws, seen, image)


@pytest.mark.parametrize("sides", SHAPES)
def test_start_cost_and_files(sides: Tuple[int, int], rosinality: FlatHost, tmp_path: Path) -> None:
    """Ratio 1 is the identity; a trained start is near; multiply-adds are those of a square of as many pixels; a file
    converts."""
    G = generator(rosinality, sides)
    z, c = rosinality.latents(G)
    dense = rosinality.images(G, z, c)
    spread = (dense - dense.mean(dim=0)).square().mean()
    for init in ("calibrated", "weights"):
        with squeeze_patch.squeezed(G, ratio=1, init=init):
            assert (rosinality.images(G, z, c) - dense).abs().max() <= float_error(G, dense)
        with squeeze_patch.squeezed(G, init=init):
            assert (rosinality.images(G, z, c) - dense).square().mean() < spread
    cost, square = report(locate(G)), report(locate(rosinality.generator()))
    assert cost.multiply_adds_before * 16 == square.multiply_adds_before * sides[0] * sides[1]
    assert f"{8 * sides[0]}x{8 * sides[1]}" in table(cost)

    torch.save({"g_ema": G.state_dict()}, tmp_path / "dense.pt")
    squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights")
    other = squeeze_patch.load(generator(rosinality, sides), tmp_path / "squeezed.pt")
    squeeze_patch.apply(G, init="weights")
    squeezed = rosinality.images(G, z, c)
    assert (rosinality.images(other, z, c) - squeezed).abs().max() <= float_error(G, squeezed)


def test_a_host_of_tall_images(rosinality: FlatHost) -> None:
    """Of people, with a constant of 4x2, where the host has them."""
    has_them = rosinality.name == "draggan"
    G = trained(rosinality.generator(human=True)) if has_them else generator(rosinality, (4, 2))
    z, c = rosinality.latents(G)
    dense = rosinality.images(G, z, c)
    assert dense.shape[2] == 2 * dense.shape[3]
    with squeeze_patch.squeezed(G, ratio=1):
        assert (rosinality.images(G, z, c) - dense).abs().max() <= float_error(G, dense)
