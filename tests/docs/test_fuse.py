"""docs/fuse.md, block by block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.io import read
from squeeze_patch.testing import float_error, trained
from tests.docs.pages import Page, commands, python
from tests.helpers import write_checkpoint
from tests.hosts import Host

PAGE = Page("docs/fuse.md")


def test_fuse(draggan: Host, capsys: pytest.CaptureFixture[str]) -> None:
    G = trained(draggan.generator(resolution=16)).requires_grad_(False)
    names = python(PAGE["fuse"], G=G)
    assert capsys.readouterr().out.strip().endswith(", fused")
    assert names["images"].shape == (4, 3, 16, 16)
    assert squeeze_patch.status(G).fused_blocks == 0


def test_file(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(draggan, tmp_path / "network.pkl", resolution=16)
    commands(PAGE["file"])
    G = read(tmp_path / "squeezed.pkl", trust=False)["G_ema"]
    assert squeeze_patch.status(G).fused_blocks == 3
    z, c = draggan.latents(G, n=2)
    with torch.no_grad():
        fused = G(z, c, noise_mode="const")
        expected = squeeze_patch.unfuse(G)(z, c, noise_mode="const")
    assert (fused - expected).abs().max() <= float_error(G, expected)
