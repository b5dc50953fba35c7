"""Files of torch.save that hold state dicts: convert and load."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.optimizer_state import NOT_FOLLOWED
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.cli import main
from squeeze_patch.testing import trained
from tests.helpers import Snapshot
from tests.hosts.flat import FlatHost, optimiser_step
from tests.processes import command_runner


@pytest.fixture
def snapshot(rosinality: FlatHost, tmp_path: Path) -> Snapshot:
    return Snapshot(rosinality, tmp_path / "010000.pt")


def entries_of(path: Path) -> Dict[str, Any]:
    return read_entries(path, trust=False)


def test_convert_a_training_snapshot(snapshot: Snapshot, tmp_path: Path) -> None:
    before = snapshot.path.read_bytes()
    done = convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2)  # no trust, no host
    data = entries_of(tmp_path / "squeezed.pt")

    assert snapshot.path.read_bytes() == before
    assert list(data) == [*snapshot.entries, "squeeze_plan"]
    assert data["squeeze_plan"] == done.plan.to_dict()
    assert data["args"] == snapshot.entries["args"]
    assert data["ada_aug_p"] == 0.25
    for name, value in snapshot.entries["d"].items():
        assert torch.equal(data["d"][name], value)
    assert data["d_optim"]["param_groups"] == snapshot.entries["d_optim"]["param_groups"]
    assert done.generators == ("g_ema", "g")
    assert done.shared_channels
    assert done.carried == ("d", "d_optim", "args", "ada_aug_p")
    assert done.optimisers == (
        "g_optim: the moments of 56 parameters follow the kept channels, 6 parameters start without",
    )


def test_tensors_are_those_of_the_generator_squeezed_in_memory(snapshot: Snapshot, tmp_path: Path) -> None:
    convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2)
    data = entries_of(tmp_path / "squeezed.pt")
    squeezed = squeeze_patch.apply(copy.deepcopy(snapshot.g_ema), ratio=2)
    assert list(data["g_ema"]) == list(squeezed.state_dict())
    for name, value in squeezed.state_dict().items():
        assert torch.equal(data["g_ema"][name], value), name


def test_both_generators_keep_the_same_rows(snapshot: Snapshot, tmp_path: Path) -> None:
    """By the start that leaves conv1's rows as they were."""
    convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2, init="weights")
    data = entries_of(tmp_path / "squeezed.pt")
    rows = {name: snapshot.entries[name]["convs.3.conv.weight"][0] for name in ("g", "g_ema")}
    kept = {
        name: [int((rows[name] == row).flatten(1).all(dim=1).nonzero()) for row in data[name]["convs.3.conv.weight"][0]]
        for name in rows
    }
    assert kept["g"] == kept["g_ema"]


def test_load(snapshot: Snapshot, tmp_path: Path) -> None:
    convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2)
    z, c = snapshot.host.latents(snapshot.g)
    for entry, dense in ((None, snapshot.g_ema), ("g", snapshot.g)):
        torch.manual_seed(3)
        G = snapshot.host.generator().eval().requires_grad_(False)
        expected = torch.randn(2)
        torch.manual_seed(3)
        G = snapshot.host.generator().eval().requires_grad_(False)
        assert squeeze_patch.load(G, tmp_path / "squeezed.pt", entry=entry) is G
        assert torch.equal(torch.randn(2), expected)  # the random stream is left alone
        assert squeeze_patch.status(G).plan == squeeze_patch.plan(dense, ratio=2)
        assert not any(p.requires_grad for p in G.parameters())
        state = entries_of(tmp_path / "squeezed.pt")[entry or "g_ema"]
        assert all(torch.equal(value, state[name]) for name, value in G.state_dict().items())
    images = snapshot.host.images(G, z, c)
    squeeze_patch.load(G, state)  # into a squeezed one, and from a state dict
    assert torch.equal(snapshot.host.images(G, z, c), images)
    with pytest.raises(squeeze_patch.StateError, match="not at hand"):
        squeeze_patch.remove(G)


