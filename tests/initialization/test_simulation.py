"""The arithmetic behind trained starts is the hosts': whole maps, windows, their edges, and images."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

from squeeze_patch.adapters import locate
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.simulation import WINDOW
from squeeze_patch.testing import float_error, trained
from tests.helpers import compare_windows
from tests.hosts import Host


def without_noise(G: Any) -> Any:
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if "noise_strength" in name:
                parameter.zero_()
    return G


def test_windows_are_the_hosts_features_and_images(host: Host) -> None:
    """At 32x32 and 64x64 windows are cut out, at their edges, too: every value is the host's at that place."""
    G = without_noise(trained(host.generator(resolution=64)))
    found = locate(G)
    network: Any = found.network
    blocks = found.dense_blocks()
    ws = found.sample_w(48, seed=0)
    seen: Dict[str, torch.Tensor] = {}
    for block in blocks:
        layer = getattr(network, block.spec.name).conv1
        layer.register_forward_hook(lambda _m, _i, out, name=block.spec.name: seen.update({name: out}))
    image = network(ws[:, None].repeat(1, network.num_ws, 1), noise_mode="none")
    compare_windows(G, blocks, ws, seen, image)


def test_noise_is_what_the_step_says(draggan: Host) -> None:
    """Strength times a standard normal, in front of bias and activation."""
    G = trained(draggan.generator(resolution=8))
    found = locate(G)
    network: Any = found.network
    block = found.surgery.dense_block(found.network, "b4")
    ws = found.sample_w(2, seed=0)
    (step,) = simulation.sample_windows([block], [2], seed=0)
    network.b4.conv1.noise_const.copy_(step.noise1[1, 0])
    seen: List[torch.Tensor] = []
    network.b4.conv1.register_forward_hook(lambda _m, _i, out: seen.append(out))
    network(ws[1:, None].repeat(1, network.num_ws, 1), noise_mode="const")
    own = simulation.run(block, None, ws, step)[1:]
    assert block.conv1.noise_strength != 0
    assert (own - seen[0]).abs().max() <= float_error(G, own)


def test_windows_are_spread_over_the_map(draggan: Host) -> None:
    """At 32x32, any of the nine places in a row is as likely as the others; farther up, no place is left out."""
    G = draggan.generator(resolution=64)
    found = locate(G)
    blocks = found.dense_blocks()
    steps = simulation.sample_windows(blocks, [9000] * len(blocks), seed=0)
    at_32, at_64 = steps[3].crops, steps[4].crops
    assert at_32 is not None
    assert at_64 is not None
    # 1,000 expected at each, with a standard deviation of 30: five of them
    assert all(abs(int((at_32[:, 0] == place).sum()) - 1000) < 150 for place in range(9))
    assert set((2 * at_32 + at_64).flatten().tolist()) == set(range(25))


@pytest.mark.parametrize(("per_channel", "samples", "rows"), [(64, 64, 8192), (3, 16, 0)])
def test_enough_samples_and_no_more(draggan: Host, per_channel: int, samples: int, rows: int) -> None:
    """Every block gets its positions, from no more samples than the one before it."""
    G = draggan.generator(resolution=64)
    found = locate(G)
    blocks = found.dense_blocks()
    counts = simulation.counts(blocks, per_channel, samples, rows)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= samples
    for block, count in zip(blocks, counts):
        positions = count * min(block.spec.resolution, WINDOW) ** 2
        wanted = max(per_channel * block.spec.channels, rows)
        assert positions >= wanted
        assert count == counts[-1] or positions < wanted + WINDOW**2
