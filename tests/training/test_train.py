"""squeeze-patch train: from scratch, on two processes, resumed from squeezed and from dense."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch
from PIL import Image

import squeeze_patch
from squeeze_patch.adapters.records import Record
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.io import read
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.testing import trained
from squeeze_patch.training import nvidia, train
from tests.helpers import HOSTS, SMALL
from tests.hosts import HERE, SHIMS, Host
from tests.processes import environment_with, python, several


def command(host: Host, cwd: Path, *arguments: str, cpu: bool = False) -> Any:
    shims = [HERE / "cpu", HERE / "bare"] if cpu else []
    return python(*arguments, cwd=cwd, env=environment_with(host.folder, *shims, *SHIMS))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copy(HERE / "mini_train.py", tmp_path / "train.py")
    return tmp_path


def squeezed_train(host: Host, cwd: Path, options: List[str], *arguments: str, cpu: bool = False) -> str:
    done = command(host, cwd, "-m", "squeeze_patch", "train", *options, "--", "train.py", *arguments, cpu=cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snapshot(folder: Path) -> Dict[str, Any]:
    return read(next(folder.glob("*/network-snapshot*.pkl")), trust=True)


ONE = "from one process to one is docs/training.md, and from scratch on two the README; SQUEEZE_SLOW=1 runs all"


def processes(*gpus: int, slow: bool = True) -> Any:
    return pytest.param(*gpus, marks=pytest.mark.skipif(slow and not os.environ.get("SQUEEZE_SLOW"), reason=ONE))


@pytest.mark.parametrize(("gpus", "later"), [processes(1, 2, slow=False), processes(1, 1), processes(2, 2)])
def test_from_scratch_and_resumed(draggan: Host, workspace: Path, gpus: int, later: int) -> None:
    squeezed_train(draggan, workspace, ["--ratio", "2"], "--outdir=first", f"--gpus={gpus}")
    first = snapshot(workspace / "first")
    for name in ("G", "G_ema"):
        status = squeeze_patch.status(first[name])
        assert status.state == "squeezed"
        assert status.plan is not None
        assert status.plan.ratio == 2
    pickled = next((workspace / "first").glob("*/*.pkl"))

    out = squeezed_train(
        draggan, workspace, [], "--outdir=second", f"--gpus={later}", "--steps=0", f"--resume={pickled}"
    )
    assert "is squeezed already; training goes on with its plan" in out
    second = snapshot(workspace / "second")
    for name in ("G", "D", "G_ema"):
        before, after = first[name].state_dict(), second[name].state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[key], after[key]) for key in before)
    tensors = len([*first["G"].parameters(), *first["G"].buffers()])
    assert out.count(f"restored {tensors} of {tensors} parameters and buffers") == 2  # G and G_ema


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="a minute; SQUEEZE_SLOW=1 runs it")
def test_a_narrowed_one_from_scratch_and_resumed(draggan: Host, workspace: Path) -> None:
    squeezed_train(draggan, workspace, ["--method", "narrow", "--ratio", "2"], "--outdir=first")
    first = snapshot(workspace / "first")["G_ema"]
    plan = squeeze_patch.status(first).plan
    assert plan is not None
    assert plan.method == "narrow"
    assert all(block.inner == block.width for block in plan.blocks)
    pickled = next((workspace / "first").glob("*/*.pkl"))
    squeezed_train(draggan, workspace, [], "--outdir=second", "--steps=0", f"--resume={pickled}")
    second = snapshot(workspace / "second")["G_ema"]
    assert squeeze_patch.status(second).plan == plan
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_the_dense_rival(draggan: Host, workspace: Path) -> None:
    """Trained by the same word, under what a current torch needs; its folder has the host's own name."""
    squeezed_train(draggan, workspace, ["--dense"], "--outdir=dense")
    assert squeeze_patch.status(snapshot(workspace / "dense")["G_ema"]).state == "dense"
    assert not list((workspace / "dense").glob("*-squeezed"))