def test_moments_follow_the_kept_channels(snapshot: Snapshot, tmp_path: Path) -> None:
    convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2, init="weights")
    data = entries_of(tmp_path / "squeezed.pt")
    G = squeeze_patch.load(snapshot.host.generator(), tmp_path / "squeezed.pt", entry="g").train()
    optimiser = torch.optim.Adam(G.parameters(), lr=1, betas=(0.0, 0.5))
    optimiser.load_state_dict(data["g_optim"])
    assert optimiser.param_groups[0]["lr"] == 0.0016
    before = {name: snapshot.g_optim.state[p] for name, p in snapshot.g.named_parameters()}
    now = {name: optimiser.state.get(p) for name, p in G.named_parameters()}

    assert [name for name, entry in now.items() if not entry] == [
        f"convs.{2 * k}.excite.{name}" for k in range(3) for name in ("weight", "bias")
    ]
    dense = snapshot.entries["g"]["convs.1.conv.weight"][0]
    kept = [int((dense == row).flatten(1).all(dim=1).nonzero()) for row in G.convs[1].conv.weight[0]]
    assert len(kept) == 16
    for name, part in {
        "convs.1.conv.weight": lambda m: m[:, kept],
        "convs.1.activate.bias": lambda m: m[kept],
        "convs.1.conv.modulation.weight": lambda m: m,
        "to_rgbs.0.conv.weight": lambda m: m[:, :, kept],
        "to_rgbs.0.conv.modulation.weight": lambda m: m[kept],
        "to_rgbs.0.bias": lambda m: m,
        "convs.2.conv.weight": lambda m: m,
        "style.1.weight": lambda m: m,
    }.items():
        entry: Any = now[name]
        assert int(entry["step"]) == 2, name
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(entry[moment], part(before[name][moment])), name
            assert entry[moment].abs().max() > 0, name

    optimiser_step(optimiser)
    steps = {name: int(optimiser.state[p]["step"]) for name, p in G.named_parameters()}
    assert {steps[name] for name in steps if "excite" in name} == {1}
    assert {steps[name] for name in steps if "excite" not in name} == {3}


def stepped(groups: Any) -> Any:
    """State of an optimiser that has moments of every parameter."""
    optimiser = torch.optim.Adam(groups, lr=1e-3)
    for parameter in (parameter for group in optimiser.param_groups for parameter in group["params"]):
        parameter.requires_grad_(True).grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser.state_dict()


def test_optimisers_of_several_groups(snapshot: Snapshot, tmp_path: Path) -> None:
    """Groups that follow the generator's order go along; of others it is said that they do not."""
    parameters = list(snapshot.g.parameters())
    groups = [{"params": parameters[:5]}, {"params": parameters[5:], "lr": 0.5}]
    odd = {"in two": stepped(groups), "turned": stepped(groups[::-1]), "listed": [stepped(parameters)]}
    wrong = {"number": {"state": {}, "param_groups": 3}, "no group": {"state": {}, "param_groups": [3]}}
    torch.save({**snapshot.entries, **odd, **wrong}, tmp_path / "groups.pt")
    done = convert(tmp_path / "groups.pt", tmp_path / "out.pt", ratio=2, init="weights")
    told = dict(line.split(": ", 1) for line in done.optimisers)
    assert list(told) == ["g_optim", "in two", "turned", "listed"]
    assert told["in two"] == told["g_optim"]
    assert told["turned"] == told["listed"] == NOT_FOLLOWED
    assert done.carried[-2:] == ("number", "no group")

    state = entries_of(tmp_path / "out.pt")["in two"]
    G = squeeze_patch.load(snapshot.host.generator(), tmp_path / "out.pt", entry="g").train()
    ours = list(G.parameters())
    optimiser = torch.optim.Adam([{"params": ours[:5]}, {"params": ours[5:]}])
    optimiser.load_state_dict(state)
    assert [group["lr"] for group in optimiser.param_groups] == [1e-3, 0.5]
    moments = [optimiser.state[parameter]["exp_avg"] for parameter in ours if optimiser.state[parameter]]
    assert len(moments) == 56
    assert [m.shape for m in moments] == [p.shape for p in ours if optimiser.state[p]]


def test_random_start(snapshot: Snapshot, tmp_path: Path) -> None:
    done = convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2, init="random")
    # Of each of four blocks all that is conv1's and toRGB's: what was drawn anew has no past, whatever its shape is.
    assert done.optimisers[0].endswith("of 20 parameters follow the kept channels, 42 parameters start without")
    G = squeeze_patch.load(snapshot.host.generator(), tmp_path / "squeezed.pt", entry="g")
    names = [name for name, _ in G.named_parameters()]
    kept = {names[number] for number in entries_of(tmp_path / "squeezed.pt")["g_optim"]["state"]}
    assert not [name for name in kept if name.startswith(("conv1", "to_rgb", "convs.1", "convs.3", "convs.5"))]


