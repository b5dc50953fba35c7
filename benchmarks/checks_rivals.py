"""What a repository would use in place of squeeze-patch check, each through its own API, on the same numbers: images of
four latents with constant noise, and the state dict."""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

import click
import numpy as np
import torch

from squeeze_patch.adapters import sampler
from squeeze_patch.checks.fixed_inputs import fixed_latents
from squeeze_patch.sampling import draw, evaluation
from tests.planting import Generators

ASSERT_CLOSE = "assert_close"
Arrays = Dict[str, torch.Tensor]
#: what a user writes: arrays with default tolerances; and, as syrupy compares text and bytes, names and forms of
#: tensors as text and the images as a file of bytes (its SingleFileSnapshotExtension)
COMMON = """
import json, os
import numpy as np
import pytest

WHEN = os.environ["WHEN"]
with open(os.environ["CASES"], encoding="utf-8") as stream:
    CASES = json.load(stream)


def arrays(case):
    with np.load(os.path.join(os.environ["ARRAYS"], f"{case}-{WHEN}.npz")) as file:
        found = {name: file[name] for name in file.files}
    assert any(name.startswith("images") for name in found), "the generator stopped"
    return found
"""
TESTS = {
    "pytest-regressions": """
@pytest.mark.parametrize("case", CASES)
def test_case(case, ndarrays_regression):
    ndarrays_regression.check(arrays(case), basename=case)
""",
    "syrupy": """
from syrupy.extensions.single_file import SingleFileSnapshotExtension

@pytest.mark.parametrize("case", CASES)
def test_case(case, snapshot):
    found = arrays(case)
    forms = {name: f"{array.dtype} {list(array.shape)}" for name, array in found.items()}
    assert forms == snapshot
    images = b"".join(array.tobytes() for name, array in found.items() if name.startswith("images"))
    assert images == snapshot(extension_class=SingleFileSnapshotExtension)
""",
}
UPDATE = {"pytest-regressions": "--force-regen", "syrupy": "--snapshot-update"}
#: modules: the rest of the environment's plug-ins are of no use here
PLUGINS = {"pytest-regressions": ("pytest_regressions.plugin", "pytest_datadir.plugin"), "syrupy": ("syrupy",)}


@dataclass(frozen=True)
class Case:
    """A plant in a family's generators; "" = clean ones, made anew."""

    family: str
    plant: str
    pair: bool

    @property
    def name(self) -> str:
        """Good for a file."""
        words = f"{self.family} {'pair' if self.pair else 'alone'} {self.plant or 'clean'}"
        return "-".join("".join(c if c.isalnum() else " " for c in words).split())

    def write(self, folder: Path, before: Arrays, now: Arrays) -> None:
        """The arrays of the clean generators and of the planted ones."""
        for when, arrays in (("before", before), ("now", now)):
            np.savez(folder / f"{self.name}-{when}.npz", **{name: array.numpy() for name, array in arrays.items()})


def arrays_of(generators: Generators) -> Arrays:
    """{"images/NAME": [4, channels, H, W], "state/NAME.KEY": tensor}; no images of a generator that cannot run."""
    found: Arrays = {}
    for name, G in generators.items():
        found.update({f"state/{name}.{key}": value.detach().clone() for key, value in G.state_dict().items()})
        try:
            source = sampler(G)
            with evaluation(G):
                found[f"images/{name}"] = draw(source, *fixed_latents(source, 4)).detach().clone()
        except Exception as error:  # whatever is planted brings about
            click.echo(f"{name or 'the generator'} makes no images: {error!r}", err=True)
    return found


def assert_close(before: Arrays, now: Arrays) -> List[str]:
    """Which of the two fall short: "images", "state"."""
    wrong = []
    for part in ("images", "state"):
        one, other = ({name: x for name, x in arrays.items() if name.startswith(part)} for arrays in (now, before))
        try:
            torch.testing.assert_close(one, other)
        except AssertionError:
            wrong.append(part)
    return wrong


def rivals(python: str, folder: Path, cases: Sequence[Case]) -> Dict[str, Any]:
    """{rival: {"version", "answers": {case: whether it fails}}} of those that ``python`` has."""
    found = {}
    for name in TESTS:
        version = _version(python, name)
        if not version:
            click.echo(f"{name} is left out: {python} does not have it", err=True)
            continue
        place = folder / name
        place.mkdir()
        (place / "test_generators.py").write_text(COMMON + TESTS[name], encoding="utf-8")
        (place / "cases.json").write_text(json.dumps([case.name for case in cases]), encoding="utf-8")
        _pytest(python, name, folder, "before", UPDATE[name])
        quiet = _pytest(python, name, folder, "before")
        assert not any(quiet.values()), f"{name} does not hold what it has just recorded"
        found[name] = {"version": version, "answers": _pytest(python, name, folder, "now")}
        assert set(found[name]["answers"]) == {case.name for case in cases}
    return found


def _version(python: str, name: str) -> str:
    """Of a distribution, "" where it is not installed."""
    command = [python, "-c", "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _pytest(python: str, name: str, folder: Path, when: str, *options: str) -> Dict[str, bool]:
    """{case: whether it fails} of one run of the rival's tests."""
    place = folder / name
    plugins = [word for plugin in PLUGINS[name] for word in ("-p", plugin)]
    command = [python, "-m", "pytest", "-q", *plugins, "-c", os.devnull, "--rootdir", str(place)]
    dropped = ("PYTHONPATH", "PYTEST_ADDOPTS")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment.update(
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", WHEN=when, CASES=str(place / "cases.json"), ARRAYS=str(folder)
    )
    report = place / "report.xml"
    done = subprocess.run(
        [*command, "--junitxml", str(report), *options, "test_generators.py"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise click.ClickException(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {
        case.get("name", "").partition("[")[2].rstrip("]"): case.find("failure") is not None
        or case.find("error") is not None
        for case in cases
    }
