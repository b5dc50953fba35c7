"""Damaged checkpoint files through every reader: is each either converted soundly, or refused in one line?

    python -m benchmarks fuzz [--files 20000] [--seed 0] [--kinds bytes,plans] [--keep FOLDER] [--only N]

Tiny files of every kind that squeeze_patch reads (`benchmarks.corpora`) are damaged (`benchmarks.mutations`,
`benchmarks.odd_values`) and go through info, plan, convert, compare and load in a process that is watched
(`benchmarks.fuzz_process`). Nothing of them is trusted. A fault is printed once, with the command that repeats it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import click

from benchmarks.common import machine
from benchmarks.corpora import SUFFIXES, Base, make
from benchmarks.fuzz_process import KINDS, Reply, Worker
from benchmarks.fuzz_readers import FAULTS, Fault

ROOT = Path(__file__).parent.parent
#: what became of a file
OUTCOMES = ("converted", "read", "refused", "fault")
#: files between two lines, and between two savings of the figures
EVERY = 100


@dataclass
class Figures:
    """Of a run so far.

    Attributes:
        table: {kind of mutation: {outcome: files}}; "read": the file was read and not converted, "refused": not even
            read.
        refusals: {class of the error with which convert refused a file: files}.
        faults: one entry for every fault that is unlike the others.
        slowest, largest: CPU seconds and bytes of memory of the file that took most.
    """

    seed: int
    kinds: List[str]
    code: str
    files: int = 0
    seconds: float = 0.0
    machine: str = ""
    table: Dict[str, Dict[str, int]] = field(default_factory=dict)
    refusals: Dict[str, int] = field(default_factory=dict)
    faults: List[Dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0

    def add(self, reply: Reply) -> List[Fault]:
        """Count a file; the faults that are new."""
        outcomes, faults = reply.verdict.outcomes, reply.verdict.faults
        outcome = "converted" if outcomes.get("convert") == "done" else "read"
        outcome = "refused" if outcomes.get("info") != "done" else outcome
        row = self.table.setdefault(reply.kind, dict.fromkeys(OUTCOMES, 0))
        row["fault" if faults else outcome] += 1
        if outcome != "converted" and not faults:
            name = outcomes.get("convert", "")
            self.refusals[name] = self.refusals.get(name, 0) + 1
        self.files += 1
        self.slowest, self.largest = max(self.slowest, reply.seconds), max(self.largest, reply.memory)
        known = {tuple(entry["key"]) for entry in self.faults}
        new = list({fault.key: fault for fault in faults if fault.key not in known}.values())
        self.faults += [{"key": list(f.key), **asdict(f), "number": reply.number, "file": reply.line} for f in new]
        return new


def code_sum() -> str:
    """Of the code that is tested and that tests: the first digits of a SHA-256."""
    found = hashlib.sha256()
    for folder in ("squeeze_patch", "adapters", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "tests" not in path.parts:
                found.update(path.read_bytes())
    return found.hexdigest()[:12]


def table_lines(figures: Figures) -> List[str]:
    rows = [("mutation", "files", *OUTCOMES)]
    for kind, row in figures.table.items():
        rows.append((kind, f"{sum(row.values()):,}", *(f"{row[name]:,}" for name in OUTCOMES)))
    total = Counter({name: sum(row[name] for row in figures.table.values()) for name in OUTCOMES})
    rows.append(("all", f"{figures.files:,}", *(f"{total[name]:,}" for name in OUTCOMES)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]


def print_fault(fault: Fault, reply: Reply, again: str) -> None:
    click.echo(f"{fault.kind}: {fault.reader} of file {reply.number} ({reply.line})")
    click.echo(f"  {fault.words[:300]!r} in {fault.place or 'no known place'}; {FAULTS[fault.kind]}")
    click.echo(f"  again: {again}")


def run(
    figures: Figures,
    files: int,
    keep: Optional[Path],
    out: Optional[Path],
    only: Optional[int] = None,
    bases: Optional[Dict[str, Base]] = None,
) -> Figures:
    """Go on to ``files`` files, or read the one of number ``only``; ``bases`` where they are made already."""
    numbers = range(figures.files, files) if only is None else range(only, only + 1)
    begin, before = time.monotonic(), figures.seconds
    with contextlib.ExitStack() as stack:
        made, folder = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        with Worker(bases or make(made), figures.kinds, figures.seed, folder) as worker:
            for number in numbers:
                reply = worker.ask(number)
                for fault in figures.add(reply):
                    again = f"python -m benchmarks fuzz --seed {figures.seed} --only {number}"
                    again += "" if figures.kinds == list(KINDS) else f" --kinds {','.join(figures.kinds)}"
                    print_fault(fault, reply, again)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{number}-{reply.kind}{_suffix(worker.file)}").write_bytes(worker.file.read_bytes())
                if only is not None:
                    click.echo(f"{reply.line}\n{reply.verdict.outcomes}, {reply.seconds:.2f} s, {reply.memory:,} bytes")
                figures.seconds = before + time.monotonic() - begin
                if (number + 1) % EVERY == 0 or number == numbers[-1]:
                    click.echo(
                        f"{figures.files:,} files, {figures.seconds:,.0f} s, {len(figures.faults)} unlike faults"
                    )
                    _save(figures, out)
    return figures


def _suffix(path: Path) -> str:
    """By the first bytes of a file: what it may have been."""
    head = path.read_bytes()[:9]
    form = "zip" if head.startswith(b"PK") else "pickle" if head.startswith(b"\x80") else "safetensors"
    return SUFFIXES[form]


def _save(figures: Figures, out: Optional[Path]) -> None:
    if out is not None:
        out.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")


def _begun(out: Optional[Path], seed: int, kinds: Sequence[str]) -> Figures:
    """The figures that are there, where they are of this run and this code; else new ones."""
    new = Figures(seed, list(kinds), code_sum(), machine=machine())
    if out is not None and out.is_file():
        found = Figures(**json.loads(out.read_text(encoding="utf-8")))
        if (found.seed, found.kinds, found.code) == (new.seed, new.kinds, new.code):
            return found
    return new


def _chosen(context: click.Context, parameter: click.Parameter, value: str) -> Tuple[str, ...]:
    kinds = tuple(value.split(","))
    if not set(kinds) <= set(KINDS):
        raise click.BadParameter(f"there are {', '.join(KINDS)}")
    return kinds


@click.command()
@click.option("--files", default=20_000, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the mutations.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, callback=_chosen, help="Of mutations.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for an example of every fault.")
@click.option("--only", type=int, metavar="N", help="Read this file of the run alone.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Figures as JSON; where the file has some, the run goes on from there.",
)
def main(
    files: int, seed: int, kinds: Tuple[str, ...], keep: Optional[Path], only: Optional[int], out: Optional[Path]
) -> None:
    """Damage files, read them, print faults and a table; exit code 1 where there was a fault."""
    begun = _begun(out if only is None else None, seed, kinds)
    figures = run(begun, files, keep, out if only is None else None, only)
    if only is None:
        click.echo("\n".join(table_lines(figures)))
        refusals = ", ".join(f"{name} {count:,}" for name, count in figures.refusals.items())
        click.echo(f"not converted: {refusals}")
        click.echo(f"slowest {figures.slowest:.1f} s of CPU time, most memory {figures.largest / 1e6:,.0f} MB")
    sys.exit(1 if figures.faults else 0)
