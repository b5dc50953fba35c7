"""Folders as the pages assume them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from squeeze_patch.testing import trained
from tests.hosts import Host


@pytest.fixture
def workspace(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a checkpoint of the NVIDIA family and its host's checkout."""
    modules = {"G": draggan.generator(16), "D": draggan.discriminator(16), "G_ema": draggan.generator(16)}
    data = {name: trained(module).requires_grad_(False) for name, module in modules.items()}
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(data))
    (tmp_path / "stylegan2-ada-pytorch").symlink_to(draggan.folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path
