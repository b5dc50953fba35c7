"""basicsr's and gfpgan's files: ``{"params": state, "params_ema": state}``, or one of the two."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.checkpoints.transfer import transfer
from squeeze_patch.evaluation.compare import compare
from squeeze_patch.testing import AdapterContract, float_error, trained
from tests.helpers import FLAT_HOSTS, RESTRICTED, TYPED, check_images, cli
from tests.hosts import Host
from tests.hosts.flat import FlatHost

SMALL: Dict[str, Any] = {"resolution": 8, "w_dim": 16}


@pytest.fixture(params=["basicsr", "gfpgan"])
def host(request: pytest.FixtureRequest) -> Iterator[FlatHost]:
    with FLAT_HOSTS[request.param].active():
        yield FLAT_HOSTS[request.param]


@pytest.fixture
def basicsr() -> Iterator[FlatHost]:
    with FLAT_HOSTS["basicsr"].active():
        yield FLAT_HOSTS["basicsr"]


def save(host: FlatHost, path: Path, **sizes: Any) -> Dict[str, Any]:
    """Write a training run's net_g file; returns its generators, {entry: generator}."""
    found = {name: trained(host.generator(**sizes), seed) for seed, name in enumerate(("params", "params_ema"))}
    torch.save({name: G.state_dict() for name, G in found.items()}, path)
    return found


def call(command: str, *arguments: Any) -> str:
    code, out, err = cli(command, *arguments)
    assert code == 0, err
    return out


class TestStandIns(AdapterContract):
    """The published suite, on the bodies that state dicts get."""

    family = "rosinality"

    # basicsr's own generator goes through the suite, gfpgan's does not
    @pytest.fixture(autouse=True, params=["basicsr", "gfpgan"] if os.environ.get("SQUEEZE_SLOW") else ["gfpgan"])
    def _of_a_host(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.host = FLAT_HOSTS[request.param]
        with self.host.active():
            yield

    def make_generator(self) -> Any:
        return stand_in(self.host.generator().state_dict())

    def latents(self, G: Any) -> Tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(3, 32, generator=torch.Generator().manual_seed(2)), torch.zeros(3, 0)

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = G([z])[0]
        return images

    def calls(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Dict[str, torch.Tensor]:
        return {"z": G([z])[0], "w": G([G.style_mlp(z) * 0.9], input_is_latent=True)[0]}

    def styles_and_images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        ws = G.style_mlp(z)
        return ws, G([ws], input_is_latent=True)[0]


@pytest.mark.parametrize("ratio", [None, 2])
def test_a_state_dict_makes_the_hosts_images(host: FlatHost, ratio: Any) -> None:
    """Dense and squeezed, with the stored noise and without."""
    G = trained(host.generator())
    if ratio:
        squeeze_patch.apply(G, ratio=ratio, init="weights")
    body: Any = stand_in(G.state_dict())
    assert type(body).__module__.startswith("squeeze_patch.")
    assert type(body).__name__ == type(G).__name__
    assert list(body.state_dict()) == list(G.state_dict())
    assert [name for name, _ in body.named_parameters()] == [name for name, _ in G.named_parameters()]
    check_images(host, G, body)


def test_gradients_are_the_hosts(host: FlatHost) -> None:
    """In float64, where rounding (1e-16) is far below the tolerance, which is relative to the largest gradient."""
    G = squeeze_patch.apply(trained(host.generator(**SMALL)), ratio=2, init="weights").double()
    body: Any = stand_in(G.state_dict())
    found = locate(G)
    ws, weight = torch.randn(2, found.running.num_ws(G), 16, dtype=torch.float64), torch.randn(2, 3, 8, 8)
    gradients = []
    for network in (G, body):
        (found.running.synthesis(network, ws, "const") * weight).sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if not n.startswith("style_mlp.")})
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-9 * largest, name