def test_dense_snapshots_are_squeezed_on_resume(draggan: Host, workspace: Path) -> None:
    sizes = {"resolution": 8, "w_dim": 16, "channel_base": 256}
    data = {"G": trained(draggan.generator(**sizes), 1), "G_ema": trained(draggan.generator(**sizes), 2)}
    data["D"] = draggan.discriminator(8, channel_base=256)
    dense = workspace / "dense.pkl"
    dense.write_bytes(pickle.dumps(data))
    content = dense.read_bytes()
    for option in ([f"--init-from={dense}"], []):
        resume = [] if option else [f"--resume={dense}"]
        folder = f"out{len(resume)}"
        out = squeezed_train(draggan, workspace, [*option, "--ratio", "2"], f"--outdir={folder}", "--steps=0", *resume)
        assert "squeezed from the trained weights" in out
        assert re.search(rf"^squeeze_patch: squeezed: .*; begins with {re.escape(str(dense))}$", out, re.MULTILINE)
        expected = read(dense, trust=True)
        result = snapshot(workspace / folder)
        assert torch.equal(expected["D"].b4.fc.weight, result["D"].b4.fc.weight)
        squeeze_patch.apply(expected["G_ema"], ratio=2)
        for key, value in expected["G_ema"].state_dict().items():
            assert torch.equal(value, result["G_ema"].state_dict()[key]), key
        for name in ("G", "G_ema"):  # which channels these weights are of, for --like and kept_channels
            plan, begun = squeeze_patch.status(result[name]).plan, squeeze_patch.status(expected["G_ema"]).plan
            assert plan is not None
            assert begun is not None
            assert plan.fingerprint == begun.fingerprint != ""
    assert dense.read_bytes() == content


def test_channels_go_to_processes_past_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts print their options, a number a line, and write them into the run's folder."""
    monkeypatch.setenv(nvidia.KEPT_VARIABLE, "[{}, {}]")
    plan = Plan("nvidia", (BlockPlan("b4", 4, 4, 2, kept=(1, 3), inner=3, kept_inner=(0, 1, 2)),), 100, 80)
    options = nvidia._hand_on(Request(plan=plan))
    assert "kept" not in str(options)
    assert nvidia._handed_on(json.loads(json.dumps(options))) == Request(plan=plan).to_dict()
    later = nvidia._hand_on(Request(ratio=2))  # the plan of an earlier run in this process is none of it
    assert nvidia._handed_on(later) == Request(ratio=2).to_dict()
    assert nvidia.KEPT_VARIABLE not in os.environ


@pytest.mark.parametrize("squeezed", [False, True], ids=["dense", "squeezed"])
def test_nothing_of_the_file_to_begin_with_is_run(draggan: Host, workspace: Path, squeezed: bool) -> None:
    """Its sources stay its own, also where its discriminator or its augmentation brings them; the tensors arrive."""
    sizes = {"resolution": 8, "w_dim": 16, "channel_base": 256}
    data: Dict[str, Any] = {name: trained(draggan.generator(**sizes), seed) for seed, name in enumerate(("G", "G_ema"))}
    if squeezed:
        for G in data.values():
            squeeze_patch.apply(G, ratio=2, init="weights", keep_original=False)
    data["D"] = draggan.discriminator(8, channel_base=256)
    data["augment_pipe"] = draggan.discriminator(8)
    first, mark = workspace / "first.pkl", workspace / "mark"
    first.write_bytes(pickle.dumps(data))
    entries = read(first, trust=False).entries()
    for name, value in entries.items():
        source = f"open({str(mark)!r}, 'w').close()\n{value.source}"
        entries[name] = Record(value.rebuild, {**value.meta, "module_src": source})
    with open(workspace / "sprung.pkl", "wb") as stream:
        dump(entries, stream, 4)

    begin = ["--init-from=sprung.pkl", *([] if squeezed else ["--ratio=2"])]
    out = squeezed_train(draggan, workspace, begin, "--outdir=out", "--steps=0")
    assert not mark.exists()
    assert out.count("parameters and buffers of a squeezed generator") == 2
    result = snapshot(workspace / "out")
    expected = data["D"].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in result["D"].state_dict().items())
    if squeezed:
        plan = squeeze_patch.status(result["G_ema"]).plan
        assert plan is not None
        assert not plan.kept  # G and G_ema were squeezed apart, so no record would be true of both
        expected = data["G_ema"].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in result["G_ema"].state_dict().items())
        squeezed_train(draggan, workspace, [*begin, "--trust"], "--outdir=trusted", "--steps=0")
        assert mark.exists()


