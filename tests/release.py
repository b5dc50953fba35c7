"""What is published, made and tried as its users will: sizes, times, and whether it works where nothing else is.

    python -m tests.release

Builds the source distribution, and the wheel from it; `twine check`; installs the wheel into an empty environment and
runs, outside this tree, the demo, the contract suite on an adapter of another distribution, and mypy --strict on a
program that uses it; resolves every extra; measures how long importing takes. Ten minutes; twine has to be installed.
Pip is configured as ever: with PIP_CONSTRAINT, for example, it takes a release of torch that is here already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import click

from tests.matrix import ROOT, metadata

#: what is made here, and is no part of the sources
MADE = (".git", ".venv", ".*cache*", "__pycache__", "packages", "*.egg-info", "build", "out")
#: a program of a user's, for mypy
PROGRAM = """
from pathlib import Path
from typing import List

import torch

import squeeze_patch
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.testing import AdapterContract, float_error


def squeeze(G: torch.nn.Module, found: List[Adapter]) -> float:
    squeeze_patch.apply(G, ratio=2, init="weights")
    now: squeeze_patch.Status = squeeze_patch.status(G)
    plan: squeeze_patch.Plan = squeeze_patch.plan(squeeze_patch.remove(G))
    with squeeze_patch.squeezed(G) as same:
        same.eval()
    done: squeeze_patch.Conversion = squeeze_patch.convert(Path("a.pkl"), "b.pkl", trust=True)
    try:
        squeeze_patch.check("squeeze.toml")
    except squeeze_patch.SqueezeError as error:
        print(error, now, done, AdapterContract)
    return plan.reduction + float_error(G, torch.zeros(1))
"""
#: milliseconds that importing squeeze_patch takes where torch is imported, and then its first use
IMPORTING = """
import time
a = time.perf_counter()
import torch
b = time.perf_counter()
import squeeze_patch
c = time.perf_counter()
squeeze_patch.apply
d = time.perf_counter()
squeeze_patch.convert
print(*(1000 * x for x in (b - a, c - b, d - c, time.perf_counter() - d)))
"""


def source_distribution(folder: Path) -> Path:
    """Built in ``folder`` from a copy of this tree, by the setuptools that is installed."""
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*MADE))
    build = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    call(sys.executable, "-c", build, str(folder), cwd=folder / "tree")
    return next(folder.glob("*.tar.gz"))


def wheel_of(sdist: Path) -> Path:
    """Built beside a source distribution, by pip."""
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--wheel-dir", str(sdist.parent)]
    call(sys.executable, "-m", "pip", "wheel", *options, str(sdist), cwd=sdist.parent)
    return next(sdist.parent.glob("*.whl"))


def call(*command: str, cwd: Path) -> str:
    """What a command printed; `ClickException` with the end of it where it failed. Nothing of this tree is seen."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    how: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "check": False}
    done = subprocess.run(command, cwd=cwd, env=environment, **how)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)[:200]}\n{done.stdout[-3000:]}")
    return str(done.stdout)


class Release:
    """A folder with the files that would be published, and an environment that has nothing but the wheel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        self.sdist = self.wheel = folder
        self.python = str(folder / "environment" / "bin" / "python")

    def build(self) -> str:
        self.sdist = source_distribution(self.folder)
        self.wheel = wheel_of(self.sdist)
        with zipfile.ZipFile(self.wheel) as archive:
            sizes = [info.file_size for info in archive.infolist()]
        files = [f"{path.name} {path.stat().st_size / 1e3:,.0f} kB" for path in (self.sdist, self.wheel)]
        return f"{'; '.join(files)} ({len(sizes)} files, {sum(sizes) / 1e3:,.0f} kB unpacked)"

    def twine(self) -> str:
        call(sys.executable, "-m", "twine", "check", "--strict", str(self.sdist), str(self.wheel), cwd=self.work)
        return "passed"

    def install(self) -> str:
        call(sys.executable, "-m", "venv", str(self.folder / "environment"), cwd=self.work)
        return self._pip("install", str(self.wheel)) or "into an empty environment"

    def demo(self) -> str:
        printed = call(str(Path(self.python).with_name("squeeze-patch")), "demo", cwd=self.work)
        return printed.strip().splitlines()[-1]

    def importing(self) -> str:
        runs = [call(self.python, "-c", IMPORTING, cwd=self.work).split() for _ in range(11)]
        torch, ours, apply, convert = (statistics.median(map(float, column)) for column in zip(*runs))
        if ours > 50:
            raise click.ClickException(f"importing squeeze_patch takes {ours:.0f} ms beside torch's")
        later = f"first use of apply {apply:.0f} ms, then of convert {convert:.0f} ms"
        return f"{ours:.1f} ms beside torch's {torch:,.0f} ms; {later} (medians of {len(runs)} processes)"

    def contract(self) -> str:
        shutil.copytree(ROOT / "examples" / "third_party_adapter", self.work / "adapter")
        self._pip("install", "./adapter[test]")
        return call(self.python, "-m", "pytest", "-q", "adapter/tests", cwd=self.work).strip().splitlines()[-1]

    def types(self) -> str:
        self._pip("install", "mypy")
        (self.work / "program.py").write_text(PROGRAM, encoding="utf-8")
        return call(self.python, "-m", "mypy", "--strict", "program.py", cwd=self.work).strip().splitlines()[-1]

    def extras(self) -> str:
        names: List[str] = list(metadata()["extras_require"])
        for name in names:
            self._pip("install", "--dry-run", f"squeeze-patch[{name}] @ {self.wheel.as_uri()}")
        return f"{', '.join(names)}: each can be installed"

    def _pip(self, *arguments: str) -> str:
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"]
        call(*command, cwd=self.work)
        return ""


@click.command(help=__doc__.replace("    python", "\b\n    python", 1))
@click.option("--keep", type=click.Path(path_type=Path), help="An empty folder for all of it, which stays.")
def main(keep: Path) -> None:
    with contextlib.ExitStack() as stack:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="squeeze_patch_")))
        release = Release(folder.resolve())
        steps: List[Callable[[], str]] = [release.build, release.twine, release.install, release.demo]
        steps += [release.importing, release.extras, release.contract, release.types]
        for step in steps:
            began = time.monotonic()
            click.echo(f"{step.__name__:<10} ", nl=False)
            click.echo(f"{step()} [{time.monotonic() - began:.0f} s]")


if __name__ == "__main__":
    main(prog_name="python -m tests.release")
