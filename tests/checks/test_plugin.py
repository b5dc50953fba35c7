"""The checks of a configuration as tests of pytest, in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Any, List
from xml.etree import ElementTree

import pytest

from squeeze_patch.checks.baseline import read_baseline
from tests.helpers import ROOT
from tests.processes import python

pytest_plugins = ("pytester",)

INI = "[pytest]\nsqueeze_config = squeeze.toml\nfilterwarnings = error\n"
OPTIONS = ("-p", "squeeze_patch_pytest", "-rfEs")
#: says whether a run has paid for torch
CONFTEST = "import sys\ndef pytest_unconfigure():\n    print('torch is', 'torch' in sys.modules)\n"
TESTS = """
def test_first(squeezed_generator):
    squeezed_generator.z_dim = -1
    for parameter in squeezed_generator.parameters():
        parameter.data.zero_()


def test_second(squeezed_generator, squeeze_baseline):
    assert squeezed_generator.z_dim == 64
    assert squeezed_generator.synthesis.b4.conv1.weight.abs().max() > 0
    assert sorted(squeeze_baseline.generators) == ["G", "G_ema"]
"""
NAMES = [
    "squeeze.toml::state[G_ema]",
    "squeeze.toml::state[G]",
    "squeeze.toml::weights[G_ema]",
    "squeeze.toml::weights[G]",
    "squeeze.toml::images[G_ema]",
    "squeeze.toml::images[G]",
    "squeeze.toml::features[G_ema]",
    "squeeze.toml::features[G]",
    "squeeze.toml::fidelity[G_ema]",
    "squeeze.toml::fidelity[G]",
]


class Downstream:
    """Runs of pytest in a repository that has checks; pytest has the plug-in, and no other one that is installed."""

    def __init__(self, pytester: pytest.Pytester, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.monkeypatch = pytester, monkeypatch
        self.folder = pytester.path
        shutil.copytree(repository, self.folder, dirs_exist_ok=True)
        (self.folder / "pytest.ini").write_text(INI)
        (self.folder / "conftest.py").write_text(CONFTEST)
        (self.folder / "test_own.py").write_text(TESTS)
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))

    def run(self, *arguments: str, planted: str = "") -> pytest.RunResult:
        """In a process that has torch imported, and nothing of squeeze_patch."""
        self.monkeypatch.setenv("PLANTED", planted)
        begin = time.perf_counter()
        done = python("-m", "pytest", *OPTIONS, *arguments, cwd=self.folder, env=dict(os.environ))
        taken = time.perf_counter() - begin
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), taken)

    def run_anew(self, *arguments: str) -> pytest.RunResult:
        """In a process that has nothing imported, for what has to do without torch."""
        done = self.pytester.runpytest_subprocess(*OPTIONS, *arguments)
        assert "torch is False" in done.outlines
        return done

    def collected(self, *arguments: str) -> List[str]:
        """Names of tests."""
        return [line for line in self.run_anew("--collect-only", "-q", *arguments).outlines if "::" in line]


@pytest.fixture
def downstream(pytester: pytest.Pytester, recorded_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Downstream:
    return Downstream(pytester, recorded_repository, monkeypatch)


def test_collecting(downstream: Downstream) -> None:
    own = ["test_own.py::test_first", "test_own.py::test_second"]
    assert downstream.collected() == [*NAMES, *own]
    assert downstream.collected("-m", "squeeze", "-k", "parity and not G_ema") == [NAMES[5], NAMES[7], NAMES[9]]
    assert downstream.collected("squeeze.toml::images") == NAMES[4:6]
    assert downstream.collected(NAMES[3]) == [NAMES[3]]
    assert downstream.collected("test_own.py") == own
    assert downstream.collected("test_own.py", "--squeeze") == [*own, *NAMES]
    assert downstream.collected("--squeeze-record", "squeeze.toml") == ["squeeze.toml::record"]
    (downstream.folder / "squeeze-baseline.json").unlink()
    assert downstream.collected("squeeze.toml") == [name.partition("[")[0] for name in NAMES[::2]]


def test_it_is_off_where_it_is_not_configured(downstream: Downstream) -> None:
    (downstream.folder / "pytest.ini").unlink()
    done = downstream.run_anew()
    done.assert_outcomes(errors=2)
    cure = "the fixture squeezed_generator needs a configuration of checks: squeeze_config = squeeze.toml in pytest's"
    assert cure in done.stdout.str()
    (downstream.folder / "squeeze.toml").rename(downstream.folder / "other.toml")
    assert downstream.collected("--squeeze=other.toml", "-k", "state") == [
        "other.toml::state[G_ema]",
        "other.toml::state[G]",
    ]


def test_pyproject(downstream: Downstream) -> None:
    text = (downstream.folder / "squeeze.toml").read_text().replace("[", "[tool.squeeze-patch.")
    ini = '[tool.pytest.ini_options]\nsqueeze_config = "pyproject.toml"\n'
    (downstream.folder / "pyproject.toml").write_text(ini + text)
    (downstream.folder / "pytest.ini").unlink()
    (downstream.folder / "squeeze.toml").unlink()
    assert downstream.collected("-m", "squeeze") == [name.replace("squeeze.toml", "pyproject.toml") for name in NAMES]


def test_each_check_is_a_test(downstream: Downstream) -> None:
    with open(downstream.folder / "squeeze.toml", "a") as stream:
        stream.write('onnx = {file = "nowhere.onnx"}\n')
    done = downstream.run("--junitxml=report.xml", planted="shift")
    done.assert_outcomes(passed=4, failed=8, skipped=2)
    text = done.stdout.str()
    assert "synthesis.b16.conv1.bias: " in text
    assert "b16: features differ by " in text
    assert "could not be run: " in text
    assert "there is no [dense] generator in the configuration" in text
    assert "as harmless as those of torch" in text  # a warning, and no error
    assert "Traceback" not in text
    assert "squeeze_patch_pytest.py" not in text
    cases = {case.get("name"): case for case in ElementTree.parse("report.xml").iter("testcase")}
    assert {name for name, case in cases.items() if case.find("failure") is not None} == {
        f"{check}[{name}]" for check in ("weights", "images", "features", "onnx") for name in ("G", "G_ema")
    }
    assert "images differ" in str(cases["images[G]"][0].get("message"))
    failed = downstream.collected("--lf")
    assert failed == [*NAMES[2:8], "squeeze.toml::onnx[G_ema]", "squeeze.toml::onnx[G]"]


@pytest.mark.parametrize("planted", ["error", "renamed"])
def test_what_keeps_checks_from_running(downstream: Downstream, planted: str) -> None:
    done = downstream.run("-k", "state or (weights and G_ema)", planted=planted)
    done.assert_outcomes(failed=3)
    said = {
        "error": "*could not be run: [[]generator] factory * stops with RuntimeError: no \\x1b[[]31mway",
        "renamed": "*the configuration makes no generator 'G', which is recorded, but 'G_ema', 'D'; *",
    }
    done.stdout.fnmatch_lines([said[planted]])
    text = done.stdout.str()
    assert ("downstream_generators.py" in text and "in make" in text) == (planted == "error")
    assert "squeeze_patch_pytest.py" not in text
    assert "During handling" not in text


def test_configurations_that_cannot_be_used(downstream: Downstream) -> None:
    with open(downstream.folder / "squeeze.toml", "a") as stream:
        stream.write("imagse = true\n")
    done = downstream.run("squeeze.toml")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "[checks] has 'imagse', which is not known; did you mean images?" in done.stdout.str()
    assert "Traceback" not in done.stdout.str()
    done = downstream.run("--squeeze", "test_own.py")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--squeeze=test_own.py: this is no squeeze.toml or pyproject.toml; *"])
    (downstream.folder / "squeeze.toml").unlink()
    done = downstream.run()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*squeeze_config = squeeze.toml: there is no such file in *"])


def test_recording(downstream: Downstream) -> None:
    path = downstream.folder / "squeeze-baseline.json"
    path.unlink()
    parallel: List[Any] = ["-p", "xdist.plugin", "-n", "2"] if importlib.util.find_spec("xdist") else []
    downstream.monkeypatch.setenv("CI", "true")
    done = downstream.run("--squeeze-record", "-k", "record", *parallel)
    done.assert_outcomes(passed=1, deselected=0 if parallel else 2)
    assert "recorded G_ema, G in squeeze-baseline.json; commit it" in done.outlines
    done.stdout.fnmatch_lines(["Warning: this seems to be a CI (CI is set): *a regression would pass*"])
    found = read_baseline(path)
    assert found is not None
    assert list(found.generators) == ["G_ema", "G"]
    before = path.read_bytes()
    done = downstream.run("--squeeze-record", "-k", "nothing")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "nothing was recorded; the baseline is as it was" in done.outlines
    done = downstream.run("--squeeze-record", "squeeze.toml", planted="nothing")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["could not be run: *downstream_generators:make returned an empty dict*"])
    assert "nothing was recorded; the baseline is as it was" in done.outlines
    assert path.read_bytes() == before


def test_several_processes(downstream: Downstream) -> None:
    pytest.importorskip("xdist")
    done = downstream.run("-p", "xdist.plugin", "-n", "2", "--dist", "loadgroup")
    done.assert_outcomes(passed=10, skipped=2)
