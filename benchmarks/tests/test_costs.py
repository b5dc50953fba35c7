"""Fronts, starts and steps of a recovery: what the benchmarks of costs tell."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from benchmarks import recovery, starts
from benchmarks.distillation import student_of
from benchmarks.pareto import Shares, draw, points, seconds, shares
from squeeze_patch.demo import trained_generator

STORED = Path(__file__).parents[1] / "results" / "distillation-demo.json"


def test_fronts_of_what_is_stored(tmp_path: Path) -> None:
    data = json.loads(STORED.read_text())
    found = points(data, "squeezed, allocated", 0)
    assert len(found) == 3  # 50, 25 and 12.1 % fewer, in this order
    assert [cost.parameters for cost, _ in found] == sorted(cost.parameters for cost, _ in found)
    assert [psnr for _, psnr in found] == sorted(psnr for _, psnr in found)
    assert points(data, "squeezed, allocated", 7) == []
    draw(data, [0, 300], "digits", tmp_path / "fronts.png")
    with Image.open(tmp_path / "fronts.png") as image:
        assert image.size == (1400, 880)


def test_shares_of_a_dense_generator() -> None:
    dense = trained_generator().requires_grad_(False)
    found = shares("narrowed, one ratio", dense, 0.25)
    assert isinstance(found, Shares)
    assert abs(found.parameters - 0.75) <= 0.01  # a channel in every layer is 1 % of so small a generator
    assert 0.5 < found.multiply_adds < 1
    assert 0 < found.low <= found.time <= found.high
    assert seconds(student_of("narrowed, one ratio", dense, 0.25, "parameters", 0)[0]) > 0


def test_starts_and_steps() -> None:
    threads = torch.get_num_threads()
    try:
        took, peak = starts.cost(("draggan", "tiny", "cpu", starts.WAYS["narrowed, allocated"]))
        assert (took > 0, peak >= 0) == (True, True)
        took, peak = recovery.cost(("tiny", 2, "cpu"))
        assert (took > 0, peak > 1 << 20) == (True, True)
    finally:
        torch.set_num_threads(threads)
