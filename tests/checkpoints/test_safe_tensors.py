"""A generator alone in a file of safetensors or of torch.save, out and in."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.safe_tensors import _apart, alone, check_name, read_tensors
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.sampling import sample
from squeeze_patch.testing import float_error, trained
from tests.helpers import cli, same, tensors, write_checkpoint
from tests.hosts import Host
from tests.hosts.flat import FlatHost


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_out_of_a_hosts_pickle_and_into_its_generator(full_host: Host, tmp_path: Path, form: str) -> None:
    """Neither trust nor host to write it, no pickle in it, and the same images where it is loaded."""
    write_checkpoint(full_host, tmp_path / "dense.pkl")
    out = tmp_path / f"G.{form}"
    code, text, err = cli("convert", tmp_path / "dense.pkl", out, "--ratio", "2", "--format", form)
    assert (code, err) == (0, "")
    assert "left out    G, training_set_kwargs, D" in text
    convert(tmp_path / "dense.pkl", tmp_path / "whole.pkl", ratio=2)
    whole = pickle.loads((tmp_path / "whole.pkl").read_bytes())["G_ema"]
    G = squeeze_patch.load(full_host.generator(), out)
    assert same(tensors(G), tensors(whole))
    assert squeeze_patch.status(G) == squeeze_patch.status(whole)
    z, c = full_host.latents(G)
    # both in eval mode: hosts fuse modulation and convolution by it, which round otherwise
    assert torch.equal(full_host.images(G.eval(), z, c), full_host.images(whole.eval(), z, c))
    if form == "safetensors":
        with safe_open(str(out), framework="pt") as file:
            assert squeeze_patch.Plan.from_dict(json.loads(file.metadata()["squeeze_plan"])).widths
    else:
        assert list(load_tensors(out)) == ["G_ema", "squeeze_plan"]
    assert re.search("squeezed: [1-4] of 4 blocks", cli("info", out)[1])
    psnr = json.loads(cli("compare", out, tmp_path / "whole.pkl", "--samples", "4", "--device", "cpu", "--json")[1])[
        "psnr"
    ]
    assert psnr is None or psnr > 120  # equal, or but for the rounding of gains: 6e-8, 24 bits, 144 dB


def test_other_families(rosinality: FlatHost, tmp_path: Path) -> None:
    G = trained(rosinality.generator())
    torch.save({"g_ema": G.state_dict(), "latent_avg": torch.zeros(32)}, tmp_path / "dense.pt")
    convert(tmp_path / "dense.pt", tmp_path / "G.safetensors", ratio=2, form="safetensors")
    loaded = squeeze_patch.load(rosinality.generator(), tmp_path / "G.safetensors")
    stored = read_tensors(tmp_path / "G.safetensors")[""]
    assert sorted(stored) == sorted(tensors(loaded))
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors(loaded).items())


def test_a_dense_file_is_squeezed_in_its_own_format(draggan: Host, tmp_path: Path) -> None:
    G = trained(draggan.generator())
    save_file(G.state_dict(), str(tmp_path / "dense.safetensors"), metadata={"format": "pt"})
    body: Any = read(tmp_path / "dense.safetensors", trust=False)[""]
    assert (sample(body, 4, seed=0, noise_mode="const") - sample(G, 4, seed=0, noise_mode="const")).abs().max() <= (
        float_error(G, sample(G, 4, seed=0, noise_mode="const"))
    )
    done = convert(tmp_path / "dense.safetensors", tmp_path / "squeezed.safetensors", ratio=2)
    entries = read_tensors(tmp_path / "squeezed.safetensors")
    assert squeeze_patch.Plan.from_dict(entries["squeeze_plan"]) == done.plan
    with pytest.raises(squeeze_patch.StateError, match="squeezed already"):
        convert(tmp_path / "squeezed.safetensors", tmp_path / "twice.safetensors")


def test_what_a_state_dict_does_not_say_is_refused(draggan: Host) -> None:
    G: Any = trained(draggan.generator())
    G.synthesis.b8.conv1.activation = "linear"
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="another activation"):
        alone(locate(G), "safetensors")


@pytest.mark.parametrize(
    "data",
    [
        (9).to_bytes(8, "little") + b'{"a": 1}}' + bytes(8),
        (2).to_bytes(8, "little") + b"{}"[:1] + b"x",
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4]}}',
    ],
)
def test_damaged_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.safetensors").write_bytes(data)
    with pytest.raises(squeeze_patch.CheckpointError, match="no readable file of safetensors"):
        read(tmp_path / "file.safetensors", trust=False)


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    for words in ("nonsense", "{}", "[1]"):
        save_file({"a": torch.zeros(1)}, str(tmp_path / "x.safetensors"), metadata={"squeeze_plan": words})
        with pytest.raises(squeeze_patch.CheckpointError, match="squeeze_plan is no"):
            read(tmp_path / "x.safetensors", trust=False)


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(squeeze_patch.MissingPackageError, match=r"squeeze-patch\[safetensors\]"):
        convert(tmp_path / "dense.pkl", tmp_path / "out.safetensors", form="safetensors")


def test_tensors_that_share_numbers_have_their_own() -> None:
    one, other = torch.ones(6), torch.zeros(2)
    found = _apart({"a": one, "b": one.view(2, 3), "c": one, "d": other})
    assert len({tensor.data_ptr() for tensor in found.values()}) == 4
    assert (found["b"].shape, found["c"].tolist(), found["d"]) == ((2, 3), [1] * 6, other)


def test_names_of_safetensors_are_for_such_files(tmp_path: Path) -> None:
    for name in ("file.pt", "file"):
        check_name(tmp_path / name, {})
    with pytest.raises(squeeze_patch.CheckpointError, match="convert --format safetensors"):
        check_name(tmp_path / "file.safetensors", {})
