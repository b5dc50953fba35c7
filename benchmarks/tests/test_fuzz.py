"""`python -m benchmarks fuzz` in short, and that it notices every kind of fault."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest
import torch

from benchmarks import fuzz_process
from benchmarks.corpora import TINY, Base, make, saved_older
from benchmarks.fuzz import Figures, run, table_lines
from benchmarks.fuzz_process import KINDS, Worker, mutant
from benchmarks.fuzz_readers import READERS, Case, Fault, Verdict, judged
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.errors import CheckpointError
from squeeze_patch.testing import trained
from tests.hosts import Host

#: a seventh of a second of CPU time each
FILES = 24


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Base]:
    return make(tmp_path_factory.mktemp("bases"))


def test_a_short_run(bases: Dict[str, Base], tmp_path: Path) -> None:
    figures = run(Figures(0, list(KINDS), ""), FILES, tmp_path / "keep", tmp_path / "figures.json", bases=bases)
    assert figures.faults == []
    assert not (tmp_path / "keep").exists()
    assert list(figures.table) == list(KINDS)
    counted = {outcome: sum(row[outcome] for row in figures.table.values()) for outcome in ("converted", "refused")}
    assert min(counted.values()) > 2
    assert table_lines(figures)[-1].split()[:2] == ["all", str(FILES)]
    assert f'"files": {FILES}' in (tmp_path / "figures.json").read_text(encoding="utf-8")


def test_files_are_the_same_again(bases: Dict[str, Base]) -> None:
    lines = set()
    for number in range(24):
        a, b = (mutant(bases, list(KINDS), 0, number) for _ in range(2))
        assert (a.data, a.line) == (b.data, b.line)
        lines.add(a.line)
    assert len(lines) == 24
    older = bases["rosinality older"]
    assert saved_older(load_tensors(older.path)) == older.data  # whatever the addresses of its storages


def compute(case: Case) -> None:
    while True:
        pass


def allocate(case: Case) -> None:
    bytearray(3 << 30)


def fall_over(case: Case) -> None:
    os.abort()


def run_something(case: Case) -> None:
    os.system("true")


#: what a process reads with: the function that a file beside it names
BY_NAME: Dict[str, Callable[[Case], None]] = {
    function.__name__: function for function in (compute, allocate, fall_over, run_something)
}


def as_said(case: Case) -> None:
    BY_NAME[(case.folder.parent / "what").read_text(encoding="utf-8")](case)


AS_SAID = {"info": as_said}


@pytest.fixture
def base(draggan: Host, tmp_path: Path) -> Base:
    path = tmp_path / "dense.pt"
    torch.save({"state_dict": trained(draggan.generator(**TINY)).state_dict()}, path)
    return Base("one", "zip", path, path)


@pytest.fixture
def case(base: Base, tmp_path: Path) -> Case:
    (tmp_path / "outputs").mkdir()
    return Case(base.path, base, tmp_path / "outputs", random.Random(0))


@pytest.fixture
def worker(base: Base, tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "worker").mkdir()
    with Worker({"one": base}, ["bytes"], 0, tmp_path / "worker", "benchmarks.tests.test_fuzz.AS_SAID") as found:
        found.seconds = 0.3
        yield found


def test_processes_are_watched(worker: Worker, tmp_path: Path) -> None:
    """One that dies is noticed, one that takes too long is stopped; the next file gets a new one."""
    what = tmp_path / "worker" / "what"
    for name, kind in (
        ("allocate", "memory"),
        ("run_something", "ran"),
        ("fall_over", "crash"),
        ("compute", "hang"),
    ):
        what.write_text(name, encoding="utf-8")
        reply = worker.ask(5)
        assert [fault.kind for fault in reply.verdict.faults] == [kind], name
        assert reply.line.startswith("bytes of one: "), name
        assert worker.file.read_bytes() == mutant({"one": worker.bases["one"]}, ["bytes"], 0, 5).data


def test_a_sound_file_is_converted(case: Case) -> None:
    assert judged(case, READERS).outcomes == {**dict.fromkeys(READERS, "done"), "load": "CheckpointError"}


def raw(case: Case) -> None:
    raise KeyError("x")


def several_lines(case: Case) -> None:
    raise CheckpointError("one\nand another")


def out_of_memory(case: Case) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise CheckpointError("damaged") from error


def leave_a_file(case: Case) -> None:
    case.target.write_bytes(b"")
    raise CheckpointError("damaged")


def refuse(case: Case) -> None:
    raise CheckpointError("damaged")


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (raw, "raw error"),
        (several_lines, "words"),
        (out_of_memory, "memory"),
        (leave_a_file, "left over"),
        (refuse, None),
    ],
)
def test_readers_are_judged(case: Case, reader: Callable[[Case], None], kind: Any) -> None:
    verdict = judged(case, {"info": reader})
    assert [fault.kind for fault in verdict.faults] == [kind] * (kind is not None)
    assert verdict.outcomes == {"info": kind or "CheckpointError"}
    assert list(case.folder.iterdir()) == []


def test_what_is_written_is_looked_at(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target with NaN in it, one that is dense, and none."""
    state = torch.load(case.path, weights_only=True)
    spoilt = {name: torch.full_like(tensor, float("nan")) for name, tensor in state["state_dict"].items()}
    for entries, words in (
        ({"state_dict": spoilt}, "is dense"),
        ({"state_dict": {"x": torch.zeros(1)}}, "no generator in it"),
        (None, "there is no such file"),
    ):

        def write(*arguments: Any, entries: Any = entries) -> None:
            if arguments[0] == "convert" and entries is not None:
                torch.save(entries, case.target)

        monkeypatch.setattr("benchmarks.fuzz_readers.command", write)
        (fault,) = judged(case, {"convert": READERS["convert"]}).faults
        assert fault.kind == "output"
        assert words in fault.words


def test_faults_are_counted_once() -> None:
    figures = Figures(0, ["bytes"], "")
    reply = fuzz_process.Reply(
        3, "bytes", "flip a bit", Verdict({"info": "raw error"}, [Fault("raw error", "info", "KeyError: x", "a.py:f")])
    )
    assert [fault.words for fault in figures.add(reply)] == ["KeyError: x"]
    assert figures.add(reply) == []
    assert figures.table == {"bytes": {"converted": 0, "read": 0, "refused": 0, "fault": 2}}
    assert [entry["number"] for entry in figures.faults] == [3]


def test_figures_of_the_page() -> None:
    """docs/benchmarks.md has the stored ones."""
    root = Path(__file__).parent.parent.parent
    stored = Figures(**json.loads((root / "benchmarks" / "results" / "fuzz.json").read_text(encoding="utf-8")))
    page = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for line in table_lines(stored)[1:]:
        assert f"| {' | '.join(line.split())} |" in page
    assert f"{stored.files:,} files took {stored.seconds:,.0f} s" in page
    faults = sum(row["fault"] for row in stored.table.values())
    assert faults == 0 or f"The {faults:,} faults (" in page  # which says of each what it was
