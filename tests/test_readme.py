"""Every code block of the README, executed."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.io import read
from squeeze_patch.planning.cost import report
from squeeze_patch.testing import float_error, trained
from tests.helpers import GENERATE_SCRIPT, script_environment
from tests.hosts import HERE, Host
from tests.hosts.flat import FlatHost

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: Dict[str, str] = dict(re.findall(r"<!-- run: (\w+) -->\n```\w+\n(.*?)```", TEXT, flags=re.DOTALL))


@pytest.fixture
def workspace(draggan: Host, tmp_path: Path) -> Path:
    """A folder with a checkpoint and a host's checkout, as the README assumes them."""
    data = {name: trained(draggan.generator()).requires_grad_(False) for name in ("G", "G_ema")}
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(data))
    (tmp_path / "stylegan2-ada-pytorch").symlink_to(draggan.folder)
    return tmp_path


def test_every_block_has_a_test() -> None:
    assert len(re.findall(r"^```\w", TEXT, flags=re.MULTILINE)) == len(BLOCKS)
    assert set(BLOCKS) == {
        "demo",
        "tests",
        "convert",
        "recover",
        "measure",
        "train",
        "rosinality",
        "exchange",
        "load",
        "edit",
        "apply",
        "export",
        "contract",
    }


def test_demo_block_in_a_fresh_clone(tmp_path: Path) -> None:
    """Sets up a virtual environment and runs the demo, exactly as written."""
    ignored = shutil.ignore_patterns(".venv", "packages", ".git", "*.egg-info", "build", "squeeze-demo")
    shutil.copytree(ROOT, tmp_path / "clone", ignore=ignored)
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["demo"]],
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "picture     squeeze-demo/samples.png" in done.stdout
    assert (tmp_path / "clone" / "squeeze-demo" / "samples.png").is_file()


def test_tests_block_is_what_ci_runs() -> None:
    """Running it here would run this test again; .ci/run takes it from the README."""
    assert "run: tests" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert BLOCKS["tests"].strip().endswith(".venv/bin/python -m pytest")


def test_convert_block(workspace: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["convert"]], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "G_ema: SqueezedGenerator, squeezed: 4 of 4 blocks" in done.stdout


def test_exchange_block(workspace: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["exchange"]], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there, back = (pickle.loads((workspace / name).read_bytes())["G_ema"] for name in ("network.pkl", "again.pkl"))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in there.state_dict().items())


def test_recover_block(workspace: Path) -> None:
    convert(workspace / "network.pkl", workspace / "squeezed.pkl", trust=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["recover"]],
        cwd=workspace,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "written     recovered.pkl" in done.stdout
    assert squeeze_patch.status(read(workspace / "recovered.pkl", trust=True)["G_ema"]).state == "squeezed"
    log = (workspace / "recovered.jsonl").read_text().splitlines()
    assert len(log) == 2  # of the start and of the end


def test_measure_block(workspace: Path) -> None:
    convert(workspace / "network.pkl", workspace / "squeezed.pkl", trust=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["measure"]], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "PSNR" in done.stdout
    assert "The squeezed generator is" in done.stdout
    assert (workspace / "side_by_side.png").is_file()


def test_train_block(draggan: Host, tmp_path: Path) -> None:
    shutil.copy(HERE / "mini_train.py", tmp_path / "train.py")
    environment = draggan.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["train"]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    snapshot = read(next((tmp_path / "runs").glob("*/*.pkl")), trust=True)
    assert squeeze_patch.status(snapshot["G_ema"]).state == "squeezed"


def test_rosinality_block(rosinality: FlatHost, tmp_path: Path) -> None:
    from stylegan2.model import Generator  # draggan's copy

    (tmp_path / "generate.py").write_text(GENERATE_SCRIPT)
    (tmp_path / "model.py").write_text("from stylegan2.model import Generator\n")
    torch.save({"g_ema": trained(Generator(8, 64, 2)).state_dict()}, tmp_path / "550000.pt")
    environment = script_environment(rosinality)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", BLOCKS["rosinality"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "12.1" in done.stdout
    assert (tmp_path / "out.pt").is_file()


def test_load_block(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(size: int, style_dim: int, n_mlp: int) -> Any:
        return rosinality.generator(size, w_dim=style_dim, layers=n_mlp)

    torch.save({"g_ema": squeeze_patch.apply(narrow(256, 512, 8), ratio=2).state_dict()}, tmp_path / "squeezed.pt")
    model = ModuleType("model")
    model.Generator = narrow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model", model)
    monkeypatch.chdir(tmp_path)
    namespace: Dict[str, Any] = {}
    exec(BLOCKS["load"], namespace)
    assert squeeze_patch.status(namespace["g_ema"]).state == "squeezed"


def test_edit_block(draggan: Host) -> None:
    G = draggan.generator()
    exec(BLOCKS["edit"], {"G": G})
    assert squeeze_patch.status(G).state == "squeezed"


def test_apply_block(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(workspace)
    namespace: Dict[str, Any] = {}
    exec(BLOCKS["apply"], namespace)
    out = capsys.readouterr().out
    assert out.startswith("squeezed: 4 of 4 blocks")
    assert squeeze_patch.status(namespace["G"]).state == "dense"


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="the exporter is of torch 2")
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_export_block(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    G = trained(draggan.generator(resolution=8)).requires_grad_(False)
    exec(BLOCKS["export"], {"G": G})
    session = onnxruntime.InferenceSession("squeezed.onnx", providers=["CPUExecutionProvider"])
    z, c = draggan.latents(G, n=5)
    (images,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    expected = draggan.images(G, z, c)
    assert squeeze_patch.status(G).state == "squeezed"
    assert (torch.from_numpy(images) - expected).abs().max() <= float_error(G, expected)


def test_contract_block(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    my_host = ModuleType("my_host")
    my_host.Generator = draggan.generator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_host", my_host)
    namespace: Dict[str, Any] = {"__name__": "test_my_family"}
    exec(BLOCKS["contract"], namespace)
    suite = namespace["TestMyFamily"]()
    suite.test_it_is_found()
    suite.test_ratio_1_changes_no_image("weights")
    suite.family = "another"
    with pytest.raises(AssertionError):
        suite.test_it_is_found()


def test_figures_of_the_table(draggan: Host) -> None:
    """The exact figures; timings are printed by the benchmarks that the table names."""
    G = draggan.generator(256, w_dim=512, layers=8, channel_base=16384, channel_max=512)
    plan = squeeze_patch.plan(G)
    assert f"| {plan.parameters_before:,} | {plan.parameters_after:,} ({plan.reduction:.1%}".replace("%", " %") in TEXT
    cost = report(locate(G), plan)
    assert (
        f"| multiply-adds, 256x256, default | 1 | {cost.multiply_adds_after / cost.multiply_adds_before:.2f} |" in TEXT
    )
