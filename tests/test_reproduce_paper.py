"""The kit for the paper's experiment: its commands run, its table and cost say what the hosts' files say."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import click
import pytest
from click.testing import CliRunner, Result

import squeeze_patch
from examples.reproduce_paper.__main__ import main, train
from examples.reproduce_paper.commands import command, environment, smoke_data
from examples.reproduce_paper.plans import EXPERIMENTS, GGDR, SAVED_AT_4, VARIANTS
from squeeze_patch.checkpoints.io import read
from tests.docs.pages import Page
from tests.helpers import HOSTS
from tests.hosts import HERE, SHIMS, Host
from tests.processes import environment_with

PAGE = Page("examples/reproduce_paper/README.md")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def lines(*arguments: str) -> List[str]:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def arguments_of(block: str) -> List[List[str]]:
    start = "python -m examples.reproduce_paper "
    assert all(line.startswith(start) for line in PAGE[block].splitlines())
    return [line[len(start) :].split() for line in PAGE[block].splitlines()]


def write_metrics(folder: Path, *figures: Dict[str, float]) -> None:
    """One snapshot after the other, a file a metric, as the hosts write them."""
    folder.mkdir(parents=True)
    for index, snapshot in enumerate(figures):
        for name, value in snapshot.items():
            metric = name.rpartition("_")[0] if "_precision" in name or "_mean" in name else name
            line = {"results": {name: value}, "metric": metric, "snapshot_pkl": f"network-snapshot-{index:06}.pkl"}
            with open(folder / f"metric-{metric}.jsonl", "a") as stream:
                stream.write(json.dumps(line) + "\n")


def test_the_readme_s_commands(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a host of the family: small and on the CPU, it trains both variants, once."""
    (tmp_path / "stylegan2-ada-pytorch").mkdir()
    (tmp_path / "cifar10.zip").touch()
    shutil.copy(HERE / "mini_train.py", tmp_path / "stylegan2-ada-pytorch" / "train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment_with(draggan.folder, *SHIMS)["PYTHONPATH"])
    ((*wanted,),) = arguments_of("run")
    (listed,) = arguments_of("list")
    assert [line.split()[0] for line in lines(*listed) if line.strip() and line[0] != " "] == list(EXPERIMENTS)
    short = [*wanted[:-1], "0", "--gpus", "1"]
    assert [line.split("&&")[0] for line in lines(*short, "--print")] == ["cd stylegan2-ada-pytorch "] * 2
    assert not (tmp_path / "paper-runs").exists()
    lines(*short)
    for variant in ("dense", "squeezed"):
        (snapshot,) = (tmp_path / "paper-runs" / "cifar10-ada" / f"{variant}-seed0").glob("*/network-snapshot*.pkl")
        with draggan.active():
            assert squeeze_patch.status(read(snapshot, trust=True)["G_ema"]).state == variant
    assert [line.split()[-2:] for line in lines(*short)] == [["has", "ended"]] * 2

    table, cost = arguments_of("results")
    done = call(*table)
    assert done.exit_code == 1
    assert "no experiment in paper-runs has metrics of dense and another variant for one seed" in done.output
    assert lines(*cost)[1].split(maxsplit=2)[2] == "not published: measure it"


def test_a_failed_training_stops_the_rest(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def setup_training_loop_kwargs(): ...\ndef main(): raise SystemExit(3)\n")
    options = ["--smoke", "--seeds", "0", "--out", str(tmp_path / "out")]
    done = call("run", "ffhq256-ada", "--host", str(tmp_path), *options)
    assert done.exit_code == 1
    assert "it ended with status 3" in done.output
    assert done.output.count("train.py") == 1
    assert not list(tmp_path.glob("out/*/*/ended"))


def test_what_ended_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind another command in the same folder, such as a trial; and a host that makes nothing has not ended."""
    begun: List[List[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda wanted, **_: begun.append(wanted) or subprocess.CompletedProcess("", 0)
    )
    ended = tmp_path / "run" / "ended"
    with pytest.raises(click.ClickException, match="it ended, and has made no"):
        train(["full"], tmp_path, ended, {}, False)
    ended.parent.mkdir()
    for wanted in (["full"], ["smoke"], ["full"], ["smoke"]):
        train(wanted, tmp_path, ended, {}, False)
    assert begun == [["full"], ["full"], ["smoke"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--host", "empty", "--smoke"],
            "--host empty has no train.py; give a checkout of NVlabs/stylegan2-ada-pytorch",
        ),
        (
            ["--host", "."],
            "--data is missing: python dataset_tool.py --source=cifar-10-python.tar.gz --dest=cifar10.zip",
        ),
        (["--host", ".", "--smoke", "--seeds", "one"], "--seeds one: whole numbers with commas between them"),
        (["--host", ".", "--smoke", "--seeds", "0,-1"], "--seeds 0,-1: whole numbers with commas between them"),
        (["--host", ".", "--smoke", "--gpus", "0"], "--gpus"),
    ],
)
def test_mistakes(options: List[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "empty").mkdir()
    done = call("run", "cifar10-ada", *options)
    assert done.exit_code == 2
    assert said in done.output


def test_the_table(tmp_path: Path) -> None:
    """Three seeds whose FIDs halve: of each run the snapshot with the lowest FID, the last of several runs, and only
    seeds that both have. Ratios of 0.4, 0.5 and 0.625 have the geometric mean 0.5; the deviation of their logarithms is
    log 1.25, the interval's half t(0.975, 2 degrees) = 4.303 times that over sqrt 3."""
    root = tmp_path / "ffhq256-ggdr"
    for seed, ratio in enumerate((0.4, 0.5, 0.625)):
        dense = {"fid50k_full": 10.0, "pr50k3_full_precision": 0.6}
        write_metrics(
            root / f"dense-seed{seed}" / "00000-a", {"fid50k_full": 30.0, "pr50k3_full_precision": 0.9}, dense
        )
        better = {"fid50k_full": 10 * ratio, "pr50k3_full_precision": 0.3}
        write_metrics(root / f"squeezed-seed{seed}" / "00001-b", better, {"fid50k_full": 20.0})
    write_metrics(root / "squeezed-seed0" / "00000-old", {"fid50k_full": 0.1, "pr50k3_full_precision": 1.0})
    write_metrics(root / "dense-seed7" / "00000-a", {"fid50k_full": 1.0})
    for seed, fid in enumerate((8.0, 8.0)):
        write_metrics(root / f"ratio4-seed{seed}" / "00000-a", {"fid50k_full": fid}, {"fid50k_full": 9.0})
    with open(root / "dense-seed0" / "00000-a" / "metric-fid50k_full.jsonl", "a") as stream:
        stream.write('{"results": {"fid50k')
    fid, precision, harder, *notes = lines("table", "--out", str(tmp_path))[1:]
    assert [note.replace(str(root), "ROOT") for note in notes] == [
        "ROOT/dense-seed0/00000-a/metric-fid50k_full.jsonl: 1 lines left out, which are no figures of a snapshot",
        "ffhq256-ggdr squeezed: left out are the seeds that one of the two lacks: dense 7",
        "ffhq256-ggdr ratio4: left out are the seeds that one of the two lacks: dense 2, 7",
        "ffhq256-ggdr ratio4 pr50k3_full_precision: of 0 of 2 seeds; it is not there for the others",
    ]
    low, high = (0.5 * math.exp(sign * 4.303 * math.log(1.25) / math.sqrt(3)) for sign in (-1, 1))
    assert fid.split() == f"ffhq256-ggdr squeezed fid50k_full (less) 3 10 5.083 0.500 ({low:.3f} to {high:.3f})".split()
    compared = [line for line in lines("table", "--against", "squeezed", "--out", str(tmp_path)) if "less" in line]
    over = compared[-1]
    assert over.split()[1:7] == ["ratio4", "fid50k_full", "(less)", "2", "4.5", "8"]  # of 4 and 5, which it has
    assert harder.split()[1:] == ["ratio4", "fid50k_full", "(less)", "2", "10", "8", "0.800", "(0.800", "to", "0.800)"]
    assert precision.split()[:7] == ["ffhq256-ggdr", "squeezed", "pr50k3_full_precision", "(more)", "3", "0.6", "0.3"]


def test_values_without_a_ratio(tmp_path: Path) -> None:
    """KID can be below 0; one seed has no interval."""
    for variant, kid in (("dense", 0.001), ("squeezed", -0.001)):
        write_metrics(tmp_path / "cifar10-ada" / f"{variant}-seed0" / "0", {"fid50k_full": 5.0, "kid50k_full": kid})
    fid, kid_line = lines("table", "--out", str(tmp_path))[1:]
    assert fid.endswith("1.000 (one seed: no interval)")
    assert kid_line.endswith("no ratio: a value is 0 or less")


def test_what_the_table_cannot_compare(tmp_path: Path) -> None:
    """Trainings of two lengths as far as both have come, metrics over the seeds that have them; no snapshot without a
    FID, and no figure of spread; and it says so."""
    root = tmp_path / "cifar10-ada"
    nan = {"fid50k_full": math.nan}
    first, last = {"fid50k_full": 8.0, "is50k_mean": 9.0, "is50k_std": 0.1}, {"fid50k_full": 2.0}
    write_metrics(root / "dense-seed0" / "00000-a", first, last)
    write_metrics(root / "dense-seed1" / "00000-a", first, nan)
    write_metrics(root / "squeezed-seed0" / "00000-a", {"fid50k_full": 4.0, "is50k_mean": 9.0, "is50k_std": 0.1})
    write_metrics(root / "squeezed-seed1" / "00000-a", {"fid50k_full": 4.0})
    (root / "squeezed-seed1" / "00001-a").mkdir()
    write_metrics(root / "ratio4-seed0" / "00000-a", nan)
    write_metrics(root / "old one-seed0" / "00000-a", last)
    fid, score, *notes = lines("table", "--out", str(tmp_path))[1:]
    assert fid.split()[2:7] == ["fid50k_full", "(less)", "2", "8", "4"]
    assert fid.endswith("0.500 (0.500 to 0.500)")
    assert score.split()[2:7] == ["is50k_mean", "(more)", "1", "9", "9"]
    assert [note.replace(str(root), "ROOT") for note in notes] == [
        "ROOT/dense-seed1/00000-a: 1 of 2 snapshots left out: no finite fid50k_full",
        "ROOT/old one-seed0 left out: the kit calls its folders VARIANT-seedN; dense, squeezed, narrowed, ratio4, "
        "narrowed4",
        "ROOT/ratio4-seed0/00000-a: 1 of 1 snapshots left out: no finite fid50k_full",
        "ROOT/squeezed-seed1: 00001-a has no metrics; its figures are those of 00000-a",
        "cifar10-ada squeezed seed 0: up to 0 kimg only, as far as both have been measured",
        "cifar10-ada squeezed is50k_mean: of 1 of 2 seeds; it is not there for the others",
    ]


def test_narrowed_ones_have_as_many_parameters(draggan: Host) -> None:
    """As squeezed at ratio 4, or a little more: two channels of 390 fewer would be 0.9 % of the parameters."""
    sizes = {32: (32768, 2), 256: (16384, 8), 512: (32768, 8)}  # channel_base and mapping layers of the configurations
    assert sizes.keys() == SAVED_AT_4.keys() == {experiment.resolution for experiment in EXPERIMENTS.values()}
    for resolution, saved in SAVED_AT_4.items():
        G = draggan.sized(resolution, *sizes[resolution])
        squeezed = squeeze_patch.plan(G, ratio=4, allocate="uniform")
        narrowed = squeeze_patch.plan(G, reduction=saved, method="narrow", allocate="uniform")
        assert 1 <= narrowed.parameters_after / squeezed.parameters_after < 1.005


def test_cost(tmp_path: Path) -> None:
    """100,000 kimg at the middle of 3, 4 and 50 seconds on two GPUs are 100,000 * 4 * 2 / 3600 hours."""
    run = tmp_path / "cifar10-ada" / "squeezed-seed0" / "00000-a"
    run.mkdir(parents=True)
    (run / "training_options.json").write_text(json.dumps({"num_gpus": 2}))
    ticks = [{"Timing/sec_per_kimg": {"num": 1, "mean": mean, "std": 0}} for mean in (50.0, 3.0, 4.0)]
    ticks.append({"Timing/sec_per_kimg": {"num": 0, "mean": 0.0, "std": 0}})
    (run / "stats.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    for index, options in enumerate(({"num_gpus": 1, "training_set_kwargs": {"resolution": 8}}, None), start=1):
        trial = run.with_name(f"0000{index}-a")  # of another size; stopped before it wrote anything
        trial.mkdir()
        (trial / "training_options.json").write_text(json.dumps(options) if options else "")
        (trial / "stats.jsonl").write_text(json.dumps(ticks[0]))
    said = {line.split()[0]: line for line in lines("cost", "--out", str(tmp_path))[1:]}
    assert list(said) == list(EXPERIMENTS)
    assert said["cifar10-ada"].endswith("squeezed 222 (measured: 4.0 s/kimg)")
    assert said["cifar10-ggdr"].endswith("not published: measure it")
    for name, hours in (("ffhq256-ada", "244 to 306"), ("afhqcat-ada", "528 to 539")):
        assert f"dense {hours} on V100s" in said[name]
        assert hours in PAGE.text


def checkout(name: str) -> Any:
    host = "ggdr" if EXPERIMENTS[name].host == GGDR else "ada"
    there = pytest.mark.skipif(
        host not in HOSTS, reason=f"needs a checkout of {EXPERIMENTS[name].host} in SQUEEZE_HOSTS"
    )
    return pytest.param(name, host, marks=there)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "dense"])
@pytest.mark.parametrize(("name", "host"), [checkout(name) for name in EXPERIMENTS])
def test_the_hosts_take_the_commands(name: str, host: str, variant: str, tmp_path: Path) -> None:
    """Their own dry run, with the options of the full training."""
    experiment = EXPERIMENTS[name]
    wanted = command(experiment, variant, 1, smoke_data(tmp_path), tmp_path, experiment.gpus)
    dry = [*wanted, "--dry-run"]
    done = subprocess.run(
        dry, cwd=HOSTS[host].folder, env=environment(True), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"total_kimg": {experiment.kimg}' in done.stdout
    assert "build_generator" in done.stdout


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="twenty minutes each; SQUEEZE_SLOW=1 runs them")
@pytest.mark.parametrize(("name", "host"), [checkout(name) for name in EXPERIMENTS])
def test_trials(name: str, host: str, tmp_path: Path) -> None:
    options = ["--host", str(HOSTS[host].folder), "--smoke", "--seeds", "0", "--out", str(tmp_path)]
    lines("run", name, *options)
    for variant in ("dense", "squeezed"):
        snapshots = sorted((tmp_path / name / f"{variant}-seed0").glob("*/network-snapshot*.pkl"))
        with HOSTS[host].active():
            assert squeeze_patch.status(read(snapshots[-1], trust=True)["G_ema"]).state == variant