def test_files_of_converted_weights(rosinality: FlatHost, tmp_path: Path) -> None:
    """g_ema and latent_avg alone, in the format of torch before 1.6."""
    G = trained(rosinality.generator())
    entries = {"g_ema": G.state_dict(), "latent_avg": torch.ones(32)}
    torch.save(entries, tmp_path / "dense.pt", _use_new_zipfile_serialization=False)
    done = convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt")
    assert done.generators == ("g_ema",)
    assert torch.equal(entries_of(tmp_path / "squeezed.pt")["latent_avg"], torch.ones(32))
    assert abs(done.plan.reduction - 0.121) <= 0.003
    H = squeeze_patch.load(rosinality.generator(), tmp_path / "squeezed.pt")
    z, c = rosinality.latents(G)
    assert torch.equal(rosinality.images(H, z, c), rosinality.images(squeeze_patch.apply(G), z, c))


@pytest.mark.parametrize("widths", [{4: 32, 8: 32, 16: 32, 32: 16}, {8: 16}, {32: 16}, {32: 8}])
def test_what_shapes_and_plan_tell_together(rosinality: FlatHost, tmp_path: Path, widths: Dict[int, int]) -> None:
    """Full widths, and blocks that stay dense."""
    torch.save({"g_ema": trained(rosinality.generator()).state_dict()}, tmp_path / "dense.pt")
    done = convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", widths=widths)
    found = inspect(tmp_path / "squeezed.pt", trust=False)["g_ema"].status
    assert found is not None
    assert found.plan == done.plan
    assert found.plan is not None
    assert found.plan.widths == widths
    G = squeeze_patch.load(rosinality.generator(), tmp_path / "squeezed.pt")
    assert squeeze_patch.status(G).plan == done.plan


def test_a_training_script_forgets_the_plan(snapshot: Snapshot, tmp_path: Path) -> None:
    """Snapshots of training on: state dicts only. Their shapes say how they are squeezed."""
    convert(snapshot.path, tmp_path / "squeezed.pt", ratio=2)
    data = entries_of(tmp_path / "squeezed.pt")
    del data["squeeze_plan"]
    torch.save(data, tmp_path / "020000.pt")
    found = inspect(tmp_path / "020000.pt", trust=False)
    assert {name: entry.status.state for name, entry in found.items() if entry.status} == {
        "g": "squeezed",
        "g_ema": "squeezed",
    }
    G = squeeze_patch.load(snapshot.host.generator(), tmp_path / "020000.pt")
    plan = squeeze_patch.status(G).plan
    assert plan is not None
    assert plan.same_widths(squeeze_patch.plan(snapshot.g_ema, ratio=2))
    with pytest.raises(squeeze_patch.StateError, match="squeezed already"):
        convert(tmp_path / "020000.pt", tmp_path / "twice.pt")


class TestLoadRefuses:
    """And leaves the generator as it was."""

    @pytest.fixture
    def G(self, snapshot: Snapshot) -> Any:
        G = trained(snapshot.host.generator(), seed=5)
        state = {name: tensor.clone() for name, tensor in G.state_dict().items()}
        yield G
        assert squeeze_patch.status(G).state == "dense"
        assert list(G.state_dict()) == list(state)
        assert all(torch.equal(G.state_dict()[name], tensor) for name, tensor in state.items())

    def test_a_dense_file(self, G: Any, snapshot: Snapshot) -> None:
        with pytest.raises(squeeze_patch.CheckpointError, match="dense"):
            squeeze_patch.load(G, snapshot.path)

    @pytest.mark.parametrize("resolution", [16, 64])
    def test_another_resolution(self, G: Any, snapshot: Snapshot, tmp_path: Path, resolution: int) -> None:
        other = squeeze_patch.apply(snapshot.host.generator(resolution))
        torch.save({"g_ema": other.state_dict()}, tmp_path / "other.pt")
        with pytest.raises((squeeze_patch.CheckpointError, squeeze_patch.PlanError), match="another gen|does not fit"):
            squeeze_patch.load(G, tmp_path / "other.pt")

    def test_other_channels(self, G: Any, snapshot: Snapshot) -> None:
        other = squeeze_patch.apply(snapshot.host.generator(channel_max=24))
        with pytest.raises(squeeze_patch.PlanError, match="the plan does not fit this generator"):
            squeeze_patch.load(G, other.state_dict())

    def test_a_missing_tensor(self, G: Any, snapshot: Snapshot) -> None:
        state = squeeze_patch.apply(copy.deepcopy(snapshot.g), init="weights").state_dict()
        del state["convs.2.excite.bias"]
        with pytest.raises(squeeze_patch.SqueezeError, match=r"convs\.2\.excite\.bias"):
            squeeze_patch.load(G, state)

    def test_other_files(self, G: Any, snapshot: Snapshot, tmp_path: Path) -> None:
        (tmp_path / "x.pkl").write_bytes(b"\x80\x04N.")
        torch.save({"d": snapshot.entries["d"]}, tmp_path / "d.pt")
        torch.save([1], tmp_path / "list.pt")
        (tmp_path / "half.pt").write_bytes(snapshot.path.read_bytes()[:5000])
        for name, match in (
            ("x.pkl", "unpickle it"),
            ("none.pt", "no such file"),
            ("d.pt", r"no generator of a known family \(it holds d\)"),
            ("list.pt", "holds a list"),
            ("half.pt", "no readable file of torch.save"),
        ):
            with pytest.raises(squeeze_patch.CheckpointError, match=match):
                squeeze_patch.load(G, tmp_path / name)
        with pytest.raises(squeeze_patch.CheckpointError, match="no generator named 'h'"):
            squeeze_patch.load(G, snapshot.path, entry="h")

    def test_a_generator_squeezed_in_another_way(self, snapshot: Snapshot) -> None:
        H = squeeze_patch.apply(copy.deepcopy(snapshot.g), ratio=3)
        with pytest.raises(squeeze_patch.StateError, match="another way"):
            squeeze_patch.load(H, squeeze_patch.apply(copy.deepcopy(snapshot.g), ratio=2).state_dict())


