"""docs/checkpoints.md, block by block."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.planning.cost import report
from squeeze_patch.planning.milliseconds import MARGIN, RESOLUTION
from squeeze_patch.testing import trained
from tests.clocks import line_clock, share_within
from tests.docs.pages import Page, commands, python, shows
from tests.hosts import Host, tensorflow
from tests.hosts.flat import FlatHost
from tests.servers import FileServer, file

PAGE = Page("docs/checkpoints.md")


def unpickled(path: Path) -> Any:
    return pickle.loads(path.read_bytes())["G_ema"]


def test_convert(workspace: Path) -> None:
    printed = commands(PAGE["convert"])
    assert "G_ema: Generator, dense" in printed
    assert "with the same channels" in printed
    assert squeeze_patch.status(unpickled(workspace / "squeezed.pkl")).state == "squeezed"


def test_scan(workspace: Path) -> None:
    printed = commands(PAGE["scan"])
    (verdict,) = (block.text for block in PAGE.blocks if block.text.startswith("names nothing"))
    assert shows(verdict, printed)


def test_files_of_state_dicts(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"g_ema": trained(rosinality.generator(resolution=8)).state_dict()}, "550000.pt")
    assert "12." in commands(PAGE["states"])


def test_alone(workspace: Path, draggan: Host) -> None:
    assert "G_ema" not in commands(PAGE["alone"]).splitlines()[-1]
    whole = unpickled(workspace / "network.pkl")
    G = type(whole)(*whole.init_args, **whole.init_kwargs)
    python(PAGE["loading"], G=G)
    assert squeeze_patch.status(G).state == "squeezed"
    assert torch.equal(G.mapping.fc0.weight, whole.mapping.fc0.weight)


def test_tensorflow_pickles(workspace: Path) -> None:
    tensorflow.write(workspace / "stylegan2-ffhq-config-f.pkl", tensorflow.networks(mapping_layers=2))
    printed = commands(PAGE["tensorflow"])
    assert "unchanged   D" in printed
    assert squeeze_patch.status(unpickled(workspace / "squeezed.pkl")).state == "squeezed"
    assert squeeze_patch.status(unpickled(workspace / "dense.pkl")).state == "dense"
    assert "left behind  D" in printed
    G = squeeze_patch.load(unpickled(workspace / "dense.pkl"), "alone.pt")
    assert squeeze_patch.status(G).state == "squeezed"


def test_how_much(workspace: Path) -> None:
    commands(PAGE["wishes"])
    generators = {name: unpickled(workspace / f"{name}.pkl") for name in ("fifth", "half", "uniform", "narrowed")}
    fifth, half, uniform, narrowed = (squeeze_patch.status(G).plan for G in generators.values())
    assert fifth is not None
    assert abs(fifth.reduction - 0.2) < 0.01
    assert half is not None
    assert half.ratio == 2
    assert uniform is not None
    assert uniform.ratio is not None
    assert narrowed is not None
    assert narrowed.method == "narrow"
    cost = report(locate(generators["narrowed"]))
    # a channel of the last block is 1 % of the multiply-adds of so small a generator
    assert abs(cost.multiply_adds_after / cost.multiply_adds_before - 0.7) <= 0.01


def test_milliseconds(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of which 40 ms are within reach; so small a generator is no faster narrowed."""
    line_clock(monkeypatch)
    commands(PAGE["milliseconds"])
    plan = squeeze_patch.Plan.from_json((workspace / "fast.json").read_text())
    cost = report(locate(unpickled(workspace / "fast.pkl")))
    most = share_within(40 * (1 - MARGIN))
    assert plan.method == "narrow"
    assert most - RESOLUTION - 0.02 <= cost.multiply_adds_after / cost.multiply_adds_before <= most


def test_plan_as_a_file(workspace: Path) -> None:
    printed = commands(PAGE["plan"])
    plan = squeeze_patch.Plan.from_json((workspace / "plan.json").read_text())
    assert plan.ratio == 2
    assert printed.count(f"{plan.parameters_before:,} -> {plan.parameters_after:,}") == 2
    assert squeeze_patch.status(unpickled(workspace / "planned.pkl")).plan == plan


def test_python(workspace: Path, capsys: Any) -> None:
    done = python(PAGE["python"])["done"]
    assert done.generators == ("G_ema", "G")
    python(PAGE["memory"])
    lines = capsys.readouterr().out.splitlines()
    assert re.match("squeezed: [1-3] of 3 blocks", lines[-2])
    assert lines[-1].startswith("dense:")


def test_exchange(workspace: Path) -> None:
    commands(PAGE["exchange"])
    there, back = (unpickled(workspace / name) for name in ("network.pkl", "again.pkl"))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in there.state_dict().items())


def test_addresses(workspace: Path, server: FileServer) -> None:
    server.says("/network.pkl", file((workspace / "network.pkl").read_bytes()))
    printed = commands(PAGE["addresses"].replace("https://example.org", server.url("")))
    assert "G_ema: Generator, dense" in printed
    assert f"{server.url('/network.pkl')}\n1 file, " in printed
    assert "removed 1 file, " in printed


def test_relatives(workspace: Path, draggan: Host) -> None:
    for name in ("parent", "child"):
        (workspace / f"{name}.pkl").write_bytes((workspace / "network.pkl").read_bytes())
    commands(PAGE["like"])
    plans = [squeeze_patch.status(unpickled(workspace / f"{name}-squeezed.pkl")).plan for name in ("parent", "child")]
    assert plans[0].fingerprint == plans[1].fingerprint != ""
    G = squeeze_patch.apply(trained(draggan.generator()), init="weights")
    before = G.synthesis.b16.torgb.affine.bias.detach().clone()
    direction = torch.arange(32.0)
    kept = python(PAGE["direction"], G=G, direction=direction)["kept"]
    assert torch.equal(G.synthesis.b16.torgb.affine.bias, before + direction[kept])


def test_labels(workspace: Path, draggan: Host) -> None:
    G = trained(draggan.generator(8, c_dim=2)).requires_grad_(False)
    (workspace / "cameras.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    (workspace / "dataset.json").write_text('{"labels": [["0.png", [0.5, 1.5]], ["1.png", [0.25, 1.75]]]}')
    printed = commands(PAGE["labels"])
    assert "labels      of the 2 given" in printed
    assert "labels of the 2 given\n" in printed
    python(PAGE["labels-python"], G=G)
    converted = unpickled(workspace / "squeezed.pkl").state_dict()
    assert all(torch.equal(value, converted[name]) for name, value in G.state_dict().items())
