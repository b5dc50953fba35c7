"""Training from scratch with hosts' own losses, in short: it learns, on par with dense, and resumes exactly.

`python -m benchmarks quality` is the long form.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks import curves, quality
from benchmarks.__main__ import main
from benchmarks.curves import Ratio, collect, late, paired_ratio, report
from benchmarks.data import Data, load, train_classifier
from benchmarks.evaluating import Evaluation
from benchmarks.one_setting import require_same
from benchmarks.training import Run, Settings, train
from benchmarks.variants import VARIANTS, count
from squeeze_patch.errors import CheckpointError
from tests.helpers import HOSTS
from tests.hosts import Host
from tests.hosts.training import need_second_derivatives

TINY = Settings(
    resolution=8,
    channels=8,
    channel_base=64,
    d_channels=8,
    dim=16,
    batch=8,
    samples=64,
    pl_weight=2.0,
    style_mixing=0.9,
)


def noise_data() -> Data:
    random = torch.Generator().manual_seed(0)
    return Data(torch.rand([64, 1, 8, 8], generator=random) * 2 - 1, torch.arange(64) % 2, 2)


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_a_resumed_training_gives_the_numbers_of_an_unbroken_one(draggan: Host, tmp_path: Path) -> None:
    """To the bit: weights, averages, optimisers, path length and random state; with all regularisation."""
    need_second_derivatives(draggan)
    data = noise_data()
    evaluate = Evaluation(data, train_classifier(data)[0], samples=64)

    def run() -> Run:
        return Run(draggan, TINY, VARIANTS["squeezed"], data, seed=3)

    unbroken = run()
    whole = train(unbroken, evaluate, 0.32, 0.16, tmp_path / "whole.pt")
    train(run(), evaluate, 0.16, 0.16, tmp_path / "parts.pt")
    resumed = run()
    parts = train(resumed, evaluate, 0.32, 0.16, tmp_path / "parts.pt")
    assert [{k: v for k, v in p.items() if k != "seconds"} for p in whole] == [
        {k: v for k, v in p.items() if k != "seconds"} for p in parts
    ]
    for name in ("G", "D", "G_ema"):
        there = getattr(resumed, name).state_dict()
        assert all(torch.equal(value, there[key]) for key, value in getattr(unbroken, name).state_dict().items())
    with pytest.raises(ValueError, match="other settings: lr 0.0025, not 0.001$"):
        Run(draggan, replace(TINY, lr=0.001), VARIANTS["squeezed"], data, seed=3).load(tmp_path / "parts.pt")


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_what_a_training_leaves(draggan: Host, tmp_path: Path) -> None:
    """It is evaluated at its end, whatever the interval; a curve that a kill kept from being written is written later;
    and none is replaced by another training's, where the state is missing or damaged."""
    data = noise_data()
    evaluate = Evaluation(data, train_classifier(data)[0], samples=64)
    settings = replace(TINY, pl_weight=0.0, style_mixing=0.0)
    state, curve = tmp_path / "dense-seed0.pt", tmp_path / "dense-seed0.json"

    def go(kimg: float) -> Any:
        return train(Run(draggan, settings, VARIANTS["dense"], data, seed=0), evaluate, kimg, 0.5, state)

    assert [point["kimg"] for point in go(0.016)] == [0.016]
    written = curve.read_text()
    curve.unlink()
    go(0.016)
    assert curve.read_text() == written
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="dense-seed0.pt is damaged .*; move it and dense-seed0.json away"):
        go(0.024)
    state.unlink()
    assert [point["kimg"] for point in go(0.016)] == [0.016]
    with pytest.raises(CheckpointError, match="evaluated up to 0.016 kimg, and dense-seed0.pt is not there"):
        go(0.024)
    assert curve.read_text() == written


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
def test_of_two_runs_of_one_training_one_ends(draggan: Host, tmp_path: Path) -> None:
    """Before it puts its own state, which may be behind, in the place of the other's."""
    data = noise_data()
    evaluate = Evaluation(data, train_classifier(data)[0], samples=64)
    settings = replace(TINY, pl_weight=0.0, style_mixing=0.0)
    state = tmp_path / "dense-seed0.pt"
    others: List[Any] = []

    def go(kimg: float, stopped: Any = lambda: False) -> Any:
        return train(Run(draggan, settings, VARIANTS["dense"], data, 0), evaluate, kimg, 0.016, state, stopped=stopped)

    def meanwhile() -> bool:
        if not others:
            others.append(go(0.032))
        return False

    with pytest.raises(CheckpointError, match="has been saved by another run meanwhile"):
        go(0.064, meanwhile)
    assert [point["kimg"] for point in json.loads(state.with_suffix(".json").read_text())] == [0.016, 0.032]


