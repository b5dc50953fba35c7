"""Every benchmark is on the list, and runs in miniature; those that are not here have tests of their own."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import conversion, distillation, fidelity, quality, step
from benchmarks.__main__ import ENTRIES, main
from benchmarks.data import Data
from benchmarks.quality import settings_of
from tests.hosts import Host
from tests.hosts.training import need_second_derivatives

MODULES = sorted(path.stem for path in Path(step.__file__).parent.glob("*.py") if path.stem != "__main__")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_list_is_complete() -> None:
    commands = [name for name in MODULES if hasattr(importlib.import_module(f"benchmarks.{name}"), "main")]
    assert sorted(ENTRIES) == commands
    lines = run().splitlines()
    for name, entry in ENTRIES.items():
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert line.split() == [name, *entry.takes.split(), *entry.measures.split(), *f"[{entry.figures}]".split()]


def test_latency() -> None:
    header, _, line = run("latency", "--sizes", "tiny", "--batches", "1", "--repeats", "2").splitlines()
    assert header.startswith("squeezed / dense at ratio 1.5")
    assert line.split()[:2] == ["tiny", "1"]


def test_proof() -> None:
    _, header, line = run("proof", "--sizes", "tiny").splitlines()
    assert header.split()[:5] == ["size", "proof", "calibrated", "weights", "random"]
    assert line.split()[0] == "tiny"


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_a_training_step(draggan: Host) -> None:
    need_second_derivatives(draggan)
    found = json.loads(run("step", "--sizes", "tiny", "--batch", "2", "--repeats", "2").splitlines()[-1])["tiny"]
    assert found["seconds, dense"] > 0
    assert all(0 < found[phase]["lower"] <= found[phase]["median"] for phase in (*step.PHASES, "whole step"))


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_memory_of_a_training_step(draggan: Host) -> None:
    need_second_derivatives(draggan)
    assert int(run("step", "--sizes", "tiny", "--batch", "2", "--peak-of", "squeezed")) >= 0


def test_conversion(draggan: Host, tmp_path: Path) -> None:
    """Its two jobs, which it times in processes of their own."""
    conversion.write_checkpoint(draggan, "tiny", tmp_path / "dense.pkl")
    for job in ("convert", "load and save"):
        done = json.loads(run("conversion", "--job", job, "--folder", str(tmp_path)))
        assert set(done) == {"seconds", "bytes"}
        assert (tmp_path / f"{job}.pkl").is_file()


def test_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: fidelity.STARTS[name] for name in ("by weight norm", "random")}
    monkeypatch.setattr(fidelity, "STARTS", quick)
    lines = run("fidelity", "--ratios", "2", "--seeds", "1").splitlines()
    by_norm, by_chance, mean_image = (float(line.split(")")[0].split("(")[0].split()[-1]) for line in lines[-3:])
    assert by_norm > mean_image > by_chance


def test_recovery() -> None:
    line = run("recovery", "--steps", "1", "--batch", "2").splitlines()[-2]
    before, after = (float(figure) for figure in line.split(": ")[1].split(" dB ")[0].split(" -> "))
    assert after >= before > 20


def test_distillation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are kept; the second run computes none."""
    pytest.importorskip("torch.utils.flop_counter", reason="torch before 2.1 does not count")
    monkeypatch.setattr(distillation, "SAMPLES", 64)
    options = ["--out", str(tmp_path), "--steps", "0,1", "--rows", "2", "--reductions", "0.25", "--seeds", "1"]
    assert "squeezed, random | 0.25 | 1 | 0:" in run("distillation", *options)
    assert (tmp_path / "distillation-demo.png").is_file()
    assert " | " not in run("distillation", *options)


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_training_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step, on noise in place of the digits."""
    noise = Data(torch.rand([64, 1, 16, 16]) * 2 - 1, torch.arange(64) % 2, 2)
    monkeypatch.setattr(quality, "load", lambda *_: noise)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda _: True)  # would stay so for other tests
    monkeypatch.setattr(quality, "settings_of", lambda **given: replace(settings_of(**given), samples=64))
    options = ["--variants", "squeezed", "--seeds", "0", "--kimg", "0.032", "--every", "0.032"]
    assert "squeezed seed 0: 0.032 kimg" in run("quality", "--out", str(tmp_path), *options)
    assert {path.name for path in tmp_path.iterdir()} >= {"squeezed-seed0.pt", "curves.json", "curves.png"}
    assert " seed 0:" not in run("quality", "--out", str(tmp_path), "--report", *options)
