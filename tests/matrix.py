"""The suite on pairs of Python and torch, each in a virtual environment of its own; docs/versions.md has the table.

    python -m tests.matrix --quick            # every pair, about five minutes each
    python -m tests.matrix --pair 3.12+2.4.1  # one, with the whole contract, surgery, checkpoint, CLI and check suites

What is recorded already is not run again, unless --again is given; an environment is removed when its tests have run.
"""

from __future__ import annotations

import datetime
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple
from unittest import mock

import click

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "matrix.json"
#: quick tests of checkpoints
FILES = ("atomic", "convert", "state_dicts", "safe_tensors", "stored")
SUITES = {
    "full": [
        *("tests/adapters/test_contract.py", "tests/surgery", "tests/checkpoints", "tests/cli", "tests/checks"),
        "tests/test_precision.py",
    ],
    "quick": [
        *("-k", "(draggan or not test_contract) and not test_planted or test_no_alarm and average"),
        "tests/adapters/test_contract.py",
        "tests/surgery/test_apply.py",
        "tests/test_precision.py",
        *(
            f"tests/checkpoints/test_{name}.py"
            for name in ("atomic", "convert", "state_dicts", "safe_tensors", "stored")
        ),
        "tests/cli/test_commands.py",
        "tests/checks/test_reports.py",
        "tests/checks/test_planted.py",
    ],
}
#: of the extra `test`, what these suites import
TOOLS = (
    *("pytest", "pytest-xdist", "psutil", "pypi-simple", "backports.tarfile", "safetensors", "setuptools"),
    *("onnx", "onnxruntime", "onnxscript"),
)
#: what a table shows of an environment
SHOWN = ("numpy", "scipy", "pillow", "click")


@dataclass(frozen=True)
class Pair:
    """A Python and a torch.

    Attributes:
        numpy: a bound on NumPy, "" = the newest that the metadata allows.
        lowest: the oldest version of everything that the metadata allows.
    """

    python: str
    torch: str
    numpy: str = ""
    lowest: bool = False

    @property
    def name(self) -> str:
        return f"{self.python}+{self.torch}{'-lowest' if self.lowest else ''}"


#: torch before 2.3 was built with NumPy 1, and knows no arrays of NumPy 2
ONE = "numpy<2"
PAIRS = (
    Pair("3.9", "1.13.0", lowest=True),
    Pair("3.9", "1.13.1"),
    Pair("3.9", "2.0.1"),
    Pair("3.9", "2.4.1"),
    Pair("3.10", "1.13.1", ONE),
    Pair("3.10", "2.0.1", ONE),
    Pair("3.10", "2.4.1"),
    Pair("3.10", "2.13.0"),
    Pair("3.11", "1.13.1", ONE),
    Pair("3.11", "2.0.1", ONE),
    Pair("3.11", "2.4.1"),
    Pair("3.11", "2.13.0"),
    Pair("3.11", "2.14.1"),
    Pair("3.12", "2.4.1"),
    Pair("3.12", "2.13.0"),
    Pair("3.12", "2.14.1"),
    Pair("3.13", "2.13.0"),
    Pair("3.13", "2.14.1"),
    Pair("3.13", "2.15.0"),
)


class NotInstalledError(Exception):
    """An environment could not be made; the text is the end of what pip said."""


def metadata() -> Dict[str, Any]:
    """The arguments of setup() in setup.py."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


def minimums(requirements: Sequence[str]) -> List[str]:
    """The oldest version of each requirement that has a lower bound, as pip's constraints."""
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, requirements):
        marker = f"; {requirement.marker}" if requirement.marker else ""
        bounds = [each.version for each in requirement.specifier if each.operator == ">="]
        found += [f"{requirement.name}=={bound}{marker}" for bound in bounds]
    return found


def wanted(pair: Pair) -> Tuple[List[str], List[str]]:
    """What pip is asked for, and constraints on it."""
    from packaging.requirements import Requirement

    about = metadata()
    tools = [text for text in about["extras_require"]["test"] if Requirement(text).name in TOOLS]
    names = [f"torch=={pair.torch}", *tools, *([pair.numpy] if pair.numpy else [])]
    if not pair.lowest:
        return ["-e", str(ROOT), *names], []
    of_extras = [text for extra in ("pytest", "safetensors") for text in about["extras_require"][extra]]
    at_least = [text for text in minimums([*about["install_requires"], *of_extras]) if not text.startswith("torch==")]
    # ONNX is no dependency, and its newest has no word for NumPy this old
    # not -e: pytest 7.0 warns of the module that finds such a package, and warnings are errors
    return [str(ROOT), *(name for name in names if not name.startswith("onnx"))], at_least


