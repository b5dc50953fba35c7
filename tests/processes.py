"""Python in a process of its own, which sees certain folders and nothing of what the tests have imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict


def environment_with(*paths: Any, **more: str) -> Dict[str, str]:
    """This process's variables, with ``paths`` to import from and ``more`` variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*arguments: str, cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS...``, for at most a quarter of an hour, whatever its exit code."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
    )
