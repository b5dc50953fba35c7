"""Checkpoint files: what comes in, what goes out, and what happens when something is in the way."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.checkpoints import io as files
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.generators import generators, inspect
from squeeze_patch.checkpoints.io import read
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from squeeze_patch.testing import trained
from tests.helpers import latents, write_checkpoint
from tests.hosts import Host


def test_convert_a_training_snapshot(full_host: Host, tmp_path: Path) -> None:
    dense = write_checkpoint(full_host, tmp_path / "dense.pkl")
    before = (tmp_path / "dense.pkl").read_bytes()
    done = convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True, ratio=2)
    data = read(tmp_path / "squeezed.pkl", trust=True)

    assert (tmp_path / "dense.pkl").read_bytes() == before
    assert list(data) == list(dense)
    assert data["training_set_kwargs"] == dense["training_set_kwargs"]
    for name, value in dense["D"].state_dict().items():
        assert torch.equal(data["D"].state_dict()[name], value)
    assert done.generators == ("G_ema", "G")
    assert done.carried == ("training_set_kwargs", "D")
    assert done.shared_channels
    assert done.bytes_before == len(before)
    assert done.bytes_after == (tmp_path / "squeezed.pkl").stat().st_size
    for name in ("G", "G_ema"):
        status = squeeze_patch.status(data[name])
        assert status.plan == done.plan
        assert (status.parameters_before, status.parameters_after) == (
            done.cost.parameters_before,
            done.cost.parameters_after,
        )
        assert torch.equal(data[name].mapping.w_avg, dense[name].mapping.w_avg)
        assert not data[name].training
        assert not any(p.requires_grad for p in data[name].parameters())


def test_all_generators_keep_the_channels_chosen_on_g_ema(draggan: Host, tmp_path: Path) -> None:
    dense = write_checkpoint(draggan, tmp_path / "dense.pkl")
    # by the start that keeps rows to the bit; the calibrated one refits them
    convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True, ratio=2, init="weights")
    data = read(tmp_path / "squeezed.pkl", trust=True)
    alone = squeeze_patch.apply(dense["G_ema"], ratio=2, init="weights")
    for resolution in (4, 8, 16, 32):
        kept = {}
        for name in ("G", "G_ema"):
            source = read(tmp_path / "dense.pkl", trust=True)[name].synthesis
            rows = getattr(source, f"b{resolution}").conv1.weight.flatten(1)
            new = getattr(data[name].synthesis, f"b{resolution}").conv1.weight.flatten(1)
            kept[name] = [next(i for i, row in enumerate(rows) if torch.equal(row, one)) for one in new]
        assert kept["G"] == kept["G_ema"]
        reference = getattr(alone.synthesis, f"b{resolution}").conv1.weight
        assert torch.equal(getattr(data["G_ema"].synthesis, f"b{resolution}").conv1.weight, reference)


def test_random_start_and_bare_generators(draggan: Host, tmp_path: Path) -> None:
    with open(tmp_path / "bare.pkl", "wb") as stream:
        pickle.dump(trained(draggan.generator()), stream)
    done = convert(tmp_path / "bare.pkl", tmp_path / "out.pkl", trust=True, init="random")
    assert done.generators == ("",)
    assert squeeze_patch.status(read(tmp_path / "out.pkl", trust=True)).state == "squeezed"
    assert list(inspect(tmp_path / "out.pkl", trust=True)) == [""]


def test_nothing_is_loaded_without_trust(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap()))
    for action in (
        lambda: convert(tmp_path / "trap.pkl", tmp_path / "out.pkl"),
        lambda: inspect(tmp_path / "trap.pkl", trust=False),
        lambda: read(tmp_path / "trap.pkl", trust=False),
    ):
        with pytest.raises(squeeze_patch.CheckpointError, match="names posix.mkdir, which is not known .*--trust"):
            action()
    assert not (tmp_path / "sprung").exists()


def save(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


class TestErrors:
    """Each leaves no target and no scraps behind."""

    @pytest.fixture(autouse=True)
    def _clean(self, tmp_path: Path) -> Any:
        yield
        assert not (tmp_path / "out.pkl").exists()
        assert list(tmp_path.glob(".*")) == []

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(squeeze_patch.CheckpointError, match="no such file"):
            convert(tmp_path / "none.pkl", tmp_path / "out.pkl", trust=True)

    @pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(list(range(1000)))[:-30]])
    def test_damaged(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "bad.pkl").write_bytes(content)
        with pytest.raises(squeeze_patch.CheckpointError, match=r"bad\.pkl"):
            convert(tmp_path / "bad.pkl", tmp_path / "out.pkl", trust=True)

    def test_torch_archive(self, tmp_path: Path) -> None:
        torch.save({"g": 1}, tmp_path / "x.pt")
        with pytest.raises(squeeze_patch.CheckpointError, match=r"no generator.*g: int"):
            convert(tmp_path / "x.pt", tmp_path / "out.pkl", trust=True)

    def test_no_generator(self, tmp_path: Path) -> None:
        source = save(tmp_path / "x.pkl", {"D": torch.nn.Linear(2, 2), "n": 3})
        with pytest.raises(squeeze_patch.CheckpointError, match="no generator.*D: Linear, n: int"):
            convert(source, tmp_path / "out.pkl", trust=True)

    def test_refused_generator(self, tmp_path: Path, draggan: Host) -> None:
        source = save(tmp_path / "x.pkl", {"G_ema": draggan.generator(architecture="resnet")})
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="architecture 'resnet'"):
            convert(source, tmp_path / "out.pkl", trust=True)

    def test_squeezed_already(self, tmp_path: Path) -> None:
        source = save(tmp_path / "x.pkl", {"G_ema": squeeze_patch.apply(trained_generator())})
        with pytest.raises(squeeze_patch.StateError, match="G_ema is squeezed already"):
            convert(source, tmp_path / "out.pkl", trust=True)

    def test_impossible_ratio(self, tmp_path: Path) -> None:
        source = save(tmp_path / "x.pkl", trained_generator())
        with pytest.raises(squeeze_patch.PlanError, match="ratio"):
            convert(source, tmp_path / "out.pkl", trust=True, ratio=0.1)

    def test_code_that_fails(self, tmp_path: Path) -> None:
        (tmp_path / "x.pkl").write_bytes(b"cbuiltins\nint\n(Vfour\ntR.")
        with pytest.raises(squeeze_patch.CheckpointError, match="cannot be rebuilt: ValueError"):
            convert(tmp_path / "x.pkl", tmp_path / "out.pkl", trust=True)

    def test_no_folder(self, tmp_path: Path) -> None:
        source = save(tmp_path / "x.pkl", trained_generator())
        with pytest.raises(squeeze_patch.CheckpointError, match="no folder"):
            convert(source, tmp_path / "nowhere" / "out.pkl", trust=True)
        with pytest.raises(squeeze_patch.CheckpointError, match="is a folder"):
            convert(source, tmp_path, trust=True)

    def test_host_folder(self, tmp_path: Path) -> None:
        source = save(tmp_path / "x.pkl", trained_generator())
        with pytest.raises(squeeze_patch.CheckpointError, match="no torch_utils"):
            convert(source, tmp_path / "out.pkl", trust=True, host=tmp_path)

    def test_host_modules_missing(self, tmp_path: Path) -> None:
        (tmp_path / "x.pkl").write_bytes(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n.")
        with pytest.raises(squeeze_patch.CheckpointError, match="torch_utils.*--host DIR"):
            convert(tmp_path / "x.pkl", tmp_path / "out.pkl", trust=True)

    def test_two_hosts_in_one_process(self, tmp_path: Path, draggan: Host) -> None:
        import torch_utils  # noqa: F401  (draggan's)

        (tmp_path / "other" / "torch_utils").mkdir(parents=True)
        source = save(tmp_path / "x.pkl", trained_generator())
        with pytest.raises(squeeze_patch.CheckpointError, match="another host.*new process"):
            convert(source, tmp_path / "out.pkl", trust=True, host=tmp_path / "other")


def test_existing_targets(tmp_path: Path) -> None:
    source = save(tmp_path / "x.pkl", trained_generator())
    target = tmp_path / "out.pkl"
    target.write_text("precious")
    with pytest.raises(squeeze_patch.CheckpointError, match="--force"):
        convert(source, target, trust=True)
    assert target.read_text() == "precious"
    with pytest.raises(squeeze_patch.CheckpointError, match="same file"):
        convert(source, source, trust=True, force=True)
    convert(source, target, trust=True, force=True)
    assert squeeze_patch.status(read(target, trust=True)).state == "squeezed"


def test_an_interrupted_write_leaves_source_and_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "x.pkl", trained_generator())
    target = tmp_path / "out.pkl"
    target.write_text("precious")
    before = source.read_bytes()

    def interrupted(_data: Any, stream: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, trust=True, force=True)
    assert target.read_text() == "precious"
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pkl", "x.pkl"]


def test_generators_of_other_shapes_are_squeezed_by_the_same_ratio(draggan: Host, tmp_path: Path) -> None:
    data = {"G_ema": draggan.generator(), "small": draggan.generator(resolution=16)}
    done = convert(save(tmp_path / "x.pkl", data), tmp_path / "out.pkl", trust=True, ratio=2)
    loaded = generators(read(tmp_path / "out.pkl", trust=True))
    assert not done.shared_channels
    assert {name: squeeze_patch.status(one.root).state for name, one in loaded.items()} == {
        "G_ema": "squeezed",
        "small": "squeezed",
    }


def test_progress_counts_up_to_the_end(draggan: Host, tmp_path: Path) -> None:
    write_checkpoint(draggan, tmp_path / "dense.pkl")
    steps: list[Any] = []
    convert(tmp_path / "dense.pkl", tmp_path / "out.pkl", trust=True, progress=lambda *step: steps.append(step))
    allocating = [(done, total) for what, done, total in steps if what == "allocating"]
    assert allocating == [(done, 9) for done in range(1, 10)]  # gradients, four blocks, the same of its rival's start
    starts = steps[len(allocating) :]
    assert [done for _, done, _ in starts] == list(range(1, 9))
    assert starts[0] == ("G_ema.b4", 1, 8)
    assert starts[-1] == ("G.b32", 8, 8)


def test_images_of_the_file_are_those_in_process(draggan: Host, tmp_path: Path) -> None:
    dense = write_checkpoint(draggan, tmp_path / "dense.pkl")
    convert(tmp_path / "dense.pkl", tmp_path / "out.pkl", trust=True)
    loaded = read(tmp_path / "out.pkl", trust=True)["G_ema"]
    G = squeeze_patch.apply(dense["G_ema"])
    z, c = latents(G)
    assert torch.equal(G(z, c, noise_mode="const"), loaded(z, c, noise_mode="const"))


def test_one_object_under_two_names(full_host: Host, tmp_path: Path) -> None:
    """Squeezed once, reported as one, and one object again in the file that comes out."""
    G = trained(full_host.generator())
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G": G, "G_ema": G, "D": full_host.discriminator()}))
    command = ["convert", str(tmp_path / "dense.pkl"), str(tmp_path / "out.pkl"), "--trust", "--init", "weights"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "squeezed    G_ema\n            G is the same object as G_ema, and stays so\n" in done.output
    assert "unchanged   D\n" in done.output
    data = read(tmp_path / "out.pkl", trust=True)
    assert data["G"] is data["G_ema"]
    assert squeeze_patch.status(data["G"]).state == "squeezed"
    lines = CliRunner().invoke(main, ["info", str(tmp_path / "out.pkl"), "--trust"]).output.splitlines()
    assert lines[1] == "G_ema: the same object as G"
    rows = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "out.pkl"), "--trust", "--json"]).output)
    assert (rows["G"]["same_as"], rows["G_ema"]["same_as"]) == (None, "G")


def test_generators_inside_of_something_else_are_told(draggan: Host, tmp_path: Path) -> None:
    """Read without trust they are records, which stay; read with it they are one object, which does, too."""
    G = trained(draggan.generator())
    other = trained(draggan.generator(), 1)
    data = {"G_ema": G, "all": [G], "snap": {"G": G}, "other": (1, other), "note": ["word"], "g": other.state_dict()}
    (tmp_path / "nested.pkl").write_bytes(pickle.dumps(data))
    told = {}
    for trust in (False, True):
        with pytest.warns(squeeze_patch.LostWarning) as warned:
            convert(tmp_path / "nested.pkl", tmp_path / f"{trust}.pkl", trust=trust, init="weights", ratio=2)
        told[trust] = [str(each.message) for each in warned]
    stays = "holds the generator G_ema once more, which stays dense there, as an object of its own"
    within = "other holds a generator inside of something else, which stays dense"
    state = "g is a generator's state dict beside whole networks, and stays dense"
    assert told[False] == [f"all {stays}", f"snap {stays}", within, state]
    goes = "holds the generator G_ema once more, which is squeezed there, too"
    assert told[True] == [f"all {goes}", f"snap {goes}", within, state]
    for trust, same in ((False, "dense"), (True, "squeezed")):
        written = read(tmp_path / f"{trust}.pkl", trust=True)
        assert squeeze_patch.status(written["G_ema"]).state == "squeezed"
        assert [squeeze_patch.status(inner).state for inner in (*written["all"], written["snap"]["G"])] == [same] * 2


def test_whole_networks_and_state_dicts(draggan: Host, tmp_path: Path) -> None:
    """Of one file of torch.save, those are read without trust, both are read with it; and numbers as names."""
    G, g = trained(draggan.generator(resolution=8)), trained(draggan.generator(resolution=8), 1)
    torch.save({"G_ema": G, "g": g.state_dict()}, tmp_path / "both.pt")
    torch.save({"g": g.state_dict(), "D": torch.nn.Linear(2, 2)}, tmp_path / "states.pt")
    torch.save({0: G, "mask": torch.eye(2).to_sparse()}, tmp_path / "numbers.pt")
    how: Any = {"init": "weights", "ratio": 2, "force": True}
    with pytest.warns(squeeze_patch.LostWarning, match=r"^g is a generator's .* stays dense: --trust .* reads both"):
        assert convert(tmp_path / "both.pt", tmp_path / "out.pt", **how).generators == ("G_ema",)
    assert convert(tmp_path / "both.pt", tmp_path / "out.pt", trust=True, **how).generators == ("G_ema", "g")
    with pytest.raises(squeeze_patch.CheckpointError, match=r"D: Linear\); g is a generator's state dict: --trust"):
        convert(tmp_path / "states.pt", tmp_path / "out.pt", **how)
    assert convert(tmp_path / "states.pt", tmp_path / "out.pt", trust=True, **how).generators == ("g",)
    done = convert(tmp_path / "numbers.pt", tmp_path / "out.pt", trust=True, **how)
    assert (done.generators, done.carried, done.aliases) == (("0",), ("mask",), {})


@pytest.mark.parametrize("wrapped", [lambda G: [G], lambda G: {"model": {"G": G}}, lambda G: {"m": G.state_dict()}])
def test_where_else_a_generator_is(wrapped: Any, draggan: Host, tmp_path: Path) -> None:
    """Nothing is found; the message says what to do."""
    G = trained(draggan.generator(resolution=8))
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps(wrapped(G)))
    words = (
        "(the file|model) holds a generator inside of something else: save that .*|m is a generator's state dict: save"
    )
    for trust in (False, True):
        with pytest.raises(squeeze_patch.CheckpointError, match=words):
            convert(tmp_path / "dense.pkl", tmp_path / "out.pkl", trust=trust)


def test_nothing_that_is_not_finite_is_written(full_host: Host, tmp_path: Path) -> None:
    """Whatever the start."""
    data = write_checkpoint(full_host, tmp_path / "dense.pkl")
    data["G"].mapping.w_avg[0] = float("nan")
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps(data))
    for init in ("calibrated", "random"):
        with pytest.raises(squeeze_patch.CheckpointError, match="pkl: G.mapping.w_avg holds values that are not"):
            convert(tmp_path / "dense.pkl", tmp_path / "out.pkl", trust=True, init=init)
    assert not (tmp_path / "out.pkl").exists()


def test_wishes_that_add_parameters_warn(full_host: Host, tmp_path: Path) -> None:
    write_checkpoint(full_host, tmp_path / "dense.pkl")
    source = [str(tmp_path / "dense.pkl"), "--trust", "--ratio", "1"]
    for command in (
        ["plan", *source],
        ["convert", source[0], str(tmp_path / "out.pkl"), *source[1:], "--init", "random"],
    ):
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        plan = squeeze_patch.plan(read(tmp_path / "dense.pkl", trust=True)["G_ema"], ratio=1)
        more = plan.parameters_after - plan.parameters_before
        assert f"Warning: this adds {more:,} parameters to each generator" in done.output
    assert "Warning" not in CliRunner().invoke(main, ["plan", *source[:2]], catch_exceptions=False).output
