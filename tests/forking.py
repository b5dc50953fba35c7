"""A server that forks a process for each call, with a module imported, and what asks it; the standard library alone.

``python forking.py serve SOCKET MODULE`` is the server, until its input ends. ``python forking.py SOCKET ARGUMENTS...``
does what ``python ARGUMENTS...`` does, but for the seconds that importing takes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any, Dict, List, Mapping, Sequence

#: seconds that a process may take
LONGEST = 900


def folders(env: Mapping[str, str]) -> List[str]:
    """What PYTHONPATH names."""
    return [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]


def starts_in_its_own_way(env: Mapping[str, str]) -> bool:
    """Whether a folder of PYTHONPATH changes how Python starts."""
    return any(os.path.isfile(os.path.join(path, "sitecustomize.py")) for path in folders(env))


def ask(address: str, arguments: Sequence[str], cwd: str, env: Mapping[str, str], streams: Sequence[int]) -> int:
    """The exit code of ``python ARGUMENTS...`` in a folder, with these variables, and these files as its stdin, stdout
    and stderr; ``-m`` and scripts are known.

    Raises:
        TimeoutError: it took longer than `LONGEST`; it is killed.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
        asking.settimeout(LONGEST)
        socket.send_fds(asking, [b"\n"], list(streams))
        asking.sendall(json.dumps({"arguments": list(arguments), "cwd": cwd, "env": dict(env)}).encode() + b"\n")
        with asking.makefile() as answers:
            process = int(answers.readline())
            try:
                return int(answers.readline())
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise


def threads() -> int:
    """Of this process, as far as the system tells."""
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1


def serve(address: str, module: str, more: str = "torch._dynamo") -> List[str]:
    """Import a module, and what torch imports with the first step of an optimiser, and answer `ask` until the end of
    the input; returns in the processes that are asked for, with their arguments."""
    own = folders(os.environ)
    importlib.import_module(module)
    if more and importlib.util.find_spec(more):
        importlib.import_module(more)
        if threads() > 1:  # as with torch 2.4: what it holds when a process is forked is never let go in there
            os.execv(sys.executable, [sys.executable, __file__, "serve", address, module, ""])
    gc.freeze()
    paths = [path for path in sys.path[1:] if path not in own]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                os._exit(0)
            asking = listening.accept()[0]
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not os.fork():
                break
            asking.close()
    call = _answered(asking)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["env"])
    sys.path[:] = [*folders(os.environ), *paths]
    if starts_in_its_own_way(os.environ):
        sys.modules.pop("sitecustomize", None)  # the server's own
        importlib.import_module("sitecustomize")
    return list(call["arguments"])


def _answered(asking: socket.socket) -> Dict[str, Any]:
    """What is asked for, in a process that has the caller's files; this one says how that one ends, and ends."""
    streams = socket.recv_fds(asking, 1, 3)[1]
    with asking.makefile() as questions:
        call: Dict[str, Any] = json.loads(questions.readline())
    process = os.fork()
    if process:
        asking.sendall(f"{process}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            asking.sendall(f"{code}\n".encode())
        os._exit(0)
    asking.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return call


def run(arguments: Sequence[str]) -> None:
    """Go on as ``python ARGUMENTS...`` would."""
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run(serve(*sys.argv[2:]))
    else:
        exit_code = ask(sys.argv[1], sys.argv[2:], os.getcwd(), os.environ, (0, 1, 2))
        sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)
