"""squeeze-patch train in front of lucidrains' own command, stylegan2_pytorch: the real one, on a CPU."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch
from PIL import Image

import squeeze_patch
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.state_dicts import read_archive
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.testing import trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from squeeze_patch.training.common import RunStart
from squeeze_patch.training.lucidrains import PACKAGE, VARIABLE, LucidrainsScripts, hook_classes
from tests.hosts import HERE, package
from tests.hosts.lucidrains import LUCIDRAINS, NEEDED, LucidrainsHost
from tests.processes import environment_with, python

SIZE = 16
#: its command line, and what that is made with
COMMAND_LINE = ("fire", "termcolor")


def environment(gpus: int) -> Dict[str, str]:
    folders = [package(project) for project in (LUCIDRAINS, *NEEDED, *COMMAND_LINE)]
    path = os.pathsep.join([str(package(LUCIDRAINS) / "bin"), os.environ["PATH"]])
    return environment_with(HERE / "lucidrains_cpu", HERE / "bare", *folders, PATH=path, GPUS=str(gpus))


def start(cwd: Path, before: List[str], *options: str, gpus: int = 1) -> Any:
    fixed = ["--data=images", f"--image_size={SIZE}", "--network_capacity=4", "--batch_size=2", "--num_workers=0"]
    fixed += ["--gradient_accumulate_every=1", "--save_every=3", "--num_image_tiles=2"]
    return python(*before, *fixed, *options, cwd=cwd, env=environment(gpus))


def train(cwd: Path, wish: List[str], *options: str, gpus: int = 1) -> str:
    before = ["-m", "squeeze_patch", "train", *wish, "--", "stylegan2_pytorch"]
    done = start(cwd, before, *options, gpus=gpus)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def state(path: Path) -> Dict[str, torch.Tensor]:
    found: Dict[str, torch.Tensor] = load_tensors(path)["GAN"]
    return found


def same(a: Dict[str, torch.Tensor], b: Dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for n in range(4):
        pixels = random.integers(0, 256, [SIZE, SIZE, 3], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    return tmp_path


def test_from_scratch_and_resumed(workspace: Path) -> None:
    said = train(workspace, ["--ratio", "2"], "--name=first", "--num_train_steps=3")
    assert "squeeze_patch: squeezed: 3 of 3 blocks" in said
    last = workspace / "models" / "first" / "model_1.pt"
    found = read_archive(last, trust=False)
    for name in ("GAN.GE", "GAN.G"):
        plan = squeeze_patch.status(found[name]).plan
        assert plan is not None
        assert plan.same_widths(squeeze_patch.plan(found[name], ratio=2))
    before = state(last)

    if os.environ.get("SQUEEZE_SLOW"):
        train(workspace, [], "--name=first", "--num_train_steps=3")  # nothing left to do
        assert same(state(last), before)

    said = train(workspace, [], "--name=first", "--num_train_steps=6")
    assert "model_1.pt is squeezed already; training goes on with its plan" in said
    assert f"restored {len(before)} of {len(before)} parameters and buffers" in said
    after = state(workspace / "models" / "first" / "model_2.pt")
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    moved = [name for name in after if name.startswith("G.") and not torch.equal(after[name], before[name])]
    parameters = [name for name, _ in found["GAN.G"]["G"].named_parameters()]
    assert {f"G.{name}" for name in parameters} <= set(moved)  # every one learns


def test_a_wish_that_is_out_of_reach(workspace: Path) -> None:
    """Is told before the command makes folders, and before --new deletes an earlier run's models; where it cannot be
    told, by what is left."""
    before = ["-m", "squeeze_patch", "train", "--reduction=0.99", "--", "stylegan2_pytorch"]
    earlier = workspace / "models" / "mine" / "model_0.pt"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"an earlier run's")
    done = start(workspace, before, "--name=mine", "--new")
    assert (done.returncode, "is out of reach" in done.stderr) == (2, True), done.stderr
    assert earlier.read_bytes() == b"an earlier run's"
    assert sorted(path.name for path in workspace.iterdir()) == ["images", "models"]
    done = start(workspace, before, "--name=other", "--fmap_max=256")
    assert (done.returncode, "is out of reach" in done.stderr) == (2, True), done.stderr
    left = f"{Path('results', 'other')} and {Path('models', 'other')}, which the script made, stays\n"
    assert done.stderr.endswith(f"Nothing was trained; {left}")


def narrowed_file(lucidrains: LucidrainsHost, path: Path) -> Tuple[Dict[str, torch.Tensor], squeeze_patch.Plan]:
    """A model that is partly narrowed, of the size that the tests train: its state, and its Plan."""
    gan = trained(lucidrains.wrapper(resolution=SIZE))
    squeeze_patch.apply(gan, plan=plan_of_kind(torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE}), "mixed"))
    plan = squeeze_patch.status(gan).plan
    assert plan is not None
    torch.save({"GAN": gan.state_dict(), "version": "1.9.0", "squeeze_plan": plan.to_dict()}, path)
    return gan.state_dict(), plan


def test_a_narrowed_model_is_resumed_and_saved(
    lucidrains: LucidrainsHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its Plan, which shapes do not tell; by the Trainer's own load and save, in this process."""
    import stylegan2_pytorch.stylegan2_pytorch as networks

    class Trainer(networks.Trainer):  # type: ignore[misc]
        def __init__(self, gan: torch.nn.Module) -> None:
            self.GAN, self.save_every, self.models_dir = gan, 1, tmp_path

        def model_name(self, number: int) -> str:
            return str(tmp_path / f"model_{number}.pt")

        def load_config(self) -> None:
            pass

        write_config = load_config

    weights, plan = narrowed_file(lucidrains, tmp_path / "model_0.pt")
    job = {"request": {"plan": plan.to_dict()}, "checkpoint": str(tmp_path / "model_0.pt"), "resume": True}
    monkeypatch.setenv(VARIABLE, json.dumps(job))
    for cls, names in ((networks.StyleGAN2, ("__init__",)), (networks.Trainer, ("load", "save"))):
        for name in names:  # so that the hooks are gone afterwards
            monkeypatch.setattr(cls, name, getattr(cls, name))
    monkeypatch.setattr(networks.StyleGAN2, "squeeze_patch", False, raising=False)
    hook_classes()
    trainer = Trainer(lucidrains.wrapper(resolution=SIZE))
    trainer.load(0)
    assert same(trainer.GAN.state_dict(), weights)
    trainer.save(1)
    assert same(state(tmp_path / "model_1.pt"), weights)
    archive = read_archive(tmp_path / "model_1.pt", trust=False)
    for name in ("GAN.GE", "GAN.G"):
        found = squeeze_patch.status(archive[name])
        assert (found.state, found.plan) == ("squeezed", plan)
        assert found.plan is not None
        assert found.plan.same_channels(plan)
    trainer.load(1)  # as after a diverged step


