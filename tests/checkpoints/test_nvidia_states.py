"""State dicts with the NVIDIA family's names, as forks save them by torch.save."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters.nvidia.states import generator_from_state
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.checkpoints.transfer import transfer
from squeeze_patch.demo import trained_generator
from squeeze_patch.sampling import sample
from squeeze_patch.testing import float_error, trained
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from tests.helpers import FORKS, HOSTS, same, tensors
from tests.hosts import Host

FAMILY = {name: host for name, host in {**HOSTS, **FORKS}.items() if host.family == "nvidia"}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("classes", [0, 3])
def test_bodies_are_the_hosts(name: str, classes: int, tmp_path: Path) -> None:
    """Names, order and images, dense and squeezed; a squeezed file goes into the host's generator."""
    host = FAMILY[name]
    with host.active():
        G = trained(host.generator(c_dim=classes))
        torch.save({"state_dict": G.state_dict(), "epoch": 3}, tmp_path / "dense.pth")
        body: Any = read(tmp_path / "dense.pth", trust=False)["state_dict"]
        assert same(tensors(body), tensors(G))
        assert [name for name, _ in body.named_parameters()] == [name for name, _ in G.named_parameters()]
        assert (body.z_dim, body.c_dim, body.img_resolution) == (G.z_dim, G.c_dim, G.img_resolution)
        z, c = host.latents(G)
        expected = host.images(G, z, c)
        assert (body(z, c, noise_mode="const") - expected).abs().max() <= float_error(G, expected)
        convert(tmp_path / "dense.pth", tmp_path / "squeezed.pth", ratio=2)
        assert load_tensors(tmp_path / "squeezed.pth")["epoch"] == 3
        loaded = squeeze_patch.load(host.generator(c_dim=classes), tmp_path / "squeezed.pth")
        body = read(tmp_path / "squeezed.pth", trust=False)["state_dict"]
        assert squeeze_patch.status(body).plan == squeeze_patch.status(loaded).plan
        expected = host.images(loaded, z, c)
        assert (body(z, c, noise_mode="const") - expected).abs().max() <= float_error(loaded, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_other_shapes(draggan: Host, tmp_path: Path, kind: str) -> None:
    G = trained(draggan.generator())
    plan = plan_of_kind(G, kind)
    torch.save({"state_dict": G.state_dict()}, tmp_path / "dense.pth")
    convert(tmp_path / "dense.pth", tmp_path / "new.pth", plan=plan, init="weights")
    body: Any = read(tmp_path / "new.pth", trust=False)["state_dict"]
    status = squeeze_patch.status(body)
    assert (status.state, status.plan) == ("squeezed", plan)
    loaded = squeeze_patch.load(draggan.generator(), tmp_path / "new.pth")
    z, c = draggan.latents(loaded)
    expected = draggan.images(loaded, z, c)
    assert (body(z, c, noise_mode="const") - expected).abs().max() <= float_error(loaded, expected)


def test_moments_follow(draggan: Host, tmp_path: Path) -> None:
    G = trained(draggan.generator())
    optimiser = torch.optim.Adam(G.requires_grad_(True).parameters())
    for parameter in G.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    torch.save({"state_dict": G.state_dict(), "optimizer": optimiser.state_dict()}, tmp_path / "dense.pth")
    done = convert(tmp_path / "dense.pth", tmp_path / "squeezed.pth", ratio=2)
    body = read(tmp_path / "squeezed.pth", trust=False)["state_dict"]
    moments = load_tensors(tmp_path / "squeezed.pth")["optimizer"]["state"]
    names = [name for name, _ in body.named_parameters()]
    assert [name for number, name in enumerate(names) if number not in moments] == [n for n in names if "excite" in n]
    shapes = {number: parameter.shape for number, parameter in enumerate(body.parameters())}
    assert all(moments[number]["exp_avg"].shape == shapes[number] for number in moments)
    assert "optimizer" in done.optimisers[0]


def test_names_of_moments_count(draggan: Host, tmp_path: Path) -> None:
    """Optimisers of named parameters store the names: shapes alone would take another order for the generator's."""
    G = trained(draggan.generator(resolution=8)).requires_grad_(True)
    parameters = dict(G.named_parameters())
    names = [f"module.{name}" for name in parameters]
    other = [name.replace("fc0", "fc2").replace("fc1", "fc0").replace("fc2", "fc1") for name in names]
    assert names != other
    told = []
    for order in (names, other):
        optimiser = torch.optim.Adam([parameters[name[7:]] for name in order])
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        state = optimiser.state_dict()
        state["param_groups"][0]["param_names"] = order
        torch.save({"g": G.state_dict(), "g_optim": state}, tmp_path / "dense.pth")
        done = convert(tmp_path / "dense.pth", tmp_path / "out.pth", ratio=2, init="weights", force=True)
        told += done.optimisers
    assert "follow the kept channels" in told[0]
    assert "in an order that is not the generator's" in told[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_stay_of_their_kind(draggan: Host, tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in trained(draggan.generator()).state_dict().items()}
    torch.save(state, tmp_path / "dense.pth")
    convert(tmp_path / "dense.pth", tmp_path / "squeezed.pth", ratio=2)
    squeezed = load_tensors(tmp_path / "squeezed.pth")
    assert {tensor.dtype for tensor in squeezed.values()} == {dtype}
    assert torch.equal(squeezed["mapping.fc0.weight"], state["mapping.fc0.weight"])
    body: Any = read(tmp_path / "squeezed.pth", trust=False)[""]
    found, expected = (sample(G, 2, seed=0, noise_mode="none") for G in (body, copy.deepcopy(body).float()))
    assert (found - expected).abs().max() <= float_error(body, expected)  # files of half precision run, too


def test_under_a_prefix_and_to_another_family(draggan: Host, tmp_path: Path) -> None:
    G = trained(draggan.generator(w_dim=32))
    beside = {"decoder.net.weight": torch.ones(3)}
    state = {f"backbone.{name}": tensor for name, tensor in G.state_dict().items()}
    torch.save({"G_ema": {**state, **beside}}, tmp_path / "eg3d.pt")
    convert(tmp_path / "eg3d.pt", tmp_path / "squeezed.pt", ratio=2)
    written = load_tensors(tmp_path / "squeezed.pt")["G_ema"]
    assert torch.equal(written["decoder.net.weight"], torch.ones(3))
    assert "backbone.synthesis.b8.excite.weight" in written
    torch.save({"G_ema": G.state_dict()}, tmp_path / "plain.pt")
    assert transfer(tmp_path / "plain.pt", tmp_path / "other.pt", "rosinality").family == "rosinality"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("synthesis.b8.conv1.weight", torch.zeros(3), "other kinds or shapes|has shape"),
        ("synthesis.b8.conv1.weight", torch.zeros(3, 3, 3, 3, dtype=torch.int32), "not floating-point numbers"),
        ("synthesis.b8.conv1.affine.weight", torch.zeros(4), "shapes"),
        ("synthesis.b8.conv2.weight", torch.zeros(3), "no StyleGAN2 generator has synthesis.b8.conv2"),
        ("synthesis.b8.conv1.bias", None, "bias"),
        ("mapping.fc1.weight", None, "weight is missing|no attribute"),
        ("synthesis.b16.torgb.weight", torch.tensor(1.0), "torgb|index"),
    ],
)
def test_damaged_states_are_refused(draggan: Host, name: str, tensor: Any, words: str) -> None:
    state: Dict[str, torch.Tensor] = dict(draggan.generator().state_dict())
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    if name == "synthesis.b8.conv1.bias":
        state["synthesis.b8.conv1.bias"] = torch.zeros(1)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=words):
        generator_from_state(state)


def test_a_tool_that_dropped_excite(draggan: Host) -> None:
    state = squeeze_patch.apply(draggan.generator(), ratio=2, init="random").state_dict()
    del state["synthesis.b8.excite.weight"]
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="dropped it"):
        generator_from_state(state)


def test_nothing_is_loaded_on_the_meta_device() -> None:
    """Torch passes over such tensors with a warning each."""
    state = squeeze_patch.apply(trained_generator(), ratio=2, init="random").state_dict()
    G = trained_generator().to("meta")
    with pytest.raises(squeeze_patch.StateError, match="on the meta device.*build"):
        squeeze_patch.load(G, state)
    assert squeeze_patch.status(G).state == "dense"
