"""Lint, format and types are part of the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def run(cwd: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("ruff", "check", "."), ("ruff", "format", "--check", ".")])
def test_ruff(arguments: tuple[str, ...]) -> None:
    run(ROOT, *arguments)


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="types are checked against torch 2's annotations")
def test_mypy(tmp_path: Path) -> None:
    """On the installed layout: adapters/ is squeeze_patch/adapters there."""
    shutil.copytree(ROOT / "squeeze_patch", tmp_path / "squeeze_patch")
    shutil.copytree(ROOT / "adapters", tmp_path / "squeeze_patch" / "adapters")
    shutil.copy(ROOT / "squeeze_patch_pytest.py", tmp_path)
    names = ("-p", "squeeze_patch", "-m", "squeeze_patch_pytest")
    options = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", os.devnull)  # nobody would read it
    run(tmp_path, "mypy", *options, *names)
