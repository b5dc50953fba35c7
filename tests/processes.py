"""Commands: in a process of their own, without what the tests have imported, and in this one."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from click.testing import CliRunner

#: `squeeze-patch` with each of several lists of arguments, as if called anew, by a process that imports torch once
SEVERAL = """
import json, os, sys
from squeeze_patch.cli import main
found = []
for arguments in json.load(sys.stdin):
    child = os.fork()
    if not child:
        for stream, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        code = 70
        try:
            main(arguments)
        except SystemExit as done:
            code = done.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.WEXITSTATUS(os.waitpid(child, 0)[1])
    found.append((code, open("stdout.txt").read(), open("stderr.txt").read()))
    os.unlink("stdout.txt")
    os.unlink("stderr.txt")
print(json.dumps(found))
"""


def environment_with(*paths: Any, **more: str) -> Dict[str, str]:
    """This process's variables, with ``paths`` to import from and ``more`` variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*arguments: str, cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS...``, for at most a quarter of an hour, whatever its exit code."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
    )


def several(*commands: Sequence[str], cwd: Path, env: Dict[str, str]) -> List[Tuple[int, str, str]]:
    """(exit code, stdout, stderr) of ``squeeze-patch ARGUMENTS...`` for each, one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        input=json.dumps(commands),
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def command_runner() -> CliRunner:
    """For commands in this process, with stdout and stderr apart, which click before 8.2 has to be asked for."""
    mixing = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if mixing else {}))