def test_convert_and_load(host: FlatHost, tmp_path: Path) -> None:
    """Without trust, without the host; into its own class then, with the images of squeezing in memory, to the bit."""
    dense = save(host, tmp_path / "net_g.pth", resolution=16)
    before = (tmp_path / "net_g.pth").read_bytes()
    done = convert(tmp_path / "net_g.pth", tmp_path / "squeezed.pth", ratio=2)
    assert (tmp_path / "net_g.pth").read_bytes() == before
    assert (done.generators, done.shared_channels, done.carried) == (("params_ema", "params"), True, ())
    data = read_entries(tmp_path / "squeezed.pth", trust=False)
    assert list(data) == ["params", "params_ema", "squeeze_plan"]
    assert data["squeeze_plan"] == done.plan.to_dict()

    z, c = host.latents(dense["params"])
    expected = squeeze_patch.apply(copy.deepcopy(dense["params_ema"]), ratio=2)
    G = squeeze_patch.load(host.generator(resolution=16), tmp_path / "squeezed.pth").eval()
    assert squeeze_patch.status(G).plan == done.plan
    for noise in ("const", "none"):
        assert torch.equal(host.images(G, z, c, noise), host.images(expected, z, c, noise))
    other = squeeze_patch.load(host.generator(resolution=16), tmp_path / "squeezed.pth", entry="params")
    assert all(torch.equal(value, data["params"][name]) for name, value in other.state_dict().items())
    with pytest.raises(squeeze_patch.StateError, match="params is squeezed already"):
        convert(tmp_path / "squeezed.pth", tmp_path / "twice.pth")

    convert(tmp_path / "net_g.pth", tmp_path / "rows.pth", ratio=2, init="weights")  # leaves conv1's rows as they were
    data = read_entries(tmp_path / "rows.pth", trust=False)
    rows = {name: dense[name].style_convs[1].modulated_conv.weight[0] for name in dense}
    kept = {
        name: [
            int((rows[name] == row).flatten(1).all(dim=1).nonzero())
            for row in data[name]["style_convs.1.modulated_conv.weight"][0]
        ]
        for name in rows
    }
    assert len(kept["params"]) == 16
    assert kept["params"] == kept["params_ema"]


def test_one_entry_alone(host: FlatHost, tmp_path: Path) -> None:
    G = trained(host.generator(**SMALL))
    torch.save({"params": G.state_dict()}, tmp_path / "net_g.pth")
    assert convert(tmp_path / "net_g.pth", tmp_path / "squeezed.pth", init="weights").generators == ("params",)
    squeeze_patch.load(host.generator(**SMALL), tmp_path / "squeezed.pth")
    out = call("compare", tmp_path / "net_g.pth", tmp_path / "net_g.pth", "--samples", 2, "--device", "cpu")
    assert "PSNR                     equal" in out


@TYPED
@pytest.mark.parametrize("name", ["draggan-rosinality", "basicsr", "gfpgan"])
def test_a_file_that_is_a_state_dict(name: str, tmp_path: Path) -> None:
    """Bare, as torch.save(G.state_dict(), ...) writes it; it stays one."""
    host = FLAT_HOSTS[name]
    with host.active():
        G = trained(host.generator(**SMALL))
        torch.save(G.state_dict(), tmp_path / "dense.pth")
        convert(tmp_path / "dense.pth", tmp_path / "squeezed.pth", ratio=2, init="weights")
        expected = squeeze_patch.apply(copy.deepcopy(G), ratio=2, init="weights").state_dict()
        data = torch.load(tmp_path / "squeezed.pth", weights_only=True)
        assert list(data) == list(expected)
        assert all(torch.equal(value, expected[name]) for name, value in data.items())
        loaded = squeeze_patch.load(host.generator(**SMALL), tmp_path / "squeezed.pth")
        found = inspect(tmp_path / "squeezed.pth", trust=False)[""].status
        assert found == squeeze_patch.status(loaded)
        assert "PSNR" in call("compare", *(tmp_path / f"{n}.pth" for n in ("dense", "squeezed")), "--samples", 2)


