"""--budget: a share of the multiply-adds, or milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.io import read
from squeeze_patch.cli.log_lines import LONG
from squeeze_patch.cli.options import read_plan
from squeeze_patch.demo import trained_generator
from squeeze_patch.planning.milliseconds import MARGIN
from squeeze_patch.progress import one_thread
from tests import clocks
from tests.clocks import line_clock
from tests.helpers import SMALL, cli, write_checkpoint
from tests.hosts import Host
from tests.hosts.flat import FlatHost

QUICK = ["--steps", "6", "--every", "2", "--batch", "4", "--device", "cpu", "--trust"]


@pytest.fixture
def small(draggan: Host, tmp_path: Path) -> Iterator[Path]:
    write_checkpoint(draggan, tmp_path / "dense.pkl", **SMALL)
    with one_thread():
        yield tmp_path / "dense.pkl"


def test_what_is_no_budget(small: Path) -> None:
    for text in ("0.7", "12s", "ms", "x", "fast", "0.7 times"):
        code, _, err = cli("plan", small, "--trust", "--budget", text)
        assert code == 2
        assert "is no budget; write 0.7x for 0.7 of the dense generator's multiply-adds, or 12ms for 12" in err
    for text, words in {"0ms": "more than 0", "nanms": "more than 0", "1.5x": "above 0, up to 1"}.items():
        code, _, err = cli("plan", small, "--trust", "--budget", text)
        assert code == 2
        assert words in err
    code, _, err = cli("plan", small, "--trust", "--budget", "12ms", "--device", "nowhere")
    assert code == 2
    assert "device nowhere cannot be used" in err
    code, _, err = cli("train", "--budget", "12ms", "--", "train.py")
    assert code == 2
    assert (
        "squeeze-patch plan FILE --allocate uniform --budget 12ms says which share of the multiply-adds that is" in err
    )


@pytest.mark.parametrize("text", ["70ms", "70 ms", " 70.0ms"])
def test_plan_and_convert_say_what_was_measured(text: str, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line_clock(monkeypatch)
    code, out, err = cli("plan", small, "--trust", "--budget", text)
    assert (code, err) == (0, f"planning: {LONG}\n")
    line = next(line for line in out.splitlines() if line.startswith("time "))
    assert line.startswith("time 100 ms -> ")
    assert " ms for an image here (cpu, " in line
    assert ", of 70 ms asked for; 0." in line
    code, out, err = cli("plan", small, "--trust", "--budget", text, "--json")
    assert code == 0
    assert line in err.splitlines()
    plan = squeeze_patch.Plan.from_json(out)
    target = small.with_name("squeezed.pkl")
    code, out, err = cli("convert", small, target, "--trust", "--budget", text)
    assert (code, err) == (0, f"squeezing: {LONG}\n")
    assert f"time        {line[5:]}" in out.splitlines()
    assert "G_ema, G, with the same channels" in out
    assert squeeze_patch.status(read(target, trust=True)["G_ema"]).plan == plan


def test_convert_of_a_state_dict(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed in a body of squeeze_patch's own."""
    line_clock(monkeypatch)
    torch.save({"g_ema": rosinality.generator(resolution=8).state_dict()}, tmp_path / "dense.pt")
    arguments = ("convert", tmp_path / "dense.pt", tmp_path / "squeezed.pt", "--budget", "80ms", "--init", "weights")
    code, out, err = cli(*arguments, "--json")
    assert (code, err) == (0, f"squeezing: {LONG}\n")
    timing = json.loads(out)["timing"]
    assert timing["dense"] == pytest.approx(100)
    assert timing["squeezed"] <= 80 * (1 - MARGIN)
    assert 0 < timing["multiply_adds"] < 1


def test_report(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line_clock(monkeypatch)
    code, out, err = cli("report", small, "--trust", "--budget", "70ms", "--repeats", "2")
    assert (code, err) == (0, f"planning: {LONG}\n")
    assert out.splitlines()[-1].startswith("budget       100 ms -> ")
    code, out, _ = cli("report", small, "--trust", "--budget", "70ms", "--repeats", "2", "--json")
    found = json.loads(out)
    share = found["cost"]["multiply_adds_after"] / found["cost"]["multiply_adds_before"]
    assert code == 0
    assert found["budget"]["multiply_adds"] == pytest.approx(share)
    assert found["budget"]["milliseconds"] == 70


def test_recover_goes_on_with_the_plan_that_it_began_with(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the machine is another one by then, on which the dense generator keeps to the time."""
    line_clock(monkeypatch)
    out_file = small.with_name("out.pkl")
    command = ("recover", small, "--out", out_file, *QUICK, "--budget")
    code, out, err = cli(*command, "70ms", "--minutes", "1e-9")
    assert code == 0, err
    assert "time        100 ms -> " in out
    begun = squeeze_patch.status(read(out_file, trust=True)["G_ema"]).plan
    state = out_file.with_name("out.pkl.state").read_bytes()
    for other in (["200ms"], ["70ms", "--method", "narrow"]):  # another wish is no run to go on with
        code, _, err = cli(*command, *other)
        assert code == 2
        assert "other settings: method 'squeeze', milliseconds 70.0, now method" in err
        assert "Repeat the earlier command, or delete" in err
    assert out_file.with_name("out.pkl.state").read_bytes() == state
    monkeypatch.setattr(clocks, "DENSE", clocks.DENSE / 3)
    code, _, err = cli("plan", small, "--trust", "--budget", "70ms")
    assert code == 2
    assert "is within 70 ms: nothing has to be squeezed for it" in err
    code, out, err = cli(*command, "70ms")
    assert code == 0, err
    assert "taken up at step 1" in out
    assert "time " not in out
    assert squeeze_patch.status(read(out_file, trust=True)["G_ema"]).plan == begun


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_plan_file_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    """As shells of Windows redirect, and editors save it."""
    plan = squeeze_patch.plan(trained_generator(), ratio=2)
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding=encoding)
    assert read_plan(tmp_path / "plan.json") == plan