def test_nothing_is_run_without_trust(rosinality: FlatHost, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"g_ema": rosinality.generator().state_dict(), "args": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(squeeze_patch.CheckpointError, match="runs code.*--trust.*--host"):
        convert(tmp_path / "trap.pt", tmp_path / "out.pt")
    with pytest.raises(squeeze_patch.CheckpointError, match="runs code.*say so with trust=True$"):  # it has no host=
        squeeze_patch.load(rosinality.generator(), tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out.pt").exists()
    convert(tmp_path / "trap.pt", tmp_path / "out.pt", trust=True)
    assert (tmp_path / "sprung").exists()


def test_relatives_are_told_apart(snapshot: Snapshot) -> None:
    state = dict(snapshot.entries["g"])
    assert stand_in(snapshot.entries["d"]) is None
    assert stand_in({}) is None
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="another network's.*iwt"):
        stand_in({**state, "to_rgbs.0.iwt.ll": torch.ones(2, 2)})
    del state["convs.3.activate.bias"]
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"another network's.*convs\.3\.activate\.bias"):
        stand_in(state)


def test_the_relative_is_never_overwritten(snapshot: Snapshot, tmp_path: Path) -> None:
    relative = tmp_path / "relative.pt"
    convert(snapshot.path, relative, ratio=2, init="weights")
    before = relative.read_bytes()
    (tmp_path / "link.pt").symlink_to(relative)
    for target in (relative, tmp_path / "link.pt"):
        with pytest.raises(squeeze_patch.CheckpointError, match="this is the relative"):
            convert(snapshot.path, target, like=relative, force=True)
    command = ["convert", str(snapshot.path), str(relative), "--like", str(relative), "--force"]
    run = command_runner().invoke(main, command)
    assert run.exit_code == 2
    assert "this is the relative (--like), which would be lost" in run.stderr
    assert relative.read_bytes() == before


def test_an_unusual_mapping_network_is_not_guessed(rosinality: FlatHost, tmp_path: Path) -> None:
    """Its learning-rate multiplier is in no tensor."""
    torch.save({"g_ema": rosinality.generator(lr_mlp=1).state_dict()}, tmp_path / "x.pt")
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="lr_mlp=0.01"):
        convert(tmp_path / "x.pt", tmp_path / "out.pt")
    convert(tmp_path / "x.pt", tmp_path / "out.pt", init="random")


def test_command_line(snapshot: Snapshot, tmp_path: Path) -> None:
    def call(*arguments: Any) -> str:
        result = command_runner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    plan = json.loads(call("plan", snapshot.path, "--json"))
    out = call("convert", snapshot.path, tmp_path / "out.pt")
    assert "squeezed    g_ema, g, with the same channels" in out
    assert "optimiser   g_optim: the moments of 56 parameters follow" in out
    assert "unchanged   d, d_optim, args, ada_aug_p" in out
    rows = json.loads(call("info", tmp_path / "out.pt", "--json"))
    assert squeeze_patch.Plan.from_dict(rows["g_ema"]["plan"]) == squeeze_patch.Plan.from_dict(plan)
    assert rows["g"]["state"] == "squeezed"
