"""Captured steps: when they run, and on what."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, List

import pytest
import torch

from benchmarks import graphs
from benchmarks.graphs import WARM, Graphed


class Recorder:
    """In place of a CUDA graph: what is called in the capture is called again by `replay`."""

    def __init__(self) -> None:
        self.calls: List[Callable[[], Any]] = []

    def replay(self) -> None:
        for call in self.calls:
            call()


def test_replays_see_new_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A running sum: nothing is lost and nothing done twice, although the capture runs nothing."""
    total, capturing, eager = torch.zeros(2), [], []  # type: torch.Tensor, List[Recorder], List[None]

    @contextlib.contextmanager
    def capture(graph: Recorder, stream: Any) -> Iterator[None]:
        capturing.append(graph)
        yield
        capturing.pop()

    def add(x: torch.Tensor) -> None:
        if capturing:
            capturing[0].calls.append(lambda: total.add_(x))
        else:
            eager.append(None)
            total.add_(x)

    monkeypatch.setattr(graphs.torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(graphs.torch.cuda, "graph", capture)
    monkeypatch.setattr(graphs.torch.cuda, "current_stream", lambda: None)
    step = Graphed(add)
    for value in range(1, 7):
        step(torch.full([2], float(value)))
        assert total.tolist() == [value * (value + 1) / 2] * 2
    assert len(eager) == WARM
