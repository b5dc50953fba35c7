"""Commands: in a process of their own, without what the tests have imported, and in this one."""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from click.testing import CliRunner

#: seconds that a process may take
LONGEST = 900
#: Reads calls, a JSON object a line, and forks a process for each, whose exit code it prints. The child goes on as
#: `python ARGUMENTS...` would: with the caller's variables, folder and files, the paths that PYTHONPATH names, and
#: nothing imported but one module, what that imports, and what torch imports with the first step of an optimiser.
FORKING = """
import gc, importlib, importlib.util, json, os, runpy, sys
own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
importlib.import_module(sys.argv[1])
if importlib.util.find_spec("torch._dynamo"):
    importlib.import_module("torch._dynamo")
gc.freeze()
paths = [path for path in sys.path[1:] if path not in own]
for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
for stream, name in enumerate((os.devnull, *call["streams"])):
    os.dup2(os.open(name, os.O_RDWR), stream)
os.chdir(call["cwd"])
os.environ.clear()
os.environ.update(call["env"])
sys.path[:] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path] + paths
first, *rest = call["arguments"]
if first == "-m":
    sys.argv = rest
    sys.path.insert(0, os.getcwd())
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = [first, *rest]
    sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
    runpy.run_path(first, run_name="__main__")
"""


class Forks:
    """Processes with a module imported, which takes most of the time of a short one; see `FORKING`."""

    def __init__(self, module: str) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORKING, module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.server.communicate)  # its input ends, and so does it

    def run(self, arguments: Sequence[str], cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder) / name for name in ("stdout", "stderr")]
            for stream in streams:
                stream.touch()
            call = {"arguments": arguments, "cwd": str(cwd), "env": env, "streams": list(map(str, streams))}
            self.server.stdin.write(json.dumps(call) + "\n")
            self.server.stdin.flush()
            if not select.select([self.server.stdout], [], [], LONGEST)[0]:
                self.server.kill()
                raise subprocess.TimeoutExpired(arguments, LONGEST)
            code = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, *(stream.read_text() for stream in streams))


@functools.cache
def forks(module: str) -> Forks:
    """One for each module."""
    return Forks(module)


def environment_with(*paths: Any, **more: str) -> Dict[str, str]:
    """This process's variables, with ``paths`` to import from and ``more`` variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*arguments: str, cwd: Path, env: Dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``python SCRIPT ...`` or ``python -m MODULE ...``, whatever its exit code, in a process that `forks` has made.

    Only commands of squeeze_patch have it imported to begin with. Where a folder of PYTHONPATH changes how Python
    starts, it is started anew.
    """
    if any((Path(path) / "sitecustomize.py").is_file() for path in env.get("PYTHONPATH", "").split(os.pathsep)):
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    ours = arguments[0] == "-m" and arguments[1].split(".")[0] == "squeeze_patch"
    return forks("squeeze_patch.cli" if ours else "torch").run(arguments, cwd, env)


def several(*commands: Sequence[str], cwd: Path, env: Dict[str, str]) -> List[Tuple[int, str, str]]:
    """(exit code, stdout, stderr) of ``squeeze-patch ARGUMENTS...`` for each, one after the other."""
    done = [python("-m", "squeeze_patch", *arguments, cwd=cwd, env=env) for arguments in commands]
    return [(one.returncode, one.stdout, one.stderr) for one in done]


def command_runner() -> CliRunner:
    """For commands in this process, with stdout and stderr apart, which click before 8.2 has to be asked for."""
    mixing = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if mixing else {}))
