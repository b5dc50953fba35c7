"""The process in which `benchmarks.fuzz` reads damaged files, and the one that watches it: time, memory, and whether it
is alive.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from benchmarks.conversion import memory
from benchmarks.corpora import Base
from benchmarks.fuzz_readers import READERS, Case, Fault, Reader, Verdict, Watch, judged
from benchmarks.mutations import Mutated, Mutation, bytes_changed, headers_changed, members_changed, opcodes_changed
from benchmarks.odd_values import plans_changed, structure_changed

#: bytes beyond what the process has when it begins
MEMORY = 2 << 30
#: seconds of CPU time a file
SECONDS = 10.0
#: times those on the clock, for a process that does not compute but waits
PATIENCE = 6
#: mutations that are thrown for one file before it is given up: few of them cannot be written
TRIES = 50
#: {kind of mutation: (it, forms of files that it is for)}
KINDS: Dict[str, Tuple[Mutation, Tuple[str, ...]]] = {
    "bytes": (bytes_changed, ("pickle", "zip", "older", "safetensors")),
    "members": (members_changed, ("zip",)),
    "opcodes": (opcodes_changed, ("pickle", "zip", "older")),
    "structure": (structure_changed, ("pickle", "zip", "older", "safetensors")),
    "plans": (plans_changed, ("pickle", "zip", "older", "safetensors")),
    "headers": (headers_changed, ("safetensors",)),
}


@dataclass(frozen=True)
class Mutant:
    """A damaged file: its bytes, what it was made of, and a line about it."""

    kind: str
    base: Base
    data: bytes
    line: str


def mutant(bases: Mapping[str, Base], kinds: Sequence[str], seed: int, number: int) -> Mutant:
    """File ``number`` of a run; the same for the same arguments."""
    kind = kinds[number % len(kinds)]
    change, forms = KINDS[kind]
    dice = random.Random(f"{seed} {number} {kind}")
    fitting = [base for base in bases.values() if base.form in forms and (kind != "plans" or base.squeezed)]
    fitting = [base for base in fitting if base.is_plain or kind not in ("plans", "structure")]
    base = fitting[(number // len(kinds)) % len(fitting)]
    for _ in range(TRIES):
        data, line = _tried(change, base, bases, dice)
        if data and data != base.data:
            return Mutant(kind, base, data, f"{kind} of {base.name}: {line}")
    raise RuntimeError(f"no mutation of kind {kind} was found for {base.name}")


def _tried(change: Mutation, base: Base, bases: Mapping[str, Base], dice: random.Random) -> Mutated:
    """The mutation; nothing where its odd values cannot be written."""
    try:
        return change(base, bases, dice)
    except Exception:  # whatever pickle and torch.save make of them
        return b"", ""


@dataclass
class Reply:
    """What became of one file: a verdict, its line, bytes of memory that reading it took, seconds of CPU time."""

    number: int
    kind: str
    line: str
    verdict: Verdict = field(default_factory=Verdict)
    memory: int = 0
    seconds: float = 0.0


def serve(pipe: Any, bases: Dict[str, Base], kinds: Sequence[str], seed: int, folder: Path, readers: str) -> None:
    """Read the files whose numbers come through the pipe, in this process."""
    torch.set_num_threads(1)
    chosen: Mapping[str, Reader] = READERS if not readers else _named(readers)
    watch, path, outputs = Watch(), folder / "file", folder / "outputs"
    outputs.mkdir(exist_ok=True)
    start = memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (start + MEMORY, start + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        number = pipe.recv()
        if number is None:
            return
        made = mutant(bases, kinds, seed, number)
        path.write_bytes(made.data)
        reply = Reply(number, made.kind, made.line)
        pipe.send(reply)  # for the case that no other comes
        before, begin = _reset_peak(), time.process_time()
        dice = random.Random(f"{seed} {number} options")
        reply.verdict = judged(Case(path, made.base, outputs, dice), chosen)
        reply.memory, reply.seconds = memory("VmHWM") - before, time.process_time() - begin
        if reply.memory > MEMORY:
            reply.verdict.faults.append(Fault("memory", "", f"{reply.memory:,} bytes", ""))
        reply.verdict.faults += [Fault("ran", "", event, "") for event in watch.taken()]
        pipe.send(reply)


def _named(readers: str) -> Mapping[str, Reader]:
    module, _, name = readers.rpartition(".")
    found: Mapping[str, Reader] = getattr(__import__(module, fromlist=[name]), name)
    return found


def _reset_peak() -> int:
    """Bytes that the process has now, from which on its peak counts."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


class Worker:
    """A process that `serve`s; where it dies or takes too long, it is replaced.

    Args:
        folder: for its files.
        readers: dotted name of other readers than `fuzz_readers.READERS`.
    """

    def __init__(
        self, bases: Dict[str, Base], kinds: Sequence[str], seed: int, folder: Path, readers: str = ""
    ) -> None:
        self.bases, self._arguments = bases, (bases, kinds, seed, folder, readers)
        self._folder = folder
        self._process: Optional[Any] = None
        self._pipe: Any = None
        self.seconds = SECONDS

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def ask(self, number: int) -> Reply:
        """What becomes of file ``number``."""
        if self._process is None:
            self._start()
        reply = Reply(number, "", "")
        try:
            self._pipe.send(number)
            for _ in range(2):
                if not self._waited():
                    break
                reply = self._pipe.recv()
            else:
                return reply
            fault = Fault("hang", "", f"more than {self.seconds} s", "")
        except (EOFError, ConnectionError):
            assert self._process is not None
            self._process.join()
            fault = Fault("crash", "", f"exit code {self._process.exitcode}", "")
        self._stop()
        reply.verdict = Verdict({}, [fault])
        return reply

    @property
    def file(self) -> Path:
        """The file that was read last."""
        return self._folder / "file"

    def _waited(self) -> bool:
        """Whether an answer has come, in time of the CPU or the clock."""
        assert self._process is not None
        begin, used = time.monotonic(), _cpu_seconds(self._process.pid)
        while not self._pipe.poll(0.5):
            computed = _cpu_seconds(self._process.pid) - used > self.seconds
            if computed or time.monotonic() - begin > PATIENCE * self.seconds:
                return False
        return True

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()

    def _stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(0.5)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process = None
        for path in (self._folder / "outputs").glob("*"):
            path.unlink()


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    with contextlib.suppress(OSError):
        fields: List[str] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
