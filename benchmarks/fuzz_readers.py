"""What `benchmarks.fuzz` does with one file, and which outcomes are faults."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import click
import torch

import squeeze_patch
from benchmarks.corpora import Base
from squeeze_patch.checkpoints.generators import generators, load_generator
from squeeze_patch.checkpoints.io import read
from squeeze_patch.cli import main as squeeze_patch_command
from squeeze_patch.cli.errors import LONGEST, one_line
from squeeze_patch.errors import SqueezeError
from squeeze_patch.sampling import sample
from squeeze_patch.surgery.status import status_of_part

#: folders whose code a fault is put down to
OURS = ("squeeze_patch", "adapters")
#: events of Python that reading a file must not bring about
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.rmdir")


@dataclass(frozen=True)
class Case:
    """One damaged file: ``path``, what it was made of, an empty folder for what is written, and dice for options."""

    path: Path
    base: Base
    folder: Path
    dice: Random

    @property
    def target(self) -> Path:
        return self.folder / "target"


@dataclass(frozen=True)
class Fault:
    """``kind`` of `FAULTS`, the reader, its words, and the place: the innermost line of ours."""

    kind: str
    reader: str
    words: str
    place: str

    @property
    def key(self) -> Tuple[str, str, str]:
        return self.kind, self.words.split(":")[0][:60], self.place


@dataclass
class Verdict:
    """{reader: "done" or the class of the error that it refused the file with}, and faults."""

    outcomes: Dict[str, str] = field(default_factory=dict)
    faults: List[Fault] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


#: {kind of fault: in words}
FAULTS = {
    "raw error": "an error that is none of squeeze_patch's",
    "words": "a message of several lines, too long, or with what steers a terminal",
    "output": "a target that does not read back squeezed, finite and with finite images",
    "left over": "a file left behind by a command that failed",
    "changed": "a generator changed by a load that failed",
    "memory": "more than 2 GiB",
    "hang": "more than 10 s",
    "crash": "the process died",
    "ran": "something was run",
}


class OutcomeError(Exception):
    """A reader has come to an end that is a fault."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


Reader = Callable[[Case], Any]


def command(*arguments: Any) -> None:
    """A command of squeeze-patch in this process; its errors are raised, its words are looked at."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        squeeze_patch_command.main([str(argument) for argument in arguments] + ["--debug"], standalone_mode=False)
    steering = [c for c in said.getvalue() if not c.isprintable() and c != "\n"]
    if steering:
        raise OutcomeError("words", f"{arguments[0]} prints {steering[0]!r}")


def _info(case: Case) -> None:
    command("info", case.path)


def _scan(case: Case) -> None:
    command("scan", case.path)


def _plan(case: Case) -> None:
    command("plan", case.path, *case.dice.choice(((), ("--ratio", "2"), ("--allocate", "spectral"), ("--json",))))


_CONVERSIONS: Tuple[Tuple[str, ...], ...] = (
    *(("--init", "weights", "--ratio", "2"),) * 6,
    ("--init", "random", "--reduction", "0.2"),
    ("--init", "random", "--no-verify"),
    ("--to", "rosinality"),
    ("--to", "nvidia"),
    ("--init", "weights", "--format", "safetensors"),
    ("--init", "random", "--format", "pt"),
)


def _convert(case: Case) -> None:
    """And the target read back."""
    options = case.dice.choice(_CONVERSIONS)
    command("convert", case.path, case.target, *options, "--quiet")
    _check_target(case.target, squeezed="--to" not in options)


def _compare(case: Case) -> None:
    """The target with its source."""
    if case.target.exists():
        command("compare", case.path, case.target, "--samples", 2, "--batch", 2, "--device", "cpu")


def _check_target(target: Path, squeezed: bool) -> None:
    try:
        found = generators(read(target, trust=False))
        if not found:
            raise OutcomeError("output", "no generator in it")
        for name, G in found.items():
            now = status_of_part(G)
            if squeezed and now.state != "squeezed":
                raise OutcomeError("output", f"{name} is {now}")
            broken = G.not_finite()
            if broken:
                raise OutcomeError("output", f"{name}.{broken} is not finite")
            if not sample(G.generator, 2, seed=0, noise_mode="none").isfinite().all():  # noise may be missing
                raise OutcomeError("output", f"the images of {name} are not finite")
    except SqueezeError as error:
        raise OutcomeError("output", str(error)) from error


def _load(case: Case) -> None:
    """Into a generator of the base file's family, which is the same as before where that fails."""
    if case.base.form == "pickle":
        return
    G = copy.deepcopy(_dense(case.base))
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    try:
        squeeze_patch.load(G, case.path)
    except SqueezeError:
        after = G.state_dict()
        same = list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
        if not same:
            raise OutcomeError("changed", "the generator is another one") from None
        raise


