"""Trainings side by side, until the time is over or Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List

import pytest
import torch
from click.testing import Result

from benchmarks import quality
from benchmarks.__main__ import main
from benchmarks.data import Data
from benchmarks.quality import settings_of
from benchmarks.side_by_side import SideBySide, until
from benchmarks.tests.stubs import fail_at_two, killed_at_two, work_until_stopped
from squeeze_patch.errors import PlanError
from squeeze_patch.evaluation.devices import device_named
from tests.processes import command_runner

OPTIONS = (
    "--variants",
    "dense,squeezed",
    "--kimg",
    "0.064",
    "--every",
    "0.032",
    "--channels",
    "8",
    "--d-channels",
    "8",
)


@pytest.fixture
def quality_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`python -m benchmarks quality` on noise in place of images, with few samples."""
    noise = Data(torch.rand([64, 1, 16, 16]) * 2 - 1, torch.arange(64) % 2, 2)
    monkeypatch.setattr(quality, "load", lambda *_: noise)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: True)  # would stay so for other tests
    monkeypatch.setattr(quality, "settings_of", lambda **given: replace(settings_of(**given), samples=64))

    def run(out: Path, *options: str) -> Result:
        return command_runner().invoke(main, ["quality", "--out", str(out), *OPTIONS, *options])

    return run


def curves(out: Path) -> Dict[str, Any]:
    """Of all trainings, without times."""
    found = {file.name: json.loads(file.read_text()) for file in out.glob("*-seed*.json")}
    return {name: [{**point, "seconds": 0} for point in curve] for name, curve in found.items()}


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="a quarter of a minute; SQUEEZE_SLOW=1 runs it")
@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_two_at_once_find_what_one_behind_the_other_finds(
    quality_command: Callable[..., Result], tmp_path: Path
) -> None:
    """To the bit, with a stop on the way; and both write what --report reads."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert quality_command(alone, "--seeds", "0").exit_code == 0

    stopped = quality_command(together, "--seeds", "0", "--jobs", "2", "--minutes", "0")
    assert stopped.exit_code == 0, stopped.output
    assert "the time was over" in stopped.stdout
    assert curves(together) == {}
    done = quality_command(together, "--seeds", "0", "--jobs", "2", "--minutes", "60")
    assert done.exit_code == 0, done.output
    assert {f"{name} seed 0: 0.0{kimg} kimg" in done.stdout for name in ("dense", "squeezed") for kimg in (32, 64)} == {
        True
    }
    assert curves(together) == curves(alone)
    assert len(curves(alone)) == 2
    assert json.loads((together / "parameters.json").read_text()) == json.loads((alone / "parameters.json").read_text())
    assert "squeezed" in quality_command(together, "--report").stdout


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_a_training_out_of_time_goes_on_from_its_last_step(
    quality_command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind three of four steps: the fourth ends with the same bits."""
    options = ["--variants", "squeezed", "--seeds", "1", "--kimg", "0.128", "--every", "0.064"]
    assert quality_command(tmp_path / "whole", *options).exit_code == 0
    asked: List[None] = []

    class Clock:
        """Beyond every end from the fifth question on: one before the training, one before each step."""

        @staticmethod
        def time() -> float:
            asked.append(None)
            return float("inf") if len(asked) > 4 else 0.0

    with monkeypatch.context() as changed:
        changed.setattr("benchmarks.side_by_side.time", Clock)
        assert quality_command(tmp_path / "parts", *options, "--minutes", "60").exit_code == 0
    assert [len(curve) for curve in curves(tmp_path / "parts").values()] == [1]
    assert quality_command(tmp_path / "parts", *options).exit_code == 0
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_a_device_that_is_not_there(
    quality_command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "device_named", lambda _: device_named("cuda:99"))  # no machine has so many
    result = quality_command(tmp_path / "out", "--device", "cuda")
    assert result.exit_code == 2
    assert "device cuda:99 cannot be used" in result.stderr
    assert not (tmp_path / "out").exists()


def test_others_go_on_where_one_fails(capfd: pytest.CaptureFixture[str]) -> None:
    seen: Dict[int, int] = {}
    failed = SideBySide(fail_at_two, 2, float("inf")).run([1, 2, 3], lambda job, found: seen.update({job: found}))
    assert failed == [2]
    assert seen == {1: 10, 3: 30}
    assert "ValueError: two" in capfd.readouterr().err


def test_a_process_that_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """It has not said why."""
    assert SideBySide(killed_at_two, 2, float("inf")).run([1, 2, 3], lambda *_: None) == [2]
    assert capfd.readouterr().err == "2: its process was killed (-9): by hand, or for memory\n"


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_one_behind_the_other_goes_on_where_one_fails(
    quality_command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an error that is raised on purpose is a line."""

    def out_of_reach(_: Any) -> Any:
        raise PlanError("out of reach")

    monkeypatch.setitem(quality.KNOWN, "narrowed", out_of_reach)
    done = quality_command(tmp_path, "--variants", "narrowed,dense", "--seeds", "0", "--kimg", "0.032")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "narrowed seed 0: out of reach",
        "Error: 1 trainings failed; why stands above",
    ]
    assert list(curves(tmp_path)) == ["dense-seed0.json"]
    assert "narrowed left out: no training of it here has been evaluated" in done.stdout


def test_interrupt_lets_all_end() -> None:
    """Ctrl-C when both have begun; the third never does."""
    seen: List[str] = []

    def show(_: int, found: str) -> None:
        seen.append(found)
        if seen == ["begun", "begun"]:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    assert SideBySide(work_until_stopped, 2, float("inf")).run([1, 2, 3], show) == []
    assert seen == ["begun", "begun", "stopped", "stopped"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_interrupts() -> None:
    with until(float("inf")) as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_trainings_that_take_turns_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, running = torch.device("cuda"), ["", None, "python"]
    monkeypatch.setattr(
        "psutil.process_iter", lambda _attributes: [SimpleNamespace(info={"name": name}) for name in running]
    )
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    quality.tell_of_turns(gpu, 2)
    assert "nvidia-cuda-mps-control -d" in capsys.readouterr().out
    quality.tell_of_turns(gpu, 1)
    quality.tell_of_turns(torch.device("cpu"), 2)
    with monkeypatch.context() as patched:
        patched.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
        quality.tell_of_turns(gpu, 2)
    running.append("nvidia-cuda-mps-control")
    quality.tell_of_turns(gpu, 2)
    assert capsys.readouterr().out == ""
