"""Files of torch.save that claim more than they hold, or hold what no generator has: one line each, at once."""

from __future__ import annotations

import io
import resource
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.bodies import MOST
from squeeze_patch.checkpoints.io import read
from squeeze_patch.testing import trained
from tests.helpers import cli
from tests.hosts.flat import FlatHost

State = Dict[str, torch.Tensor]
FIRST = "conv1.conv.weight"


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def repacked(data: bytes, change: Callable[[str, bytes], Dict[str, bytes]], **options: Any) -> bytes:
    """An archive whose members ``change`` has replaced: {name: content} of each."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", **options) as new:
        for name in old.namelist():
            for other, content in change(name, old.read(name)).items():
                new.writestr(other, content)
    return stream.getvalue()


def flipped(state: State) -> bytes:
    """One bit of a weight."""
    data = bytearray(saved({"g_ema": state}))
    at = bytes(data).index(state[FIRST].numpy().tobytes()) + 2
    data[at] ^= 16
    return bytes(data)


def longer(state: State) -> bytes:
    """A storage that claims to have seven times its numbers: torch.load reads beyond it."""
    numbers, claimed = state[FIRST].numel(), 7 * state[FIRST].numel()
    old, new = (b"M" + n.to_bytes(2, "little") for n in (numbers, claimed))
    return repacked(saved({"g_ema": state}), lambda name, data: {name: data.replace(old, new)})


def doubled(data: bytes) -> bytes:
    """The pickle is there twice: tools differ in which they take."""
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(archive.namelist()[0], b"once more")
    return stream.getvalue()


CASES: Dict[str, Any] = {
    "a flipped bit": (flipped, "a checksum is wrong"),
    "a storage of other size": (longer, "has .* bytes, not"),
    "stride 0": (
        lambda state: saved({"g_ema": {**state, FIRST: torch.zeros(1).expand(1, 1024, 1024, 64, 32)}}),
        "2,147,483,648 numbers in a storage of 1",
    ),
    "an archive within": (
        lambda state: repacked(
            saved({"g_ema": state}), lambda name, data: {name: data, f"{name}_": bytes(1 << 24)}, compression=8
        ),
        "claims to hold much more",
    ),
    "two members of one name": (
        lambda state: doubled(saved({"g_ema": state})),
        "two members of one name",
    ),
    "another byte order": (
        lambda state: repacked(
            saved({"g_ema": state}),
            lambda name, data: (
                {name: data, name.replace("data.pkl", "byteorder"): b"big"}
                if name.endswith("data.pkl")
                else {}
                if name.endswith("byteorder")
                else {name: data}
            ),
        ),
        "another byte order",
    ),
    "a data set": (
        lambda state: repacked(saved({"g_ema": state}), lambda name, data: {name.replace("data.pkl", "a.png"): data}),
        "not one of torch.save",
    ),
    "half a file": (lambda state: saved({"g_ema": state})[:-3000], "no readable file of torch.save"),
    "half an old file": (
        lambda state: saved({"g_ema": state}, _use_new_zipfile_serialization=False)[:-100],
        "ends too early",
    ),
    "complex": (lambda state: saved({"g_ema": {**state, FIRST: state[FIRST].cfloat()}}), "complex values"),
    "whole numbers": (lambda state: saved({"g_ema": {**state, FIRST: state[FIRST].int()}}), "int32, not floating"),
    "all of them bool": (lambda state: saved({"g_ema": {n: t.bool() for n, t in state.items()}}), "damaged"),
    "scalars": (lambda state: saved({"g_ema": {n: torch.tensor(1.0) for n in state}}), "damaged"),
    "empty": (lambda state: saved({"g_ema": {n: torch.zeros(0) for n in state}}), "damaged"),
    "a number as key": (lambda state: saved({0: state}), "under the key 0"),
    "no Plan": (lambda state: saved({"g_ema": state, "squeeze_plan": None}), "squeeze_plan is no Plan"),
    "half a Plan": (lambda state: saved({"g_ema": state, "squeeze_plan": {"schema": 1}}), "squeeze_plan is no Plan"),
    "many layers": (
        lambda state: saved({"g_ema": {**state, **{f"style.{n}.bias": torch.zeros(1) for n in range(5, MOST + 5)}}}),
        "no StyleGAN2 generator has so many",
    ),
    "sparse": (lambda state: saved({"g_ema": {**state, FIRST: state[FIRST].to_sparse()}}), "_rebuild_sparse_tensor"),
    "no numbers": (lambda state: saved({"g_ema": {n: t.to("meta") for n, t in state.items()}}), "_rebuild_meta_tensor"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(rosinality: FlatHost, tmp_path: Path, case: str) -> None:
    make, words = CASES[case]
    (tmp_path / "file.pt").write_bytes(make(trained(rosinality.generator()).state_dict()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(squeeze_patch.SqueezeError, match=words):
        read(tmp_path / "file.pt", trust=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; the claims are of gigabytes
    for command in (["info"], ["convert", "--init", "weights"]):
        code, _, err = cli(command[0], tmp_path / "file.pt", *([tmp_path / "out.pt"] if len(command) > 1 else []))
        assert code == 2
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


def test_what_is_unusual_but_sound(rosinality: FlatHost, tmp_path: Path) -> None:
    """Compressed by another tool, views of one storage, empty tensors, numbers as keys beside the generator."""
    state = trained(rosinality.generator()).state_dict()
    whole = torch.arange(12.0)
    tied = torch.ones(4)
    beside = {
        "tied": [tied, tied.view(2, 2)],
        "a": whole[:6],
        "b": whole[6:].view(2, 3).t(),
        "c": torch.zeros(0, 3),
        "d": {1: True},
    }
    data = saved({"g_ema": state, "beside": beside})
    (tmp_path / "file.pt").write_bytes(repacked(data, lambda name, content: {name: content}, compression=8))
    for path in (tmp_path / "file.pt", tmp_path / "old.pt"):
        if path.name == "old.pt":
            path.write_bytes(saved({"g_ema": state, "beside": beside}, _use_new_zipfile_serialization=False))
        found = read(path, trust=False)
        assert all(torch.equal(found["g_ema"].state_dict()[name], tensor) for name, tensor in state.items())
        assert torch.equal(found["beside"]["a"], whole[:6])
        found["beside"]["tied"][0].zero_()  # what shares its numbers goes on sharing them, and is stored once
        assert found["beside"]["tied"][1].sum() == 0
        stream = io.BytesIO()
        torch.save(found["beside"]["tied"], stream)
        with zipfile.ZipFile(stream) as archive:
            assert [name.rpartition("/")[2] for name in archive.namelist() if "/data/" in name] == ["0"]
        assert torch.equal(found["beside"]["b"], beside["b"])
        assert found["beside"]["c"].shape == (0, 3)
        assert found["beside"]["d"] == {1: True}
