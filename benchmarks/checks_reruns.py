"""Alarms where nothing is wrong: clean generators on busy cores, and a baseline under another torch."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator

import click
import torch

import squeeze_patch
from benchmarks.common import machine
from benchmarks.crew import Prepare, crew
from squeeze_patch.checks.config import CheckConfig, Recipe
from squeeze_patch.checks.outcome import CheckReport
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import check
from squeeze_patch.testing import trained
from tests.helpers import ROOT
from tests.planted import FAMILIES, configured

#: keeps a core busy until it is ended, or has no parent any more
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))\n"
EXAMPLE = ROOT / "examples" / "downstream_ci"
SIDE = 16


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """As many other processes as cores keep them busy in a block."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def small(family: str, baseline: Path) -> CheckConfig:
    """All checks but those of exports, of a generator at 16x16."""
    host = FAMILIES[family]

    def dense() -> torch.nn.Module:
        torch.manual_seed(0)
        return trained(host.generator(resolution=SIDE))

    def squeezed() -> torch.nn.Module:
        G: torch.nn.Module = squeeze_patch.apply(dense(), ratio=2.0, init="weights", keep_original=False, verify=False)
        return G

    return replace(configured(family, baseline), generator=Recipe(squeezed), dense=Recipe(dense))


class Clean:
    """A clean generator of each family, with baselines in ``folder``. A call checks that of a family.

    Returns:
        The family, seconds, how many checks hold, the names of those that give an alarm, their messages, and the
        machine and the versions that it was on.
    """

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.configs = {family: small(family, folder / f"{family}.json") for family in FAMILIES}
        for family, config in self.configs.items():
            with FAMILIES[family].active():
                record(config)
        gc.freeze()  # the clock's check collects garbage between two pairs; what is there by now is none

    def __call__(self, family: str) -> Dict[str, Any]:
        begun = time.monotonic()
        with FAMILIES[family].active():
            found = check(self.configs[family])
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        seconds = round(time.monotonic() - begun, 1)
        return {
            "family": family,
            "seconds": seconds,
            "holds": found.count("holds"),
            **_alarms(found),
            **versions,
            "machine": f"{machine()}, {os.cpu_count()} cores",
        }


def reruns(
    count: int, minutes: float, start: int = 0, workers: int = 1, clean: Prepare = Clean
) -> Iterator[Dict[str, Any]]:
    """What ``clean`` says of each run, in the order in which they end; families take turns. The baselines are recorded
    before the cores are busy."""
    families = [list(FAMILIES)[index % len(FAMILIES)] for index in range(start, start + count)]
    with tempfile.TemporaryDirectory() as name:
        yield from crew(clean, families, Path(name), workers=workers, seconds=60 * minutes, meanwhile=busy_cores)


def _alarms(found: CheckReport) -> Dict[str, Any]:
    wrong = [outcome for outcome in found.outcomes if outcome.state not in ("holds", "skipped")]
    return {"alarms": [one.name for one in wrong], "messages": [one.message for one in wrong]}


def downstream(folder: Path) -> Path:
    """A copy of the example with each plan in a file of its own: torch before 2 reads tensors only."""
    copied = folder / "downstream"
    shutil.copytree(EXAMPLE, copied, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in (copied / "weights").glob("*.pt"):
        checkpoint = torch.load(path, weights_only=True)
        plan = checkpoint.pop("squeeze_plan", {})
        path.with_suffix(".json").write_text(json.dumps(plan), encoding="utf-8")
        torch.save({"G_ema": OrderedDict(checkpoint["G_ema"])}, path)
    module = copied / "discs" / "__init__.py"
    code = module.read_text(encoding="utf-8")
    there = 'checkpoint.get("squeeze_plan", {})'
    assert there in code
    code = code.replace(there, 'json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))')
    module.write_text(code.replace("from pathlib", "import json\nfrom pathlib", 1), encoding="utf-8")
    return copied


def others_checks(python: str) -> Dict[str, Any]:
    """What ``python`` makes of examples/downstream_ci and of its baseline: states by check, and alarms' messages."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "found.json"
        command = [python, "-m", "squeeze_patch", "check", "--json", str(out), "--skip", "onnx"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(
            command, cwd=downstream(Path(name)), env=environment, capture_output=True, text=True, check=False
        )
        if not out.exists():
            raise click.ClickException(f"{python}: {done.stdout}{done.stderr}")
        found = json.loads(out.read_text(encoding="utf-8"))
    recorded = json.loads((EXAMPLE / "squeeze-baseline.json").read_text(encoding="utf-8"))
    outcomes = found["outcomes"]
    words = (("place", "{}: "), ("found", "{}"), ("wanted", "; wanted {}"))
    return {
        "torch": found["versions"]["torch"],
        "python": found["versions"]["python"],
        "recorded": recorded["versions"],
        "states": {one["name"]: one["state"] for one in outcomes},
        "found": {one["name"]: one["found"] for one in outcomes},
        "alarms": [
            f"{one['name']}: " + "".join(form.format(one[word]) for word, form in words if one[word])
            for one in outcomes
            if one["state"] not in ("holds", "skipped")
        ],
    }