def test_commands(host: FlatHost, tmp_path: Path) -> None:
    """info, plan, compare and report; figures are those of the host's generators."""
    generators = save(host, tmp_path / "net_g.pth", **SMALL)
    dense, squeezed = tmp_path / "net_g.pth", tmp_path / "squeezed.pth"
    plan = json.loads(call("plan", dense, "--allocate", "uniform", "--json"))
    out = call("convert", dense, squeezed, "--init", "weights")
    assert "squeezed    params_ema, params, with the same channels" in out
    rows = json.loads(call("info", squeezed, "--json"))
    assert {name: (row["class"], squeeze_patch.Plan.from_dict(row["plan"])) for name, row in rows.items()} == {
        name: (type(generators["params"]).__name__, squeeze_patch.Plan.from_dict(plan))
        for name in ("params", "params_ema")
    }
    options = ("--samples", 4, "--json", "--device", "cpu")
    for key, entry in ((None, "params_ema"), ("params", "params"), ("G", "params"), ("G_ema", "params_ema")):
        found = json.loads(call("compare", dense, squeezed, *options, *(("--key", key) if key else ())))
        G = squeeze_patch.load(host.generator(**SMALL), squeezed, entry=entry).eval()
        # decibels of errors far above rounding (1e-6) differ by 1e-3 or less
        assert found["psnr"] == pytest.approx(compare(generators[entry], G, samples=4).psnr, abs=1e-3)
    for rest in ((dense,), (squeezed,), (squeezed, "--against", dense)):
        wish = ("--allocate", "uniform") if rest == (dense,) else ()
        cost = json.loads(call("report", *rest, *wish, "--repeats", 2, "--json", "--device", "cpu"))["cost"]
        assert cost["parameters_before"] == plan["parameters_before"]
        assert cost["parameters_after"] == plan["parameters_after"]
    code, _, err = cli("compare", dense, dense, "--key", "h")
    assert code == 2
    assert "it has params, params_ema; choose one with --key" in err


def test_recover(host: FlatHost, tmp_path: Path) -> None:
    generators = save(host, tmp_path / "net_g.pth", **SMALL)
    dense, squeezed, out = (tmp_path / f"{name}.pth" for name in ("net_g", "squeezed", "out"))
    convert(dense, squeezed, ratio=2, init="weights")
    call("recover", dense, squeezed, "--out", out, "--steps", 40, "--every", 10, "--batch", 8, "--device", "cpu")
    data = read_entries(out, trust=False)
    assert list(data) == ["params", "params_ema", "squeeze_plan"]
    assert all(torch.equal(value, data["params_ema"][name]) for name, value in data["params"].items())
    loaded = [squeeze_patch.load(host.generator(**SMALL), path).eval() for path in (squeezed, out)]
    far, near = (compare(generators["params_ema"], G, samples=32, seed=99, noise_mode="none").psnr for G in loaded)
    assert near > far + 1.7  # half of the 3.5 dB (basicsr) and 4.1 dB (gfpgan) that these 40 steps gain


@TYPED
@pytest.mark.parametrize("ratio", [None, 2])
def test_to_other_families(draggan: Host, basicsr: FlatHost, tmp_path: Path, ratio: Any) -> None:
    """Dense and squeezed: equal images but for rounding, in their hosts' classes."""
    generators = save(basicsr, tmp_path / "net_g.pth")
    source, G = tmp_path / "net_g.pth", generators["params_ema"]
    if ratio:
        source = tmp_path / "squeezed.pth"
        convert(tmp_path / "net_g.pth", source, ratio=ratio, init="weights")
        squeeze_patch.load(G, source)
    z, c = basicsr.latents(G)
    images = basicsr.images(G, z, c)
    done = transfer(source, tmp_path / "network.pt", "rosinality")
    assert (done.origin, done.family, done.generators) == ("rosinality", "rosinality", ("params", "params_ema"))
    assert (done.left, done.mean_style) == ((), True)
    data = torch.load(tmp_path / "network.pt", weights_only=RESTRICTED)
    assert set(data) >= {"g", "g_ema", "latent_avg"}
    flat = FLAT_HOSTS["draggan-rosinality"]
    with flat.active():
        ours = flat.generator(channel_base=1024)
        if ratio:
            squeeze_patch.load(ours, tmp_path / "network.pt")
        else:
            ours.load_state_dict(data["g_ema"], strict=True)
        assert (flat.images(ours, z, c) - images).abs().max() <= float_error(G, images)
    with draggan.active():
        transfer(source, tmp_path / "network.pkl", "nvidia", host=draggan.folder)
        theirs = pickle.loads((tmp_path / "network.pkl").read_bytes())["G_ema"]
        assert (draggan.images(theirs, z, c) - images).abs().max() <= float_error(G, images)


