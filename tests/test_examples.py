"""The examples, run as their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.helpers import write_checkpoint
from tests.hosts import SHIMS, Host
from tests.processes import environment_with

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_side_by_side(full_host: Host, tmp_path: Path) -> None:
    write_checkpoint(full_host, tmp_path / "network.pkl")
    command = [
        sys.executable,
        str(EXAMPLES / "side_by_side.py"),
        str(tmp_path / "network.pkl"),
        str(tmp_path / "out.png"),
    ]
    done = subprocess.run(
        [*command, "--ratio", "2", "--images", "3"],
        cwd=full_host.folder,
        env=environment_with(*SHIMS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("squeezed: 4 of 4 blocks")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (3 * 32, 3 * (32 + 16))
