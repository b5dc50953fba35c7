"""Latency, memory, and dense and squeezed side by side."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from dataclasses import replace
from typing import Any, Callable, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate, sampler
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.nvidia import fused_layers
from squeeze_patch.demo import trained_generator
from squeeze_patch.errors import MeasurementError, StateError, UnsupportedModelError
from squeeze_patch.evaluation.latency import Latency, latency
from squeeze_patch.evaluation.measure import Measurement, measure, pair
from squeeze_patch.evaluation.memory import LiveTensors, memory
from squeeze_patch.sampling import draw, latents
from squeeze_patch.testing import float_error
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from squeeze_patch.timing import Quartiles, interleaved, paired_ratio, seconds_of, waiting_for
from tests.fused import count
from tests.hosts import Host


def test_rounds_are_interleaved_and_warm_up_is_not_counted() -> None:
    events: List[str] = []

    def say(what: str) -> Callable[[], None]:
        return lambda: events.append(what)

    seconds = interleaved({"a": say("a"), "b": say("b")}, repeats=3, warm_up=1, synchronize=say("."))
    assert "".join(events) == ".a..b." + ".b..a." + ".a..b." + ".b..a."
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in seconds.values() for value in values)


def test_seconds_of_a_call_begin_and_end_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    events: List[str] = []
    monkeypatch.setattr("time.perf_counter", lambda: float(len(events)))
    found = seconds_of(lambda: events.append("call"), lambda: events.append("wait"))
    assert (events, found.wall) == (["wait", "call", "wait"], 2.0)


def test_devices_are_waited_for() -> None:
    """All that run on their own; of this one nothing can be read."""
    waiting_for(torch.device("cpu"))()
    with pytest.raises(NotImplementedError):
        waiting_for(torch.device("meta"))()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_are_the_same_whatever_is_set(dtype: torch.dtype) -> None:
    G = Sampler(2, 3, 8, lambda *_: torch.zeros(0))
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta") if hasattr(torch, "set_default_device") else contextlib.nullcontext():
            z, c = latents(G, 2, seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(z, torch.randn([2, 2], generator=torch.Generator().manual_seed(0)))
    assert c.sum(dim=1).tolist() == [1, 1]


def test_quartiles() -> None:
    """Of numbers whose quartiles are numbers of the list."""
    found = Quartiles.of([5, 1, 2, 4, 3])
    assert (found.lower, found.median, found.upper) == (2, 3, 4)
    assert paired_ratio([2, 9, 4], [1, 3, 1]) == Quartiles(3, 2.5, 3.5)
    assert str(found) == "3.00 (2.00 to 4.00)"


def test_latency_of_two_generators() -> None:
    """128 images take longer than one, whatever the machine does meanwhile: sixteen did not always on a busy one."""
    dense = trained_generator().train()
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="random")
    one, many = latency(dense, squeezed, 1, 3), latency(dense, squeezed, 128, 3)
    assert (many.batch, many.repeats) == (128, 3)
    assert many.dense.median > one.dense.median
    assert "threads, torch" in one.device
    assert dense.training


def test_live_tensors_count_storages_once_and_as_long_as_they_live() -> None:
    outside = torch.ones(1000)
    with LiveTensors() as live:
        a = outside + 1  # 4,000 bytes
        views = [a[:10], a.reshape(10, 100), outside[5:]]  # the same bytes; not made here
        assert (live.now, live.peak) == (4000, 4000)
        a.mul_(2)
        b = torch.cat([a, a])  # 8,000
        assert live.now == 12000
        del a
        assert live.now == 12000  # a view shows it still
        del views
        assert live.now == 8000
        c = b * b.sum()  # 8,000, and 4 for the sum, which goes
        del b, c
        assert live.now == 0
    assert live.peak == 8000 + 4 + 8000


def test_memory_of_a_chain_of_layers() -> None:
    """Two layers 100 -> 100 on a batch of 5: never more than input and output of a layer at a time."""

    class Chain(torch.nn.Module):
        z_dim, c_dim, img_resolution = 100, 0, 1

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(*(torch.nn.Linear(100, 100) for _ in range(4)))

        def forward(self, z: torch.Tensor, c: torch.Tensor, noise_mode: str) -> torch.Tensor:
            return self.layers(z).reshape(-1, 1, 10, 10)

    found = memory(Chain(), batch=5)
    assert found.weights == 4 * (100 * 100 + 100) * 4
    assert found.working == 2 * 5 * 100 * 4
    assert found.peak == found.weights + found.working


def test_memory_of_a_host(host: Host) -> None:
    """Grows with the batch, is the same every time, and leaves nothing on the generator."""
    G = host.generator().eval()
    before = pickle.dumps(G)
    one, four = memory(G, 1), memory(G, 4)
    assert one == memory(G, 1)
    assert one.weights == four.weights == sum(x.numel() * 4 for x in [*G.parameters(), *G.buffers()])
    assert four.working > one.working > 3 * 32 * 32 * 4
    assert len(pickle.dumps(G)) == len(before)


def test_measurement(host: Host) -> None:
    G = host.generator(channel_base=2048, channel_max=64).eval()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    dense, squeezed = pair(G, ratio=2)
    assert dense is G
    assert squeeze_patch.status(G).state == "dense"
    found = measure(dense, squeezed, batch=2, repeats=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.cost.parameters_after == squeeze_patch.plan(G, ratio=2).parameters_after
    assert found.memory_after.weights < found.memory_before.weights
    assert found.memory_after.working <= found.memory_before.working
    data = json.loads(json.dumps(found.to_dict()))
    assert data["latency"]["repeats"] == 2
    assert data["verdict"] in ("faster", "slower", "neither")


@pytest.mark.parametrize(
    ("ratio", "verdict", "words"),
    [
        (Quartiles(0.9, 0.85, 0.95), "faster", "is faster here: 10 % less time"),
        (Quartiles(0.9, 0.85, 1.01), "neither", "is NOT faster here beyond the spread"),
        (Quartiles(1.2, 1.1, 1.3), "slower", "is NOT faster here, but slower"),
    ],
)
def test_it_says_when_it_is_not_faster(ratio: Quartiles, verdict: str, words: str) -> None:
    dense, squeezed = pair(trained_generator())
    measured = measure(dense, squeezed, repeats=2)
    time = Latency(Quartiles(1, 1, 1), Quartiles(1, 1, 1), ratio, 1, 20, "a device")
    found = Measurement(measured.cost, time, measured.memory_before, measured.memory_after)
    assert found.latency.verdict == verdict
    assert words in str(found)


def test_the_dense_counterpart_comes_from_the_constructor(host: Host) -> None:
    """In memory, and out of a pickle, where the class is a squeezed one."""
    G = host.generator(c_dim=2, layers=3)
    squeezed = squeeze_patch.apply(copy.deepcopy(G), ratio=1.5, init="random")
    for one in (squeezed, pickle.loads(pickle.dumps(squeezed))):
        dense, same = pair(one)
        assert same is one
        assert squeeze_patch.status(dense).state == "dense"
        assert locate(dense).specs == locate(G).specs
        assert [x.shape for x in dense.parameters()] == [x.shape for x in G.parameters()]
        measure(dense, one, repeats=2)


@pytest.mark.parametrize("kind", KINDS)
def test_other_shapes_are_measured_against_their_dense_generator(kind: str) -> None:
    dense = trained_generator()
    changed = squeeze_patch.apply(copy.deepcopy(dense), plan=plan_of_kind(dense, kind), init="random")
    assert pair(changed, dense) == (dense, changed)


def test_what_cannot_be_measured() -> None:
    dense = trained_generator()
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="random")
    wrong: List[Any] = [
        (lambda: pair(squeezed), UnsupportedModelError, "--against"),  # the demo's classes keep no record
        (lambda: pair(squeezed, dense, ratio=2), StateError, "squeezed already"),
        (lambda: pair(dense, dense), StateError, "the generator is dense"),
        (lambda: pair(squeezed, squeezed), StateError, "to measure as dense is squeezed"),
        (lambda: measure(dense, dense), StateError, "to measure as squeezed is dense"),
        (lambda: measure(dense, squeezed, batch=0), MeasurementError, "batch has to be 1 or more"),
    ]
    for action, error, message in wrong:
        with pytest.raises(error, match=message):
            action()
    assert pair(squeezed, dense) == (dense, squeezed)
    narrow = type(dense)(64, 0, 64, 32, 1, synthesis_kwargs={"channel_base": 512, "channel_max": 64})
    with pytest.raises(MeasurementError, match="not of one shape"):
        pair(squeezed, narrow)


@pytest.mark.parametrize("was_fused", [False, True])
def test_fused_figures(was_fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured beside the others, the caller's generators as they were; and fused layers really ran, in the pass over
    the blocks, too, which hangs hooks on them."""
    layers = count(monkeypatch, fused_layers, "fused_layer")
    dense = trained_generator()
    squeezed = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights").eval()
    if was_fused:
        squeeze_patch.fuse(squeezed)
    plain = measure(dense, squeezed, repeats=2)
    assert plain.runs_fused == was_fused
    assert ("The squeezed and fused generator is" in str(plain)) == was_fused
    assert (plain.fused, plain.to_dict()["fused_verdict"]) == (None, None)
    before = len(layers)
    found = measure(dense, squeezed, batch=2, repeats=2, fuse=True)
    assert len(layers) > before
    assert not found.runs_fused
    assert squeeze_patch.status(squeezed).fused_blocks == (4 if was_fused else 0)
    assert found.fused is not None
    source = sampler(squeeze_patch.unfuse(copy.deepcopy(squeezed)))
    images = draw(source, *latents(source, 2, seed=0)).detach()
    assert found.fused.difference <= float_error(dense, images) / float(images.abs().max())
    assert found.cost.multiply_adds_after > found.fused.multiply_adds
    text = str(found)
    for words in (
        "fused / dense",
        "fused / squeezed",
        "of their peak",
        "The squeezed generator is",
        "The fused generator",
    ):
        assert words in text
    data = json.loads(json.dumps(found.to_dict()))
    assert data["latency"]["fused"]["median"] > 0
    assert data["fused"]["memory"]["weights"] == data["memory_after"]["weights"]
    assert data["fused_verdict"] in ("faster", "slower", "neither")


def test_the_verdict_is_of_what_was_measured() -> None:
    dense, squeezed = pair(trained_generator())
    measured = measure(dense, squeezed, repeats=2, fuse=True)
    ones = Quartiles(1, 1, 1)
    for upper, words in ((0.95, "The fused generator is faster here: 10 % less"), (1.1, "NOT faster here beyond")):
        time = Latency(ones, ones, Quartiles(1.2, 1.1, 1.3), 1, 20, "", ones, Quartiles(0.9, 0.85, upper), ones)
        found = replace(measured, latency=time)
        *_, of_squeezed, of_fused = str(found).splitlines()
        assert of_squeezed.startswith("The squeezed generator is NOT faster here, but slower")
        assert words in of_fused
        assert found.to_dict()["verdict"] == "slower"
