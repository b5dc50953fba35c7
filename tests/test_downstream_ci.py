"""examples/downstream_ci, as a stranger runs it: in a virtual environment, by its own commands; then broken by hand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
import torch
import yaml

from squeeze_patch.cli import main
from tests.downstream import BREAKS, Break
from tests.helpers import ROOT
from tests.processes import command_runner, python

EXAMPLE = ROOT / "examples" / "downstream_ci"
#: what of this repository squeeze_patch is built from
SOURCES = ("squeeze_patch", "adapters", "squeeze_patch_pytest.py", "setup.py", "pyproject.toml", "README.md")
LEFT_OVER = shutil.ignore_patterns(
    "__pycache__", ".pytest_cache", "*.egg-info", "build", "squeeze-*.html", "squeeze-*.xml"
)
#: the command, once for each folder, in processes that need not import torch anew: {folder: arguments} -> exit codes
SEVERAL = """
import json, os, sys
from squeeze_patch.cli import main
codes = {}
for folder, arguments in json.load(sys.stdin).items():
    child = os.fork()
    if not child:
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = 70
        try:
            main(arguments)
        except SystemExit as done:
            code = done.code
        finally:
            os._exit(code)
    codes[folder] = os.WEXITSTATUS(os.waitpid(child, 0)[1])
print(json.dumps(codes))
"""


class Stranger:
    """A virtual environment with squeeze_patch in it; torch and others come from that of these tests."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        packages = next((folder / "venv").glob("lib/python*/site-packages"))
        (packages / "tests.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
        (folder / "source").mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / "source" / name, ignore=LEFT_OVER)
            else:
                shutil.copy(ROOT / name, folder / "source")
        # PIP_NO_BUILD_ISOLATION=0 is the variable's way of saying --no-build-isolation
        pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        dropped = ("PYTHONPATH", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "PIP_CONSTRAINT")
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self.environment.update(pip, OMP_NUM_THREADS="1", PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        self.bash("python -m pip install --quiet --no-deps --ignore-installed ./source", folder)

    def bash(self, command: str, folder: Path) -> str:
        """What it says, both streams; it has to end well."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    if torch.__version__.startswith("1."):
        pytest.skip("the example wants torch 2: before it, checkpoints with numbers in them are not read weights_only")
    return Stranger(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def broken(
    stranger: Stranger, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Dict[str, Tuple[int, Path]]:
    """{name of a break: (exit code, folder)} of those whose tests are run, by one process, which imports torch once."""
    # items of this file alone: others may have a parameter of that name
    here = [item for item in request.session.items if item.path == request.node.path]
    chosen = [item.callspec.params["way"] for item in here if "way" in getattr(item, "fixturenames", ())]
    runs: Dict[str, List[str]] = {}
    folders: Dict[str, Path] = {}
    for way in chosen:
        folder = tmp_path_factory.mktemp("broken") / "discs"
        shutil.copytree(EXAMPLE, folder, ignore=LEFT_OVER)
        way.edit(folder)
        only = [] if os.environ.get("SQUEEZE_SLOW") else ["--only", way.check or "names"]
        runs[str(folder)] = ["check", *only, "--json", "found.json"]
        folders[way.name] = folder
    command = [str(stranger.bin / "python"), "-c", SEVERAL]
    done = subprocess.run(
        command,
        input=json.dumps(runs),
        env=stranger.environment,
        cwd=stranger.bin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    return {name: (codes[str(folder)], folder) for name, folder in folders.items()}


def test_it_holds(stranger: Stranger, tmp_path: Path) -> None:
    """By the commands of its workflow, in their order; what they would download is here already."""
    folder = shutil.copytree(EXAMPLE, tmp_path / "discs", ignore=LEFT_OVER)
    steps = yaml.safe_load((folder / ".github/workflows/squeeze.yml").read_text(encoding="utf-8"))["jobs"]["check"][
        "steps"
    ]
    commands = [step["run"] for step in steps if "run" in step and "--index-url" not in step["run"]]
    commands = [f"python -m {command}" if command.startswith("pip ") else command for command in commands]
    assert [command.split()[0] for command in commands] == ["python", "squeeze-patch", "python"]
    said = [stranger.bash(command, folder) for command in commands]
    assert "fall" not in said[1]
    assert "could not be run" not in said[1]
    assert (folder / "squeeze-report.html").stat().st_size > 10_000
    assert "2 passed" in said[2]


@pytest.mark.parametrize("way", BREAKS, ids=[way.name for way in BREAKS])
def test_a_break_is_caught(way: Break, broken: Dict[str, Tuple[int, Path]]) -> None:
    code, folder = broken[way.name]
    said = (folder / "said.txt").read_text(encoding="utf-8")
    assert code == (1 if way.check else 2), said
    if not way.check:
        assert way.words in said
        assert "Traceback" not in said
        return
    outcomes = json.loads((folder / "found.json").read_text(encoding="utf-8"))["outcomes"]
    found = next(outcome for outcome in outcomes if outcome["check"] == way.check)
    assert found["state"] == "short", said
    assert way.place in found["place"]
    assert bool(way.place) == bool(found["place"])
    assert way.words in found["found"]


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="some minutes; SQUEEZE_SLOW=1 runs it")
def test_its_weights_can_be_made_again(stranger: Stranger, tmp_path: Path) -> None:
    """By the README's commands, up to what float error makes of a training."""
    folder = shutil.copytree(EXAMPLE, tmp_path / "discs", ignore=LEFT_OVER)
    for command in readme_commands()[1].splitlines():
        stranger.bash(command.split("'.[export]' && ")[-1], folder)
    before, now = (
        json.loads((place / "squeeze-baseline.json").read_text(encoding="utf-8"))["generators"][""]
        for place in (EXAMPLE, folder)
    )
    assert now["parameters"] == before["parameters"]
    assert now["fidelity"]["psnr"] > 30  # before the recovery it is below 27
    stranger.bash("squeeze-patch check --skip cost", folder)


def readme_commands() -> List[str]:
    return re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_ci_files_are_sound() -> None:
    workflow, gitlab = EXAMPLE / ".github/workflows/squeeze.yml", EXAMPLE / ".gitlab-ci.yml"
    for kind, file in (("github-workflows", workflow), ("gitlab-ci", gitlab)):
        done = python(
            "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", str(file), cwd=EXAMPLE, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stdout
    command = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--quiet", str(EXAMPLE)]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    github = [
        step["run"]
        for step in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["check"]["steps"]
        if "run" in step
    ]
    lines = yaml.safe_load(gitlab.read_text(encoding="utf-8"))["squeeze"]["script"]
    assert [without_reports(line) for line in lines] == [without_reports(line) for line in github]
    assert [without_reports(line) for line in github[1:]] == readme_commands()[0].splitlines()


def without_reports(command: str) -> str:
    return re.sub(r" --(html|junit) \S+", "", command)


def test_pre_commit_knows_the_hook(tmp_path: Path) -> None:
    manifest, config = ROOT / ".pre-commit-hooks.yaml", EXAMPLE / ".pre-commit-config.yaml"
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path)}
    for what, file in (("validate-manifest", manifest), ("validate-config", config)):
        done = python("-m", "pre_commit", what, str(file), cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    hooks = {hook["id"]: hook for hook in yaml.safe_load(manifest.read_text(encoding="utf-8"))}
    used = yaml.safe_load(config.read_text(encoding="utf-8"))["repos"][0]["hooks"][0]
    command, *arguments = [*shlex.split(hooks[used["id"]]["entry"]), *used["args"], "--list"]
    assert command == "squeeze-patch"
    assert command_runner().invoke(main, arguments).exit_code == 0
