"""Commands: in a process of their own, without what the tests have imported, and in this one."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

from click.testing import CliRunner


def environment_with(*paths: Any, **more: str) -> Dict[str, str]:
    """This process's variables, with ``paths`` to import from and ``more`` variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*arguments: str, cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS...``, for at most a quarter of an hour, whatever its exit code."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
    )


def command_runner() -> CliRunner:
    """For commands in this process, with stdout and stderr apart, which click before 8.2 has to be asked for."""
    mixing = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if mixing else {}))
