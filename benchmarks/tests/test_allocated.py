"""What the benchmark of allocations tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import allocated
from squeeze_patch.demo import trained_generator


def test_allocated_starts_beside_one_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocated, "METHODS", ("squeeze",))
    monkeypatch.setattr(allocated, "REDUCTIONS", (0.25, 0.7))
    threads = torch.get_num_threads()
    torch.save(trained_generator().state_dict(), tmp_path / "own.pt")
    try:
        done = CliRunner().invoke(allocated.main, [str(tmp_path / "own.pt"), "--out", str(tmp_path / "found.json")])
    finally:
        torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    _, reached, unreached = done.output.splitlines()
    found = json.loads((tmp_path / "found.json").read_text())["starts"]
    (uniform, saved), (ahead, as_much) = found["own | 0.25 | squeeze"].values()
    assert (round(saved, 2), round(as_much, 2)) == (0.25, 0.25)
    assert ahead > uniform
    assert reached.split()[0] == "own"
    assert reached.endswith(f"{ahead - uniform:+.1f}")
    assert found["own | 0.7 | squeeze"]["uniform"] is None  # one ratio leaves conv0 as wide as it was
    assert unreached.endswith("%")
