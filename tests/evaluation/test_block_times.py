"""Where the time goes, block by block, in every family."""

from __future__ import annotations

import copy
from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.nvidia import fused_layers
from squeeze_patch.demo import trained_generator
from squeeze_patch.evaluation.block_times import BlockTime, block_times, table_of
from squeeze_patch.fused_convolution import fused_layer
from squeeze_patch.planning.cost import report
from tests.hosts import Host


def hooks_of(G: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in G.modules())


def test_blocks_of_every_host(any_host: Host) -> None:
    """They are parts of the call, hooks are gone afterwards, and counts are the report's."""
    dense = any_host.generator(resolution=16).eval()
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="random", verify=False)
    before = [hooks_of(G) for G in (dense, squeezed)]
    found = block_times({"dense": locate(dense), "squeezed": locate(squeezed)}, batch=2, rounds=2)
    assert [hooks_of(G) for G in (dense, squeezed)] == before
    rows = report(locate(squeezed)).blocks
    for name, counts in (("dense", "multiply_adds_before"), ("squeezed", "multiply_adds_after")):
        times = found[name]
        assert times is not None
        assert [time.height_width for time in times] == [row.height_width for row in rows]
        assert [time.multiply_adds for time in times] == [getattr(row, counts) for row in rows]
        assert all(time.seconds > 0 and time.rate == 2 * time.multiply_adds / time.seconds for time in times)
        assert 0 < sum(time.share for time in times) < 1.2  # shares are of medians, which do not add up


def test_fused_blocks_of_every_host(any_host: Host) -> None:
    """Where blocks are modules; layers with hooks would not run fused."""
    G = squeeze_patch.apply(any_host.generator(resolution=8).eval(), ratio=2, init="random", verify=False)
    found, before = locate(squeeze_patch.fuse(G, verify=False)), hooks_of(G)
    times = block_times({"fused": found}, batch=1, rounds=1)["fused"]
    assert hooks_of(G) == before
    assert (times is None) == (found.adapter.name == "rosinality")


def test_an_excite_is_timed_in_its_own_block(rosinality: Host) -> None:
    """Of flat layers, too, where it runs in front of the reader: between the marks of its block, not of the next."""
    squeezed = squeeze_patch.apply(rosinality.generator(resolution=8).eval(), ratio=2, init="random", verify=False)
    found, events = locate(squeezed), []  # type: ignore[var-annotated]
    excite: Any = found.get_block(found.specs[0].name).excite
    excite.register_forward_pre_hook(lambda *_: events.append("excite"))
    found.surgery.watch(found.network, found.specs[0].name, lambda _: events.append("end"))
    block_times({"squeezed": found}, batch=1, rounds=1)
    assert events == ["excite", "end"] * 2


def test_fused_blocks_run_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often by fused layers as in a call that nobody watches, excite folded in as there."""
    squeezed = squeeze_patch.apply(trained_generator(), ratio=2, init="weights").eval()
    fused = squeeze_patch.fuse(squeezed)
    inputs: List[str] = []

    def seen(x: Any, *others: Any) -> torch.Tensor:
        inputs.append(type(x).__name__)
        return fused_layer(x, *others)

    monkeypatch.setattr(fused_layers, "fused_layer", seen)
    with torch.no_grad():
        fused(torch.zeros(1, 64), torch.zeros(1, 0))
    unwatched, inputs[:] = list(inputs), []
    times = block_times({"fused": locate(fused)}, batch=1, rounds=1)["fused"]
    assert inputs == 2 * unwatched
    assert "Deferred" in inputs
    assert times is not None
    assert sum(time.multiply_adds for time in times) < report(locate(fused)).multiply_adds_after


def test_table() -> None:
    rows = (
        BlockTime((4, 4), 0.001, 0.1, 10_000_000, 1e10),
        BlockTime((8, 8), 0.006, 0.6, 180_000_000, 3e10),
        BlockTime((16, 16), 0.002, 0.2, 190_000_000, 9.5e10),
    )
    times: Dict[str, Any] = {"dense": rows, "fused": None}
    lines = table_of(times, rounds=10).splitlines()
    assert "median of 10 further calls" in lines[0]
    assert lines[1].split() == ["block", "dense", "fused"]
    assert lines[3].split() == ["8x8", "6.0", "ms", "60%", "30.0", "GMAC/s", "-"]
    assert lines[5].split() == ["the", "rest", "10%"]
    assert lines[6] == "dense: 8x8 at 30.0 GMAC/s, the best block (16x16) at 95.0, which would make it 1.9 ms"
    assert lines[7] == "(fused: the blocks of this family cannot be timed from outside)"
