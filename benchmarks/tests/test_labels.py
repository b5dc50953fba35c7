"""python -m benchmarks labels, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import labels
from benchmarks.data import digits


def test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "STARTS", {"squeezed": {"ratio": 2, "init": "weights"}})
    monkeypatch.setattr(labels, "UNSEEN", 16)
    monkeypatch.setattr(labels, "KINDS", {"cameras": labels.cameras})
    how = ["--out", str(tmp_path), "--kimg", "0.064", "--limit", "100"]
    done = CliRunner().invoke(labels.main, how, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "labels.json").read_text())["starts"]
    blind, seeing = found["cameras"]["squeezed"]
    assert blind != seeing
    assert min(blind, seeing) > 0


def test_conditions_are_of_the_images() -> None:
    """Digits lie turned as their cameras say: mirrored by the same angle they are back where they were."""
    data = digits(16)
    turned, cameras = labels.cameras(data)
    rotations = cameras[:, :16].reshape(-1, 4, 4)[:, :3, :3]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(len(rotations), 3, 3), atol=1e-6)
    still = rotations[:, 0, 2].abs() < 0.005  # less than 0.3 degrees: pixels at a radius of 8 move by 0.04
    assert still.sum() > 10
    assert (turned.images[still] - data.images[still]).abs().mean() < 0.02
    assert (turned.images[~still] - data.images[~still]).abs().mean() > 0.1
    assert turned.images.min() >= -1
    inverted, attributes = labels.attributes(data)
    flipped = attributes[:, 5] == 1
    assert torch.equal(inverted.images[flipped], -data.images[flipped])
    assert torch.equal(inverted.images[~flipped], data.images[~flipped])
    assert torch.equal(attributes[:, 0], (data.labels % 2 == 0).float())