def short_training(name: str, kind: str, folder: Path) -> Tuple[float, float]:
    """Frechet distance untrained and at 40 kimg."""
    torch.set_num_threads(1)
    data = load("digits", 16)
    settings = Settings(samples=1000)
    evaluate = Evaluation(data, train_classifier(data)[0], settings.samples)
    with HOSTS[name].active():
        run = Run(HOSTS[name], settings, VARIANTS[kind], data, seed=0)
        start = evaluate(run.G_ema)["frechet"]
        return start, train(run, evaluate, 40, 40, folder / f"{kind}.pt")[-1]["frechet"]


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="trains for ten minutes; SQUEEZE_SLOW=1 runs it")
@pytest.mark.parametrize("name", [name for name in HOSTS if name in ("draggan", "ada", "ggdr")])
def test_short_training_learns_and_is_on_par_with_dense(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digits at 16x16, 40 kimg, ada's loss (draggan ships it) or GGDR's.

    Untrained grey blobs are at a Frechet distance of 125 to 195. It rises at first, so a lower one has learnt, and
    was 47 to 119 at 40 kimg in seven runs (processors differ in floating point, and trainings with them). The
    logarithms of the first six have a standard deviation of 0.26 about 66: a run ends below its start with more than
    99 %, below 0.85 of it with 98 %, so that of two runs neither does so by accident once in 2,500. Parity: a ratio of
    two lies within exp(4 * 0.26 * sqrt(2)) = 4.3 unless it is no accident.
    """
    end: Dict[str, float] = {}
    fallen: Dict[str, float] = {}
    for setting in ("OMP_NUM_THREADS=1", "MALLOC_MMAP_THRESHOLD_=4000000000", "MALLOC_TRIM_THRESHOLD_=8000000000"):
        monkeypatch.setenv(*setting.split("="))  # keep memory: a third of the time goes into pages otherwise
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:  # networks this small use one core each
        runs = {kind: pool.submit(short_training, name, kind, tmp_path) for kind in ("dense", "squeezed")}
        for kind, running in runs.items():
            start, end[kind] = running.result()
            fallen[kind] = end[kind] / start
    assert max(fallen.values()) < 1
    assert min(fallen.values()) < 0.85
    with capsys.disabled():
        print(
            f"\n{name}: Frechet distance at 40 kimg { ({k: round(v) for k, v in end.items()}) }, {start:.0f} untrained"
        )
    assert abs(math.log(end["squeezed"] / end["dense"])) < math.log(4.3)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_at_the_stated_size(name: str, draggan: Host) -> None:
    """Within 2 % of what the name says, no parameter unused. Channels come whole: one of the 22 that the smallest
    generator here has at its widest is 4 % of its parameters, and the nearest count is half of that away or less."""

    def dense(**changes: Any) -> Any:
        sizes = {"channel_base": 256, "channel_max": 32, **changes}
        return draggan.generator(16, w_dim=64, img_channels=1, **sizes)

    G = VARIANTS[name](dense).train()
    sizes = {
        "dense": count(dense()),
        "half": count(dense()) / 2,
        "narrowed": count(VARIANTS["squeezed"](dense)),
        "squeezed": (1 - 0.121) * count(dense()),
        "ratio 4": count(VARIANTS["ratio 4"](dense)),
        "narrowed as ratio 4": count(VARIANTS["ratio 4"](dense)),
    }
    assert abs(count(G) / sizes[name] - 1) < 0.02, (count(G), sizes[name])
    G(torch.randn(2, 64), torch.zeros(2, 0)).square().sum().backward()
    assert [key for key, parameter in G.named_parameters() if parameter.grad is None] == []


def test_ratio_and_interval() -> None:
    """Two seeds at 0.5 and 0.5: certain. At 0.5 and 2: 1, and t(0.975, 1 degree) = 12.706 times the standard error,
    which is log 2; an effect has to be t(0.8, 1 degree) = 1.376 standard errors farther to be seen four times in five.
    """
    assert paired_ratio({0: 1.0, 1: 2.0}, {0: 2.0, 1: 4.0}) == Ratio(0.5, 0.5, 0.5, 1)
    ratio = paired_ratio({0: 1.0, 1: 4.0}, {0: 2.0, 1: 2.0, 2: 9.0})
    assert ratio.middle == pytest.approx(1)
    assert math.log(ratio.high) == pytest.approx(12.706 * math.log(2), rel=1e-3)
    assert ratio.low == pytest.approx(1 / ratio.high)
    assert math.log(ratio.shown) == pytest.approx(-(12.706 + 1.376) * math.log(2), rel=1e-3)
    assert paired_ratio({0: 1.0}, {0: 2.0}) == Ratio(0.5, 0, math.inf, 0)
    curve = [{"kimg": k, "frechet": f} for k, f in ((10.0, 9.0), (20.0, 8.0), (30.0, 1.0), (40.0, 4.0))]
    assert late(curve, "frechet") == pytest.approx(4)


def test_trainings_evaluated_more_and_less_often_are_compared_where_both_were(tmp_path: Path) -> None:
    every = {"dense-seed0": (20, 40, 60, 80), "half-seed0": (40, 80, 120), "half-seed1": (40,)}
    for name, places in every.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([{"kimg": float(k), "frechet": 1.0} for k in places]))
    found = collect(tmp_path, ["dense", "half"], 80)
    assert {name: list(curves) for name, curves in found.items()} == {"dense": [0], "half": [0]}
    assert [[point["kimg"] for point in curves[0]] for curves in found.values()] == [[40, 80], [40, 80]]
    (tmp_path / "half-seed2.json").write_text('[{"kimg": 90.0, "frechet": 1.0}]')
    assert collect(tmp_path, ["half"], 120).keys() == {"half"}
    with pytest.raises(click.ClickException, match="at different kimg"):
        collect(tmp_path, ["dense", "half"], 60)


def test_what_is_left_out_of_the_table_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds that one lacks or that have not come so far, variants without trainings, a distance that has no logarithm;
    and the copy of a file is no training."""
    monkeypatch.setattr(curves, "plot", lambda *_: None)
    more = {"seconds": 1.0, "sliced_wasserstein": 0.1, "precision": 0.5, "recall": 0.5}
    ends = {"dense-seed0": (20, 40), "dense-seed1": (20, 40), "half-seed0": (20, 40), "half-seed1": (20,)}
    for name, places in ends.items():
        points = [{"kimg": float(kimg), "frechet": 2.0, **more} for kimg in places]
        (tmp_path / f"{name}.json").write_text(json.dumps(points))
        kid = -0.001 if name == "half-seed0" else 0.01
        (tmp_path / f"{name}.kid.json").write_text(json.dumps({"40": kid}))
    (tmp_path / "dense-seed0-copy.json").write_text("[]")
    (tmp_path / "parameters.json").write_text('{"dense": 1000}')
    report(tmp_path, ["dense", "half", "squeezed"], 40, "curves", "dense", "machine")
    _, dense, half, *notes, _ = capsys.readouterr().out.splitlines()
    assert dense.split() == ["dense", "1,000", "2", "2.00", "(2.00", "to", "2.00)", "10.00"]
    assert half.endswith("1.00 (0.00 to inf); 0.00   KID no ratio: one is 0 or less")
    assert notes == [
        "half seed 1 left out: evaluated up to 20 kimg only",
        "squeezed left out: no training of it here has been evaluated",
        "half: its number of parameters is not known here",
        "half / dense: over the seeds that both have: 0",
        "half / dense KID: over the seeds that both have: 0",
    ]
    assert json.loads((tmp_path / "curves.json").read_text())["notes"] == notes
    report(tmp_path, ["half"], 30, "curves", "dense", "machine")
    notes = capsys.readouterr().out.splitlines()[2:-1]
    assert "compared at 20 kimg: the last evaluation that all have" in notes
    assert "no ratio: dense is not in the table (--against, --variants)" in notes
    with pytest.raises(click.ClickException, match="has reached 60 kimg: --kimg 40 reports the longest"):
        report(tmp_path, ["dense", "half"], 60, "curves", "dense", "machine")
    (tmp_path / "dense-seed0.json").write_text("[{")
    with pytest.raises(click.ClickException, match="dense-seed0.json is damaged"):
        report(tmp_path, ["dense"], 40, "curves", "dense", "machine")


def test_a_folder_is_of_one_setting(tmp_path: Path) -> None:
    """From its first training on; a folder of before says nothing."""
    for channels in (8, 16):
        require_same(tmp_path, {"data": "a", "channels": channels})
    (tmp_path / "dense-seed0.json").touch()
    require_same(tmp_path, {"data": "a", "channels": 16})
    with pytest.raises(click.UsageError, match="another kind: data a, not b; channels 16, not 8. Another folder"):
        require_same(tmp_path, {"data": "b", "channels": 8})
    (tmp_path / "trainings.json").unlink()
    require_same(tmp_path, {"data": "b", "channels": 8})
    assert not (tmp_path / "trainings.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", ""], "--seeds '': whole numbers with commas between them"),
        (["--against", "dens"], "no variant 'dens'; there are dense, squeezed"),
        (["--every", "0"], "0.0 is not in the range x>0"),
        (["--kimg", "-1"], "-1.0 is not in the range x>0"),
        (["--channels", "1"], "1 is not in the range x>=2"),
        (["--report"], "absent: there is no such folder"),
        (["--data", "few"], "--data few: 4 images, and a batch has 32"),
    ],
)
def test_options_that_no_training_can_have(
    options: List[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "prepare", lambda *_: None)  # would stay so for other tests
    monkeypatch.setattr(quality, "load", lambda *_: Data(torch.zeros(4, 1, 16, 16), torch.zeros(4).long(), 2))
    done = CliRunner().invoke(main, ["quality", "--out", str(tmp_path / "absent"), *options])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert quality.seeds_of("3,0,3") == [3, 0]
    assert quality.names_of("half, dense,half", VARIANTS) == ["half", "dense"]


def test_the_smallest_effect_is_shown_four_times_in_five() -> None:
    """By simulation, 8 seeds whose log ratios deviate by 0.1: a true effect of the expected smallest one.

    2,000 studies: the standard error of the share is 0.009; four of them, and 0.03 because t(0.975) + t(0.8) is the
    usual approximation of the non-central t.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn([2000, 8], generator=random, dtype=torch.float64) * 0.1
    effect = (2.3646 + 0.8960) * 0.1 / math.sqrt(8)  # t(0.975) and t(0.8) at 7 degrees of freedom
    studies = [
        paired_ratio({s: math.exp(-effect + x) for s, x in enumerate(row.tolist())}, dict.fromkeys(range(8), 1.0))
        for row in noise
    ]
    share = sum(study.high < 1 for study in studies) / len(studies)
    assert share == pytest.approx(0.8, abs=4 * 0.009 + 0.03)
