"""A file for commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_checkpoint
from tests.hosts import Host


@pytest.fixture
def snapshot(draggan: Host, tmp_path: Path) -> Path:
    write_checkpoint(draggan, tmp_path / "dense.pkl")
    return tmp_path / "dense.pkl"