def interpreter(version: str) -> Optional[str]:
    """A Python of this version: pyenv's newest, or the one on PATH."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(versions.glob(f"{version}.*/bin/python"), key=lambda path: int(path.parts[-3].split(".")[2]))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def run(pair: Pair, words: Sequence[str], folder: Path, *, index: Optional[str], limit: float) -> Dict[str, Any]:
    """Make the environment, run the tests that ``words`` select in it, and say what became of them.

    Raises:
        NotInstalledError: there is no such Python, or no file of such a torch for it.
    """
    base = interpreter(pair.python)
    if base is None:
        raise NotInstalledError(f"no Python {pair.python} is installed")
    environment, asked = folder / pair.name, repr(wanted(pair))
    python, done = str(environment / "bin" / "python"), environment / "asked"
    if not (done.is_file() and done.read_text(encoding="utf-8") == asked):  # left by --keep
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([base, "-m", "venv", str(environment)], check=True)
        install(pair, python, index)
        done.write_text(asked, encoding="utf-8")
    report = environment / "report.xml"
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SQUEEZE_HOSTS": "",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles torch anew
    log = folder / f"{pair.name}.log"
    began = time.monotonic()
    with open(log, "wb") as stream:
        command = [python, "-m", "pytest", *options, *words]
        subprocess.run(command, cwd=ROOT, env=variables, stdout=stream, stderr=stream, timeout=limit, check=False)
    if not report.is_file():
        raise NotInstalledError(f"pytest wrote no report: {log.read_text(errors='replace')[-1500:]}")
    return {
        "python": said(python, "import platform; print(platform.python_version())"),
        "versions": json.loads(said(python, VERSIONS)),
        "lowest": pair.lowest,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.monotonic() - began),
        **outcomes(report),
    }


VERSIONS = (
    "import importlib.metadata as m, json\n"
    "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()\n"
    "    if not d.metadata['Name'].startswith(('nvidia', 'squeeze'))}, sort_keys=True))"
)


def said(python: str, script: str) -> str:
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def install(pair: Pair, python: str, index: Optional[str]) -> None:
    names, constraints = wanted(pair)
    options = ["--extra-index-url", index] if index else []
    with tempfile.TemporaryDirectory() as temporary:
        if constraints:
            path = Path(temporary) / "constraints.txt"
            path.write_text("\n".join(constraints) + "\n", encoding="utf-8")
            options += ["--constraint", str(path)]
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-cache-dir", "--no-compile"]  # torch is large
        done = subprocess.run([*command, *options, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalledError(done.stderr.strip()[-1500:])


def outcomes(report: Path) -> Dict[str, Any]:
    """Counts of a JUnit report, names of what failed, and reasons of what was skipped."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    reasons: Dict[str, int] = {}
    for case in cases:
        skip = case.find("skipped")
        if skip is not None:
            reason = skip.get("message", "")
            reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "passed": len(cases) - len(failed) - sum(reasons.values()),
        "failed": len(failed),
        "skipped": sum(reasons.values()),
        "failures": sorted(f"{case.get('classname')}::{case.get('name')}" for case in failed),
        "reasons": dict(sorted(reasons.items())),
    }


def node(case: str) -> str:
    """What pytest calls a case that its report calls ``package.module.Class::name``."""
    place, _, name = case.partition("::")
    parts = place.split(".")
    length = next(n for n in range(len(parts), 0, -1) if (ROOT / Path(*parts[:n])).with_suffix(".py").is_file())
    return "::".join(["/".join(parts[:length]) + ".py", *parts[length:], name])


def merged(known: Dict[str, Any], again: Dict[str, Any]) -> Dict[str, Any]:
    """A record whose failures, and nothing else, were run again after a change; ``again`` names those."""
    counts = {name: known[name] + again[name] for name in ("passed", "skipped")}
    names = sorted({*known.get("again", []), *known["failures"]})
    return {**known, **counts, "failed": again["failed"], "failures": again["failures"], "again": names}


