"""What belongs to the process is the caller's again when blocks in several threads are over, in whatever order."""

from __future__ import annotations

import threading
from typing import Any, List

import pytest
import torch

from squeeze_patch.process_settings import random_from, random_kept
from squeeze_patch.progress import own_settings


def test_overlapping_blocks_of_our_own_settings_leave_the_callers() -> None:
    """The default dtype, and that what the caller compiles afterwards is compiled."""
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def compiled() -> int:
        graphs.clear()
        if hasattr(torch, "compile"):
            torch._dynamo.reset()
            torch.compile(lambda x: x + 1, backend=backend)(torch.zeros(1))
        return len(graphs)

    before = compiled()
    first, second = own_settings(eager=True), own_settings(eager=True)
    torch.set_default_dtype(torch.float64)
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert compiled() == before


def test_random_numbers_of_two_threads() -> None:
    drawn, entered = threading.Event(), threading.Event()

    def first() -> None:
        with random_kept():
            torch.rand(1)
            drawn.set()
            entered.wait(0.2)  # in vain: the other one has to wait

    def second() -> None:
        drawn.wait()
        with random_kept():
            entered.set()
            one.join()

    before = torch.get_rng_state()
    one, other = (threading.Thread(target=target) for target in (first, second))
    one.start()
    other.start()
    other.join()
    assert torch.equal(torch.get_rng_state(), before)


def test_random_numbers_of_other_devices_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU nothing is seeded but the CPU; on CUDA, played here, every device is put back."""
    seeds: List[Any] = []
    states = {0: torch.tensor([0]), 1: torch.tensor([1])}
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: seeds.append((device, int(state))))
    before = torch.get_rng_state()
    drawn = []
    for cuda in (False, True):
        with random_from(7, cuda=cuda):
            drawn.append(torch.rand(1))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)
    assert seeds == [7, (0, 0), (1, 1)]
