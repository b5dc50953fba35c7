"""Every benchmark is on the list, and runs in miniature; those that are not here have tests of their own."""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import List

import pytest
import torch
from click.testing import CliRunner

from benchmarks import conversion, distillation, fidelity, kernels, latency, onnx, quality, step, ways
from benchmarks.__main__ import ENTRIES, main
from benchmarks.common import generators
from benchmarks.data import Data
from benchmarks.quality import settings_of
from squeeze_patch.adapters.nvidia import fused_layers
from squeeze_patch.testing import float_error
from tests.fused import count
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


def test_errors_of_files_are_lines(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, ["quality", "--out", str(tmp_path / "file" / "folder")])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "Not a directory" in done.output


def test_latency(tmp_path: Path) -> None:
    """Fused ones and the same kernels make the images of the others; what cannot be captured is left out, with why."""
    target = tmp_path / "figures.json"
    options = ["--sizes", "tiny", "--batches", "2", "--repeats", "2", "--threads", "1", "--processor-time", "--graphs"]
    header, title, _, *lines = run("latency", *options, "--json", str(target)).splitlines()
    assert header.startswith("ratio 1.5, processor time")
    assert title.startswith("tiny, batch 2, float32; dense is fastest with ")
    (result,) = json.loads(target.read_text())["results"]
    rows = {(row["generator"], row["called"]): row for row in result["rows"]}
    flags = [(name, flag) for name in ("dense", "squeezed") for flag in latency.FLAGS]
    assert set(rows) == {*flags, ("same kernels", "default"), ("fused", "default")}
    # float32 with room: of 4 layers that sum 9 x 16 products
    assert all(row["difference"] < 1e-5 for row in rows.values())
    assert min(row["difference"] for (name, _), row in rows.items() if name in ("same kernels", "fused")) > 0
    assert rows["dense", result["best"]]["to best"] == {"median": 1, "lower": 1, "upper": 1}
    assert rows["fused", "default"]["to the same"]["median"] > 0
    if not torch.cuda.is_available():
        graphs = ["graph", "graph, fused", "graph, unfused"]
        assert [row["called"] for row in result["skipped"]] == [*graphs, *graphs, "graph", "graph"]
        assert " left out: " in lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "mixed"], "on a CPU the hosts compute in float32"),
        (["--processor-time"], "add --threads 1"),
        (["--processor-time", "--threads", "1", "--device", "cuda"], "one CPU thread|sees no GPU"),
    ],
)
def test_what_latency_cannot_measure(options: List[str], words: str) -> None:
    done = CliRunner().invoke(main, ["latency", *options])
    assert done.exit_code == 2
    assert re.search(words, done.output)


def test_networks_of_every_dtype(draggan: Host) -> None:
    """As many blocks in float16 as it says, of each generator alike."""
    counts = {
        dtype: [
            sum(getattr(module, "use_fp16", False) for module in G.modules())
            for G in generators(draggan, "tiny", **options).values()
        ]
        for dtype, options in latency.DTYPES.items()
    }
    assert counts == {"float32": [0] * 3, "mixed": [2] * 3, "float16": [2] * 3}


def test_the_same_kernels_run(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution of the dense generator by `fused_layer`, none by the host's layers."""
    layers = count(monkeypatch, fused_layers, "fused_layer")
    dense = generators(draggan, "tiny")["dense"]
    G = kernels.with_same_kernels(dense)
    ws = torch.randn(1, G.num_ws, 512)
    with torch.no_grad():
        images, expected = (network.synthesis(ws, noise_mode="const") for network in (G, dense))
    assert len(layers) == 2 * 3 - 1  # 4x4 has one
    assert (images - expected).abs().max() <= float_error(dense, expected)
    assert [x.shape for x in G.parameters()] == [x.shape for x in dense.parameters()]


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch.compile came with torch 2.0")
def test_compiled() -> None:
    layer = torch.nn.Linear(3, 2).requires_grad_(False)
    x = torch.randn(4, 3)
    assert torch.allclose(ways.compiled(layer, "eager")(x), layer(x))


@pytest.mark.skipif(
    torch.__version__ < "2.9", reason="the exporter that is tested is the default from torch 2.9 onwards"
)
@pytest.mark.filterwarnings("ignore")
def test_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fused generator alone, each export takes seconds."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx, "generators", lambda *_: {"dense": generators(*_)["fused"]})
    options = ["--sizes", "tiny", "--repeats", "2", "--threads", "1", "--processor-time"]
    figures = json.loads(run("onnx", *options).splitlines()[-1])["tiny"]["dense"]
    assert figures["bytes"] > 4 * 64 * 512  # a mapping layer's weights, say
    assert figures["difference"] < 1e-5
    assert figures["milliseconds"]["median"] > 0


def test_proof() -> None:
    _, header, line = run("proof", "--sizes", "tiny").splitlines()
    assert header.split()[:5] == ["size", "proof", "calibrated", "weights", "random"]
    assert line.split()[0] == "tiny"


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_a_training_step(draggan: Host) -> None:
    need_second_derivatives(draggan)
    options = ["--sizes", "tiny", "--batch", "2", "--threads", "1", "--processor-time"]
    found = json.loads(run("step", *options, "--repeats", "2").splitlines()[-1])["tiny"]
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
    options = ["--out", str(tmp_path), "--steps", "0,1", "--rows", "11", "--reductions", "0.25", "--seeds", "1"]
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