_dense_ones: Dict[Path, Any] = {}


def _dense(base: Base) -> Any:
    if base.dense not in _dense_ones:
        data = read(base.dense, trust=False)
        names = list(generators(data))
        _dense_ones[base.dense] = load_generator(base.dense, names[-1], trust=False)
    return _dense_ones[base.dense]


READERS: Mapping[str, Reader] = {
    "scan": _scan,
    "info": _info,
    "plan": _plan,
    "convert": _convert,
    "compare": _compare,
    "load": _load,
}


def judged(case: Case, readers: Mapping[str, Reader]) -> Verdict:
    """What every reader makes of a file."""
    verdict = Verdict()
    for name, reader in readers.items():
        fault: Optional[Fault] = None
        before = set(case.folder.iterdir())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader(case)
            verdict.outcomes[name] = "done"
        except OutcomeError as error:
            fault = _fault(error.kind, name, error)
        except (SqueezeError, click.ClickException) as error:
            verdict.outcomes[name] = type(error).__name__
            fault = _fault_of_words(name, error)
        except (Exception, SystemExit) as error:
            fault = _fault("raw error", name, error)
        left = [] if verdict.outcomes.get(name) == "done" else sorted(set(case.folder.iterdir()) - before)
        if left and fault is None:
            fault = Fault("left over", name, ", ".join(path.name for path in left), "")
        for path in left:
            path.unlink()
        if fault is not None:
            verdict.outcomes[name] = fault.kind
            words = fault.words.replace(f"{case.path.parent}/", "")  # a folder of this run alone
            verdict.faults.append(replace(fault, words=words))
    for path in case.folder.iterdir():
        path.unlink()
    return verdict


def _fault_of_words(reader: str, error: Exception) -> Optional[Fault]:
    """What is wrong with a refusal: its words, or that memory had run out before it."""
    text = str(error) if isinstance(error, SqueezeError) else one_line(error)
    if "\n" in text or len(one_line(error)) > LONGEST or not one_line(error).isprintable():
        return _fault("words", reader, error)
    if any(_is_of_memory(each) for each in _chain(error)):
        return _fault("memory", reader, error)
    return None


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _fault(kind: str, reader: str, error: BaseException) -> Fault:
    if any(_is_of_memory(each) for each in _chain(error)):
        kind = "memory"
    inner = list(_chain(error))[-1]
    return Fault(kind, reader, f"{type(error).__name__}: {str(error)[:300]}", place_of(inner))


def place_of(error: BaseException) -> str:
    """The innermost line of ours on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if set(OURS) & set(Path(frame.filename).parts) and "benchmarks" not in frame.filename
    ]
    frame = next(reversed(own or frames), None)
    return f"{Path(frame.filename).name}:{frame.name}" if frame else ""


class Watch:
    """Notes what Python is asked to run while files are read."""

    def __init__(self) -> None:
        self.seen: List[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: Any) -> None:
        if event in FORBIDDEN:
            self.seen.append(f"{event} {str(arguments)[:100]}")

    def taken(self) -> List[str]:
        seen, self.seen = self.seen, []
        return seen
