"""convert --fuse: files whose generators sample faster wherever they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.fused_files import fuse_file, holds_squeezed
from squeeze_patch.checkpoints.io import read
from squeeze_patch.errors import CheckpointError, StateError
from squeeze_patch.testing import float_error
from tests.helpers import FLAT_HOSTS, TYPED, cli, run_in_host, write_checkpoint
from tests.hosts import Host

#: in a process without squeeze_patch: loads a file as its host does, writes what its blocks say and an image
SCRIPT = """
import pickle, sys, torch
path, out = sys.argv[1:]
with open(path, "rb") as stream:
    data = pickle.load(stream)
assert "squeeze_patch" not in sys.modules
found = {}
for name in ("G", "G_ema"):
    G = data[name]
    blocks = [getattr(G.synthesis, f"b{r}") for r in G.synthesis.block_resolutions]
    z = torch.ones([2, G.z_dim]) * torch.tensor([[1.0], [-1.0]])
    found[name] = ([block.fused for block in blocks], G(z, torch.zeros([2, G.c_dim]), noise_mode="const").detach())
torch.save(found, out)
"""


@pytest.fixture
def dense(host: Host, tmp_path: Path) -> Path:
    write_checkpoint(host, tmp_path / "dense.pkl", resolution=32, num_fp16_res=0)
    return tmp_path / "dense.pkl"


@TYPED
@pytest.mark.parametrize("trust", [False, True])
def test_fused_in_the_untouched_host(trust: bool, dense: Path, host: Host, tmp_path: Path) -> None:
    """Read with and without running the file; the images are those of the unfused file."""
    for name, fuse in (("plain", False), ("fused", True)):
        squeeze_patch.convert(dense, tmp_path / f"{name}.pkl", trust=trust, ratio=2, init="weights", fuse=fuse)
        (tmp_path / "run.py").write_text(SCRIPT)
        run_in_host(
            host, tmp_path, str(tmp_path / "run.py"), str(tmp_path / f"{name}.pkl"), str(tmp_path / f"{name}.pt")
        )
    plain, fused = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("plain", "fused"))
    G = read(tmp_path / "plain.pkl", trust=trust)["G_ema"]
    for name in ("G", "G_ema"):
        assert plain[name][0] == [False] * 4
        assert fused[name][0] == [True] * 4
        assert (plain[name][1] - fused[name][1]).abs().max() <= float_error(G, plain[name][1])


def test_command(dense: Path, tmp_path: Path) -> None:
    """Of a dense file and of a squeezed one: the same weights."""
    assert cli("convert", dense, tmp_path / "once.pkl", "--ratio", 2, "--init", "weights", "--fuse")[0] == 0
    assert cli("convert", dense, tmp_path / "squeezed.pkl", "--ratio", 2, "--init", "weights")[0] == 0
    code, out, _ = cli("convert", tmp_path / "squeezed.pkl", tmp_path / "twice.pkl", "--fuse")
    assert code == 0
    assert "fused       G, G_ema" in out
    G = {name: read(tmp_path / f"{name}.pkl", trust=False)["G_ema"] for name in ("once", "squeezed", "twice")}
    assert {name: squeeze_patch.status(one).fused_blocks for name, one in G.items()} == {
        "once": 4,
        "squeezed": 0,
        "twice": 4,
    }
    states = [one.state_dict() for one in G.values()]
    assert all(states[0][name].equal(state[name]) for state in states for name in states[0])
    assert "fused" in cli("info", tmp_path / "twice.pkl")[1]
    assert "fused" not in cli("info", tmp_path / "squeezed.pkl")[1]


def test_squeezed_file_without_fuse_is_refused_still(dense: Path, tmp_path: Path) -> None:
    squeeze_patch.convert(dense, tmp_path / "squeezed.pkl", ratio=2, init="weights")
    assert holds_squeezed(tmp_path / "squeezed.pkl", trust=False)
    assert not holds_squeezed(dense, trust=False)
    for arguments in ([], ["--fuse", "--ratio", 2], ["--fuse", "--init", "random"]):
        code, _, error = cli("convert", tmp_path / "squeezed.pkl", tmp_path / "new.pkl", *arguments)
        assert code == 2
        assert "squeezed already" in error
    with pytest.raises(StateError, match="only squeezed generators run fused"):
        fuse_file(dense, tmp_path / "new.pkl")
    assert not (tmp_path / "new.pkl").exists()


def test_state_dicts_cannot_say_it(tmp_path: Path) -> None:
    """They hold tensors alone: refused, with what to do instead, before anything is written."""
    flat = FLAT_HOSTS["draggan-rosinality"]
    with flat.active():
        torch.save({"g_ema": flat.generator(resolution=8).state_dict()}, tmp_path / "dense.pt")
    with pytest.raises(CheckpointError, match=r"state dict, which has no place .*call squeeze_patch.fuse\(G\) then"):
        squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights", fuse=True)
    assert cli("convert", tmp_path / "dense.pt", tmp_path / "squeezed.pt", "--init", "weights")[0] == 0
    code, _, error = cli("convert", tmp_path / "squeezed.pt", tmp_path / "fused.pt", "--fuse")
    assert code == 2
    assert "state dict" in error
    assert not (tmp_path / "fused.pt").exists()


def test_a_name_that_asks_for_a_state_dict(dense: Path, tmp_path: Path) -> None:
    """Of a squeezed file, as of a dense one: no pickle under the name of another kind of file."""
    squeeze_patch.convert(dense, tmp_path / "squeezed.pkl", ratio=2, init="weights")
    code, _, error = cli("convert", tmp_path / "squeezed.pkl", tmp_path / "out.safetensors", "--fuse")
    assert code == 2
    assert "state dict" in error
    assert not (tmp_path / "out.safetensors").exists()


def test_one_generator_alone_cannot_say_it(dense: Path, tmp_path: Path) -> None:
    for arguments in (["out.pt", "--format", "pt"], ["out.safetensors"]):
        code, _, error = cli("convert", dense, tmp_path / arguments[0], *arguments[1:], "--fuse", "--init", "weights")
        assert code == 2
        assert "state dict" in error
        assert not (tmp_path / arguments[0]).exists()


def test_fused_training_goes_on(dense: Path, tmp_path: Path) -> None:
    """A fused G in training mode is trained as before: it has the gradients of the plain one."""
    for name, fuse in (("plain", False), ("fused", True)):
        squeeze_patch.convert(dense, tmp_path / f"{name}.pkl", ratio=2, init="weights", fuse=fuse)
    found = []
    for name in ("plain", "fused"):
        G: Any = read(tmp_path / f"{name}.pkl", trust=False)["G"].train().requires_grad_(True)
        G(torch.ones([2, G.z_dim]), torch.zeros([2, G.c_dim]), noise_mode="const").square().mean().backward()
        found.append([parameter.grad for parameter in G.parameters() if parameter.grad is not None])
    assert all(one.equal(other) for one, other in zip(*found))
    assert len(found[0]) == len(found[1]) > 30