def test_a_file_without_a_discriminator_to_begin_with(draggan: Host, workspace: Path) -> None:
    G = trained(draggan.generator(resolution=8, w_dim=16, channel_base=256))
    (workspace / "only.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    out = squeezed_train(draggan, workspace, ["--init-from=only.pkl", "--ratio=2"], "--outdir=out", "--steps=0")
    assert "there is no D in the file; it starts untrained" in out
    assert "there is no G in the file; it starts as the file's other generator" in out
    result = snapshot(workspace / "out")
    assert torch.equal(result["G"].mapping.fc0.weight, G.mapping.fc0.weight)


SECRET = "http://user:hunter2@host/b.pkl?token=hunter2"
NEW = ["--", "train.py", "--outdir=x"]
ERRORS = (
    (["--", "nothing.py"], "no such script"),
    (["--", "other.py"], "no adapter knows"),
    (
        ["--init-from=a.pkl", *NEW, f"--resume={SECRET}"],
        "http://***@host/b.pkl?token=*** (the script's own) another; give one of them",
    ),
    (
        ["--init-from=ftp://user:hunter2@host/b.pkl", *NEW],
        "ftp://***@host/b.pkl: only http:// and https:// addresses are read",
    ),
    (["--trust", *NEW], "--trust says that the file of --init-from"),
    ([*NEW, "--resume=b.pkl"], "no such file"),
    (["--init-from=b.pkl", *NEW], "b.pkl: there is no such file\n"),  # no word of --trust, which would not help
    (["--ratio=0.2", *NEW], "ratio is c / q"),
    (["--init-from=states.pt", *NEW], "goes on from pickles of whole networks"),
    (["--ratio=3", *NEW, "--resume=squeezed.pkl"], "--budget and --method out to go on with it, or start from a dense"),
    (["--dense", *NEW, "--resume=squeezed.pkl"], "squeezed.pkl is squeezed, and --dense trains dense generators"),
    ([*NEW, "--resume=large.pkl"], "large.pkl does not go with what the script builds: the plan does not fit"),
    (["--reduction=0.99", *NEW], "a reduction of 99.0% is out of reach"),  # before the script makes its folder
    (
        ["--", "old.py"],
        "old.py needs the module pkg_resources: setuptools has it no longer, from 81 on: pip install 's",
    ),
    (
        ["--", "stops.py"],
        "stops.py, the host's script, stopped: dense or squeezed, it wants CUDA, which is missing here, in part or as "
        "a whole; convert, info, plan, compare, report and recover do without. Its own words: OSError: CUDA_HOME is no",
    ),
    (
        ["--", "fails.py"],
        "fails.py, the host's script, stopped. Its own words: KeyError: 'cfg None' (--debug shows where)",
    ),
    (["--dense", "--ratio=2", "--", "train.py"], "--dense trains the host's own generator: leave --reduction, --ratio"),
)


def test_errors(draggan: Host, workspace: Path) -> None:
    """One line each, and nothing is trained."""
    (workspace / "other.py").write_text("def main(): pass\n")
    (workspace / "old.py").write_text("raise ModuleNotFoundError(name='pkg_resources')\n")
    (workspace / "stops.py").write_text("raise OSError('CUDA_HOME is not set')\n")
    # click takes __main__'s package for the script's name
    package = "__import__('sys').modules['__main__'].__package__"
    fails = f"def launch_training(c, desc, outdir, dry_run): pass\ndef main(): raise KeyError('cfg %s' % {package})\n"
    (workspace / "fails.py").write_text(fails)
    torch.save(trained(draggan.generator()).state_dict(), workspace / "states.pt")
    data = {name: squeeze_patch.apply(draggan.generator(**SMALL), ratio=2, init="random") for name in ("G", "G_ema")}
    (workspace / "squeezed.pkl").write_bytes(pickle.dumps(data))
    large = squeeze_patch.apply(draggan.generator(**{**SMALL, "resolution": 32}), ratio=2, init="random")
    (workspace / "large.pkl").write_bytes(pickle.dumps({"G": large, "G_ema": large}))
    commands = [["train", *arguments] for arguments, _ in ERRORS]
    found = several(*commands, cwd=workspace, env=environment_with(draggan.folder, *SHIMS))
    for (code, out, err), (arguments, words) in zip(found, ERRORS):
        assert (code, words in err) == (2, True), (arguments, out, err)
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
    assert not (workspace / "x").exists()


def test_options_of_other_commands_are_not_named(tmp_path: Path) -> None:
    """The host is where the script is: train has no --host."""
    torch.save({"G": Fraction(1, 2)}, tmp_path / "states.pt")
    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"G": Fraction(1, 2)}))
    for path in tmp_path.iterdir():
        with pytest.raises(squeeze_patch.CheckpointError, match=r"say so with --trust[.:] .*unless it is") as error:
            train._read(path, trust=False)
        assert "host" not in str(error.value)


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_wish_that_only_the_training_loop_refuses(draggan: Host, workspace: Path, gpus: int) -> None:
    """Of a script that says nothing of its data beforehand: what is left of the run is named."""
    script = workspace / "train.py"
    text = script.read_text()
    assert "options.training_set_kwargs" in text
    script.write_text(text.replace("training_set_kwargs", "set_kwargs"))
    asked = ["-m", "squeeze_patch", "train", "--reduction=0.99", "--", "train.py", "--outdir=x", f"--gpus={gpus}"]
    done = command(draggan, workspace, *asked)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: a reduction of 99.0% is out of reach")
    left = str(Path("x", "mini-squeezed"))
    assert done.stderr.endswith(f". Nothing was trained; {left}, which the script made, stays\n")
    assert list((workspace / left).iterdir()) == []


