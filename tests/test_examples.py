"""The examples, run as their docstrings say."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.helpers import write_checkpoint
from tests.hosts import SHIMS, Host
from tests.processes import environment_with, python

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_side_by_side(full_host: Host, tmp_path: Path) -> None:
    write_checkpoint(full_host, tmp_path / "network.pkl")
    command = [str(EXAMPLES / "side_by_side.py"), str(tmp_path / "network.pkl"), str(tmp_path / "out.png")]
    options = ["--ratio", "2", "--images", "3"]
    done = python(*command, *options, cwd=full_host.folder, env=environment_with(*SHIMS))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("squeezed: 4 of 4 blocks")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (3 * 32, 3 * (32 + 16))