def table(results: Dict[str, Dict[str, Any]]) -> str:
    """Markdown: a row for each pair."""
    heads = ["Python", "torch", "NumPy", "SciPy", "Pillow", "click", "suite", "passed", "failed", "skipped", "date"]
    lines = [heads, ["---"] * len(heads)]
    for name in sorted(results, key=order):
        found = results[name]
        suite = f"{found['suite']}, oldest dependencies" if found["lowest"] else found["suite"]
        versions = [found["versions"].get(package, "-") for package in ("torch", *SHOWN)]
        counts = [str(found[key]) for key in ("passed", "failed", "skipped", "date")]
        lines.append([found["python"], *(version.partition("+")[0] for version in versions), suite, *counts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def order(name: str) -> Tuple[List[List[int]], bool]:
    versions, _, lowest = name.partition("-")
    return [[int(part) for part in version.split(".")] for version in versions.split("+")], not lowest


def read(path: Path) -> Dict[str, Dict[str, Any]]:
    found: Dict[str, Dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def record(path: Path, name: str, found: Dict[str, Any]) -> None:
    """Write one result beside those that are there by now: another run of this may have written meanwhile."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**read(path), name: found}, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


@click.command(help=__doc__.replace("    python", "\b\n    python", 1))
@click.option("--quick", is_flag=True, help="A selection of those suites, two to three minutes of a core.")
@click.option("--pair", "names", multiple=True, help="PYTHON+TORCH, for example 3.12+2.4.1; may be repeated.")
@click.option("--again", is_flag=True, help="Also run what is recorded already.")
@click.option("--failed", is_flag=True, help="Run only what has failed, of the pairs that are recorded.")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / ".cache" / "matrix", help="For environments.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="The file of results.")
@click.option("--index", help="An index more for pip, such as the one with torch's files for CPUs.")
@click.option("--limit", default=3600.0, help="Seconds for the tests of a pair.")
@click.option("--keep", is_flag=True, help="Leave the environments where they are, 1 to 6 GB each.")
@click.option("--list", "show", is_flag=True, help="Print the table of what is recorded, and run nothing.")
def main(
    quick: bool,
    names: Tuple[str, ...],
    again: bool,
    failed: bool,
    work: Path,
    out: Path,
    index: Optional[str],
    limit: float,
    keep: bool,
    show: bool,
) -> None:
    results = read(out)
    unknown = set(names) - {pair.name for pair in PAIRS}
    if unknown:
        raise click.ClickException(f"{', '.join(unknown)}: the pairs are {', '.join(pair.name for pair in PAIRS)}")
    chosen = [pair for pair in PAIRS if not names or pair.name in names] if not show else []
    suite = "quick" if quick else "full"
    work.mkdir(parents=True, exist_ok=True)
    if failed:
        chosen = [pair for pair in chosen if results.get(pair.name, {}).get("failures")]
    for index_of, pair in enumerate(chosen, 1):
        head = f"[{index_of}/{len(chosen)}] Python {pair.python}, torch {pair.torch}{', oldest' if pair.lowest else ''}"
        known = results.get(pair.name)
        if known and not (again or failed) and known["suite"] in (suite, "full"):
            click.echo(f"{head}: recorded on {known['date']}")
            continue
        what = "what failed" if failed else f"the {suite} suite"
        click.echo(f"{head}: installing, then {what} ...", err=True)
        words = [node(case) for case in known["failures"]] if known and failed else SUITES[suite]
        try:
            found = {"suite": suite, **run(pair, words, work, index=index, limit=limit)}
        except (NotInstalledError, subprocess.TimeoutExpired) as error:
            click.echo(f"{head}: not run: {error}")
            continue
        finally:
            if not keep:
                shutil.rmtree(work / pair.name, ignore_errors=True)
        record(out, pair.name, merged(known, found) if known and failed else found)
        results = read(out)
        counts = ", ".join(f"{found[key]} {key}" for key in ("passed", "failed", "skipped"))
        click.echo(f"{head}: {counts}, {found['seconds']} s" + "".join(f"\n  {name}" for name in found["failures"]))
    click.echo(table(results))
    sys.exit(any(found["failed"] for found in results.values()))


if __name__ == "__main__":
    main(prog_name="python -m tests.matrix")
