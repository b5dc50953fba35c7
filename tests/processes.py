"""Commands: in a process of their own, without what the tests have imported, and in this one."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Dict, List, Sequence, Tuple

from click.testing import CliRunner

from tests import forking


class Forks:
    """Processes with a module imported, which takes most of the time of a short one; see `tests.forking`."""

    def __init__(self, module: str) -> None:
        self.folder = TemporaryDirectory()
        self.address = str(Path(self.folder.name) / "socket")
        self.server = subprocess.Popen(
            [sys.executable, forking.__file__, "serve", self.address, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"
        atexit.register(self.end)

    def end(self) -> None:
        self.server.communicate()  # its input ends, and so does it
        self.folder.cleanup()

    def run(self, arguments: Sequence[str], cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
        with open(os.devnull) as nothing, TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
            streams = [stream.fileno() for stream in (nothing, stdout, stderr)]
            code = forking.ask(self.address, arguments, os.path.abspath(cwd), env, streams)
            for stream in (stdout, stderr):
                stream.seek(0)
            return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())


@functools.cache
def forks(module: str) -> Forks:
    """One for each module."""
    return Forks(module)


@functools.cache
def programs(module: str) -> Path:
    """A folder to put in front of PATH: its `squeeze-patch` is this environment's, in a process that ``forks(module)``
    makes."""
    server = forks(module)
    installed = Path(sys.executable).parent / "squeeze-patch"
    assert installed.is_file()
    folder = Path(server.folder.name) / "programs"
    folder.mkdir()
    words = shlex.join([sys.executable, "-S", "-E", forking.__file__, server.address, str(installed)])
    (folder / installed.name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (folder / installed.name).chmod(0o755)
    return folder


def environment_with(*paths: Any, **more: str) -> Dict[str, str]:
    """This process's variables, with ``paths`` to import from and ``more`` variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*arguments: str, cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python SCRIPT ...`` or ``python -m MODULE ...``, whatever its exit code, in a process that `forks` has made.

    Commands of squeeze_patch have it imported to begin with, see `module_for`.
    """
    ours = arguments[0] == "-m" and arguments[1].split(".")[0] == "squeeze_patch"
    return forks(module_for(env) if ours else "torch").run(arguments, cwd, env)


def module_for(env: Dict[str, str]) -> str:
    """What commands of squeeze_patch have imported; torch alone where a folder of PYTHONPATH changes it first."""
    return "torch" if forking.starts_in_its_own_way(env) else "squeeze_patch.cli"


def several(*commands: Sequence[str], cwd: Path, env: Dict[str, str]) -> List[Tuple[int, str, str]]:
    """(exit code, stdout, stderr) of ``squeeze-patch ARGUMENTS...`` for each, one after the other."""
    done = [python("-m", "squeeze_patch", *arguments, cwd=cwd, env=env) for arguments in commands]
    return [(one.returncode, one.stdout, one.stderr) for one in done]


def command_runner() -> CliRunner:
    """For commands in this process, with stdout and stderr apart, which click before 8.2 has to be asked for."""
    mixing = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if mixing else {}))