TRAINERS = {
    "ada": ["--aug=noaug", "--cfg=auto", "--fp32=1"],
    "ggdr": ["--aug=noaug", "--cfg=auto", "--fp32=1", "--reg_type=ggdr", "--ggdr_res=8"],
    "stylegan3": ["--aug=noaug", "--cfg=stylegan2", "--gamma=1", "--fp32=1", "--cbase=1024", "--cmax=32"],
}


#: hosts whose script has no option for narrow networks take minutes on a CPU
SLOW = "needs a checkout in SQUEEZE_HOSTS and, for the hosts that take ten minutes, SQUEEZE_SLOW=1"


def runs(name: str, gpus: int) -> Any:
    at_hand = name in HOSTS and (name == "stylegan3" or bool(os.environ.get("SQUEEZE_SLOW")))
    return pytest.param(name, gpus, marks=pytest.mark.skipif(not at_hand, reason=SLOW))


@pytest.mark.parametrize(
    ("name", "gpus"), [runs("ada", 1), runs("ada", 2), runs("ggdr", 2), runs("stylegan3", 1), runs("stylegan3", 2)]
)
def test_the_hosts_own_train_py(name: str, gpus: int, tmp_path: Path) -> None:
    """The untouched script of a checkout, on the CPU: trained, saved, resumed. GGDR's needs two processes."""
    host = HOSTS[name]
    (tmp_path / "data").mkdir()
    random = np.random.RandomState(0)
    for index in range(16):
        pixels = random.randint(0, 255, [8, 8, 3]).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{index}.png")
    options = [f"--data={tmp_path / 'data'}", f"--gpus={gpus}", "--kimg=1", "--snap=1", "--metrics=none", "--batch=64"]
    common = [*TRAINERS[name], *options, "--workers=1"]
    wish = ["--ratio=1.5"]
    squeezed_train(host, host.folder, wish, *common, f"--outdir={tmp_path / 'first'}", cpu=True)
    pickled = sorted((tmp_path / "first").glob("*/network-snapshot-*.pkl"))[-1]
    with host.active():
        status = squeeze_patch.status(read(pickled, trust=True)["G_ema"])
    assert status.state == "squeezed"
    out = squeezed_train(
        host, host.folder, [], *common, f"--outdir={tmp_path / 'second'}", f"--resume={pickled}", cpu=True
    )
    assert out.count("parameters and buffers of a squeezed generator") == 2
    with host.active():
        again = sorted((tmp_path / "second").glob("*/network-snapshot-*.pkl"))[-1]
        assert squeeze_patch.status(read(again, trust=True)["G"]).plan == status.plan
