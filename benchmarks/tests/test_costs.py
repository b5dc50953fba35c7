"""Fronts, starts and steps of a recovery: what the benchmarks of costs tell."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import recovery, starts, step
from benchmarks.__main__ import main
from benchmarks.common import in_a_process
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


def test_a_process_that_ends_without_a_word() -> None:
    """As one does that the system ends for its memory: nobody waits for it."""
    assert in_a_process(abs, -3) == 3
    with pytest.raises(click.ClickException, match="the process that measured 1 was ended by the system"):
        in_a_process(os._exit, 1)
    assert (starts.share(3, 2), starts.share(3, 0)) == ("1.50", "-")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("step --sizes tiny,huge", "'huge' is not one of 'cifar', 'paper256', 'config-f', 'tiny'"),
        ("step --repeats 1", "1 is not in the range x>=2"),
        ("step --batch 1", "1 is not in the range x>=2"),
        ("step --dtype mixed", "--dtype mixed: on a CPU the hosts compute in float32"),
        ("step --memory --processor-time --threads 1", "--memory measures no time"),
        ("starts --sizes huge", "'huge' is not one of"),
        ("latency --batches 1,0", "0 is not in the range x>=1"),
        ("recovery --cost tiny --at-a-time 1,", "'' is not a valid integer range"),
    ],
)
def test_what_cannot_be_measured(command: str, said: str) -> None:
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


def test_memory_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that fails, which says why itself; what a host prints in front of the figure is none."""
    ends = [subprocess.CompletedProcess("", 0, "Setting up PyTorch plugin... Done.\n7\n")] * 2
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ends.pop())
    assert step.memory_of("draggan", "tiny", 1) == {"dense": 7, "squeezed": 7}
    ends.append(subprocess.CompletedProcess("", 3, ""))
    with pytest.raises(click.ClickException, match=r"dense at tiny: the process that measured it failed \(3\)"):
        step.memory_of("draggan", "tiny", 1)


def test_starts_and_steps() -> None:
    threads = torch.get_num_threads()
    try:
        took, peak = starts.cost(("draggan", "tiny", "cpu", starts.WAYS["narrowed, allocated"]))
        assert (took > 0, peak >= 0) == (True, True)
        took, peak = recovery.cost(("tiny", 2, "cpu"))
        assert (took > 0, peak > 1 << 20) == (True, True)
    finally:
        torch.set_num_threads(threads)