def test_the_dense_rival(lucidrains: LucidrainsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it is, with the model that it would go on from looked at first."""
    for folder in (HERE / "bare", *(package(project) for project in COMMAND_LINE)):
        monkeypatch.syspath_prepend(str(folder))
    host, command_line = (importlib.import_module(name) for name in (PACKAGE, f"{PACKAGE}.cli"))
    called: List[Any] = []

    def command(name: str = "mine", new: bool = False, load_from: int = -1, models_dir: str = "models") -> None:
        called.append((name, command_line.run_training.__module__))

    monkeypatch.setattr(command_line, "train_from_folder", command)
    monkeypatch.setattr(host, "main", None, raising=False)
    asked: List[Any] = []
    assert LucidrainsScripts().hook_training(host, lambda path: asked.append(path) or RunStart(None, path))
    assert host.main is command_line.main
    command_line.train_from_folder(load_from=7)
    assert asked == [str(Path("models") / "mine" / "model_7.pt")]
    assert called == [("mine", command_line.__name__)]


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="a minute; SQUEEZE_SLOW=1 runs it")
def test_from_a_dense_model_and_from_a_file(workspace: Path) -> None:
    """A dense model is squeezed where it stands; another run begins with a file."""
    train(workspace, ["--dense"], "--name=mine", "--num_train_steps=1")
    dense, squeezed = workspace / "models" / "mine" / "model_0.pt", workspace / "squeezed.pt"
    convert(dense, squeezed, ratio=2)
    original = dense.read_bytes()
    said = train(workspace, ["--ratio", "2"], "--name=mine", "--num_train_steps=0")
    assert f"{dense.relative_to(workspace)} is dense; squeezing its generators" in said
    assert same(state(dense), state(squeezed))
    kept = dense.with_name("dense_model_0.pt")
    assert kept.read_bytes() == original
    kept.write_bytes(b"another")
    dense.write_bytes(original)
    before = ["-m", "squeeze_patch", "train", "--ratio=2", "--", "stylegan2_pytorch", "--num_train_steps=0"]
    done = start(workspace, before, "--name=mine")
    assert done.returncode == 2
    assert "move it away" in done.stderr
    assert (dense.read_bytes(), kept.read_bytes()) == (original, b"another")

    from_file = ["--init-from", "squeezed.pt"]
    assert "restored" in train(workspace, from_file, "--name=other", "--num_train_steps=0")
    assert same(state(workspace / "models" / "other" / "model_0.pt"), state(squeezed))

    # the last model of a run is written by all of its processes at once, which is the host's; so it is not read here
    said = train(workspace, from_file, "--name=two", "--num_train_steps=1", "--multi_gpus", gpus=2)
    assert said.count(f"restored {len(state(squeezed))} of {len(state(squeezed))} parameters and buffers") == 2

    before = ["-m", "squeeze_patch", "train", *from_file, "--", "stylegan2_pytorch", "--num_train_steps=0"]
    done = start(workspace, before, "--name=other")  # which has a model by now
    assert done.returncode == 2
    assert "give one of them" in done.stderr
    done = start(workspace, before, "--name=larger", "--network_capacity=8")
    assert done.returncode == 2
    assert "the plan does not fit this generator" in done.stderr
    assert not (workspace / "models" / "larger" / "model_0.pt").exists()

    before = ["-m", "squeeze_patch", "train", "--ratio=0.5", "--", "stylegan2_pytorch", "--new"]
    done = start(workspace, before, "--name=mine")  # --new deletes the models of that name
    assert done.returncode == 2
    assert "ratio is c / q" in done.stderr
    assert dense.read_bytes() == original