class TestRefusals:
    def refused(self, state: Any, folder: Path, match: str, *arguments: Any) -> None:
        """By convert, in one line, and nothing is written."""
        torch.save({"params_ema": state}, folder / "x.pth")
        code, _, err = cli("convert", folder / "x.pth", folder / "out.pth", *arguments)
        assert code == 2
        assert match in err
        assert len(err.strip().splitlines()) == 1
        assert not (folder / "out.pth").exists()

    def test_restoration_networks(self, gfpgan: FlatHost, tmp_path: Path) -> None:
        """gfpgan's own files; what the message advises works."""
        from gfpgan.archs.gfpganv1_clean_arch import GFPGANv1Clean

        network = GFPGANv1Clean(32, 32, narrow=1 / 16, num_mlp=2, input_is_latent=True, different_w=True).eval()
        message = "x.pth: params_ema: this is the state of a restoration network of gfpgan's"
        self.refused(network.state_dict(), tmp_path, message)
        for command in (("info",), ("plan",), ("compare", tmp_path / "x.pth"), ("report",)):
            code, _, err = cli(*command, tmp_path / "x.pth")
            assert code == 2
            assert message in err
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="restoration network"):
            squeeze_patch.load(gfpgan.generator(), tmp_path / "x.pth")
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="restoration network"):
            transfer(tmp_path / "x.pth", tmp_path / "out.pth", "rosinality")
        with pytest.warns(squeeze_patch.UnprovedWarning, match="it wants conditions, too"):
            squeeze_patch.apply(network.stylegan_decoder, init="weights")
        images, _ = network(torch.zeros(1, 3, 32, 32), return_rgb=False)
        assert images.shape == (1, 3, 32, 32)

    def test_clean_generators_stay_in_their_family(self, gfpgan: FlatHost, tmp_path: Path) -> None:
        state = trained(gfpgan.generator(**SMALL)).state_dict()
        self.refused(state, tmp_path, "cannot be carried to another family: it upsamples bilin", "--to", "rosinality")

    def test_other_networks(self, host: FlatHost, tmp_path: Path) -> None:
        name = {"basicsr": "basicsr's StyleGAN2Generator", "gfpgan": "gfpgan's StyleGAN2GeneratorClean"}[host.name]
        whole = host.generator(**SMALL).state_dict()
        bias = "activate.bias" if host.name == "basicsr" else "bias"
        start = f"this looks like the state of {name}, but is another network's: "
        self.refused({**whole, "final_linear.weight": torch.ones(2)}, tmp_path, start)
        state = {key: value for key, value in whole.items() if key != f"style_convs.1.{bias}"}
        self.refused(state, tmp_path, start)
        state = {**whole, "style_convs.0.modulated_conv.weight": torch.ones(32, 32, 3, 3)}
        self.refused(state, tmp_path, start)

    def test_an_unusual_mapping_network(self, basicsr: FlatHost, tmp_path: Path) -> None:
        self.refused(basicsr.generator(**SMALL, lr_mlp=1).state_dict(), tmp_path, "lr_mlp=0.01")
        state = trained(basicsr.generator(**SMALL, lr_mlp=1)).state_dict()
        self.refused(state, tmp_path, "lr_mlp=0.01", "--to", "rosinality")

    def test_another_filter_in_memory(self, basicsr: FlatHost) -> None:
        """The filter is in no file; a generator at hand has one."""
        found = locate(G := basicsr.generator(resample_kernel=(1, 2, 2, 1)))
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="another filter"):
            found.interchange.to_common(G, G)
