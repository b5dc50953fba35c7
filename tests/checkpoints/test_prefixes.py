"""Files of state dicts in which the generator stands under a prefix, beside other networks, or lacks noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Tuple

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.checkpoints.generators import inspect, load_generator
from squeeze_patch.cli import main
from squeeze_patch.testing import float_error, trained
from tests.helpers import RESTRICTED, same, tensors
from tests.hosts.flat import FlatHost

State = Mapping[str, torch.Tensor]
ENCODER = {"encoder.body.weight": torch.arange(6.0).reshape(2, 3)}


def under(prefix: str, state: State) -> Dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def below(prefix: str, state: State) -> Dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


#: {kind of file: (how it is made of a generator's state, where a generator's state is in it, {name that is reported})}
FILES: Dict[str, Tuple[Callable[[State], Any], Callable[[Any], State], str]] = {
    "parallel": (
        lambda s: {"g_ema": under("module.", s), "args": {"size": 32}},
        lambda data: below("module.", data["g_ema"]),
        "g_ema",
    ),
    "bare and parallel": (lambda s: under("module.", s), lambda data: below("module.", data), ""),
    "encoder and decoder": (
        lambda s: {
            "state_dict": {**ENCODER, **under("decoder.", s)},
            "latent_avg": torch.ones(32),
            "opts": {"size": 32},
        },
        lambda data: below("decoder.", data["state_dict"]),
        "state_dict.decoder",
    ),
    "bare, encoder and decoder": (
        lambda s: {**under("decoder.", s), **ENCODER},
        lambda data: below("decoder.", data),
        "decoder",
    ),
    "deep": (
        lambda s: {"model": {**ENCODER, **under("net.0.G.", s)}},
        lambda data: below("net.0.G.", data["model"]),
        "model.net.0.G",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_found_converted_and_written_back(kind: str, rosinality: FlatHost, tmp_path: Path) -> None:
    make, find, name = FILES[kind]
    G = trained(rosinality.generator())
    dense, squeezed = tmp_path / "dense.pt", tmp_path / "squeezed.pt"
    torch.save(make(tensors(G)), dense)
    done = squeeze_patch.convert(dense, squeezed, ratio=2, init="weights")
    assert done.generators == (name,)
    before, after = torch.load(dense, weights_only=RESTRICTED), torch.load(squeezed, weights_only=RESTRICTED)
    squeeze_patch.apply(G, ratio=2, init="weights")
    assert same(dict(sorted(find(after).items())), dict(sorted(tensors(G).items())))
    rest = [key for key in before if key not in ("state_dict", "model", "g_ema")]
    if name in ("", "decoder"):
        rest = [key for key in before if key.startswith("encoder")]
    assert all(
        torch.equal(torch.as_tensor(before[k]), torch.as_tensor(after[k])) for k in rest if k not in ("args", "opts")
    )
    assert set(before) <= set(after)
    if "state_dict" in before:
        first = [key for key in after["state_dict"] if not key.startswith("decoder.convs") or "excite" not in key]
        assert first == list(before["state_dict"])
        assert torch.equal(after["state_dict"]["encoder.body.weight"], ENCODER["encoder.body.weight"])
    assert [entry.status.state for entry in inspect(squeezed, trust=False).values() if entry.status] == ["squeezed"]
    other = squeeze_patch.load(trained(rosinality.generator(), seed=3), squeezed)
    assert same(tensors(other), tensors(G))


def test_two_of_one_file(rosinality: FlatHost, tmp_path: Path) -> None:
    """The moving average gives the plan, also under its prefix."""
    states = [tensors(trained(rosinality.generator(), seed=seed)) for seed in (0, 1)]
    torch.save({**under("g.module.", states[0]), **under("g_ema.module.", states[1])}, tmp_path / "dense.pt")
    done = squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights")
    assert done.generators == ("g_ema.module", "g.module")
    assert done.shared_channels


def test_into_a_generator_inside_another_module(rosinality: FlatHost, tmp_path: Path) -> None:
    """`load` fills the generator that `apply` would squeeze, and leaves the rest."""
    G = trained(rosinality.generator())
    torch.save({"g_ema": tensors(G)}, tmp_path / "dense.pt")
    squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "squeezed.pt", init="weights")
    net = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "decoder": trained(rosinality.generator(), seed=5)})
    before = net["encoder"].weight.clone()
    squeeze_patch.load(net, tmp_path / "squeezed.pt")
    assert torch.equal(net["encoder"].weight, before)
    assert same(tensors(net["decoder"]), tensors(squeeze_patch.apply(G, init="weights")))


def test_without_noise(rosinality: FlatHost, tmp_path: Path) -> None:
    """Old files store none: converted with proof, measured, recovered; the host's generator keeps its own."""
    G = trained(rosinality.generator())
    state = {name: tensor for name, tensor in tensors(G).items() if not name.startswith("noises.")}
    dense, squeezed, recovered = (tmp_path / f"{name}.pt" for name in ("dense", "squeezed", "recovered"))
    torch.save({"g_ema": state}, dense)
    squeeze_patch.convert(dense, squeezed, ratio=2, init="weights")
    after = torch.load(squeezed, weights_only=RESTRICTED)["g_ema"]
    assert not any(name.startswith("noises.") for name in after)
    bodies = [load_generator(path, trust=False) for path in (dense, squeezed)]
    assert squeeze_patch.compare(*bodies, samples=8).psnr > 0
    command = ["recover", str(dense), str(squeezed), "--out", str(recovered), "--steps", "2", "--batch", "2"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert not any(name.startswith("noises.") for name in torch.load(recovered, weights_only=RESTRICTED)["g_ema"])
    host = trained(rosinality.generator(), seed=7)
    noise = host.noises.noise_3.clone()
    squeeze_patch.load(host, squeezed)
    assert torch.equal(host.noises.noise_3, noise)
    assert all(torch.equal(host.state_dict()[name], tensor) for name, tensor in after.items())


@pytest.mark.parametrize("channels", [1, 4])
def test_image_channels(channels: int, rosinality: FlatHost, tmp_path: Path) -> None:
    state = tensors(trained(rosinality.generator()))
    for name in [name for name in state if name.startswith("to_rgb")]:
        if name.endswith("conv.weight") or (name.endswith(".bias") and state[name].ndim == 4):
            tensor = state[name]
            state[name] = tensor[:, :1].repeat(1, channels, *[1] * (tensor.ndim - 2))
    torch.save({"g_ema": state}, tmp_path / "dense.pt")
    done = squeeze_patch.convert(tmp_path / "dense.pt", tmp_path / "same.pt", ratio=1, init="weights")
    assert done.plan.parameters_before == sum(t.numel() for n, t in state.items() if not _is_buffer(n))
    dense, one = (load_generator(tmp_path / f"{name}.pt", trust=False) for name in ("dense", "same"))
    z = torch.randn(2, 32)
    (a, _), (b, _) = dense([z]), one([z])
    assert a.shape[1] == channels
    assert (a - b).abs().max() <= float_error(dense, a)


def _is_buffer(name: str) -> bool:
    return name.startswith("noises.") or name.endswith("kernel")


def test_what_is_refused(rosinality: FlatHost, tmp_path: Path) -> None:
    """By its true reason: readers beside the generator, an excite that a tool has dropped, a module in place of a
    state dict."""
    G = trained(rosinality.generator())

    def refused(data: Any, words: str, **options: Any) -> None:
        torch.save(data, tmp_path / "file.pt")
        with pytest.raises(squeeze_patch.SqueezeError, match=words):
            squeeze_patch.convert(tmp_path / "file.pt", tmp_path / "out.pt", init="weights", **options)
        assert not (tmp_path / "out.pt").exists()

    readers = {"res.0.norm2.style.weight": torch.ones(2)}
    refused({"g_ema": {**under("generator.", tensors(G)), **readers}}, "this is DualStyleGAN, whose residual layers")
    refused(G, "the file holds a whole Generator, not its state dict", trust=True)
    squeeze_patch.apply(G, init="weights")
    dropped = {name: tensor for name, tensor in tensors(G).items() if "excite" not in name}
    refused({"g_ema": dropped}, r"conv1 is squeezed from 32 to \d+ channels, but there is no convs.0.excite.weight")
