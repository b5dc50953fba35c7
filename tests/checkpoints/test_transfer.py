"""Generators carried between families: the same images, files that the other hosts load, refusals."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.rosinality.interchange import RosinalityInterchange
from squeeze_patch.checkpoints.transfer import transfer
from squeeze_patch.cli import main
from squeeze_patch.testing import float_error, trained
from squeeze_patch.testing.shapes_contract import KINDS, plan_of_kind
from tests.helpers import FLAT_HOSTS, RESTRICTED
from tests.hosts import SHIMS, Host
from tests.hosts.flat import FlatHost
from tests.processes import environment_with, python

SCRIPT = """
import sys
import torch, legacy
with open(sys.argv[1], "rb") as stream:
    data = legacy.load_network_pkl(stream)
G = data["G_ema"]
assert data["D"](torch.zeros([2, 3, 32, 32]), None).shape == (2, 1)
z = torch.randn([2, 32], generator=torch.Generator().manual_seed(2))
torch.save(G(z, None, noise_mode="const"), sys.argv[2])
assert "squeeze_patch" not in sys.modules
"""


def checkpoint(host: Host, path: Path, **wish: float) -> Any:
    """A pickle of two generators, squeezed where there is a wish; returns G_ema."""
    data: Any = {name: trained(host.generator(w_dim=32), seed=seed) for seed, name in enumerate(("G", "G_ema"))}
    for G in data.values():
        G.mapping.w_avg.normal_(generator=torch.Generator().manual_seed(3))
        if wish:
            squeeze_patch.apply(G, init="weights", keep_original=False, **wish)  # type: ignore[arg-type]
    path.write_bytes(pickle.dumps({**data, "D": torch.nn.Linear(1, 1), "training_set_kwargs": None}))
    return data["G_ema"]


@pytest.mark.parametrize("wish", [{}, {"ratio": 2.0}, {"ratio": 1.0}], ids=["dense", "squeezed", "full width"])
def test_there_and_back(draggan: Host, rosinality: FlatHost, tmp_path: Path, wish: Any) -> None:
    """Images of all three are equal but for rounding, with stored noise and truncated; tensors are, to the bit."""
    G = checkpoint(draggan, tmp_path / "network.pkl", **wish)
    z = torch.randn([2, 32], generator=torch.Generator().manual_seed(2))
    images = G(z, None, noise_mode="const", truncation_psi=0.7)

    done = transfer(tmp_path / "network.pkl", tmp_path / "network.pt", "rosinality", trust=True)
    assert (done.origin, done.family, done.generators) == ("nvidia", "rosinality", ("G", "G_ema"))
    assert done.left == ("D",)
    assert not done.mean_style
    flat = rosinality.generator(w_dim=32)
    data = torch.load(tmp_path / "network.pt", weights_only=RESTRICTED)
    if wish:
        squeeze_patch.load(flat, tmp_path / "network.pt")
    else:
        flat.load_state_dict(data["g_ema"], strict=True)
    centre = data["latent_avg"][None]
    theirs, _ = flat([z], randomize_noise=False, truncation=0.7, truncation_latent=centre)
    assert (theirs - images).abs().max() <= float_error(G, images)

    back = transfer(tmp_path / "network.pt", tmp_path / "back.pkl", "nvidia", host=draggan.folder)
    assert back.left == ()
    returned = pickle.loads((tmp_path / "back.pkl").read_bytes())["G_ema"]
    assert torch.equal(returned(z, None, noise_mode="const", truncation_psi=0.7), images)
    assert str(squeeze_patch.status(returned)) == str(squeeze_patch.status(G))
    environment = {"PYTHONPATH": os.pathsep.join([str(draggan.folder), *SHIMS]), "PATH": ""}
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run(
        [sys.executable, "-W", "ignore", "script.py", "back.pkl", "images.pt"],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    untruncated = G(z, None, noise_mode="const")
    theirs = torch.load(tmp_path / "images.pt", weights_only=True)  # made by another number of threads
    assert (theirs - untruncated).abs().max() <= float_error(G, untruncated)


def test_every_host_takes_rosinalitys(full_host: Host, tmp_path: Path) -> None:
    """Made of the host's own classes, whichever way they take their options."""
    flat = FLAT_HOSTS["draggan-rosinality"]
    with flat.active():
        dense = trained(flat.generator())
        z, c = flat.latents(dense)
        G = squeeze_patch.apply(dense, ratio=2, init="weights", keep_original=False)
        images = flat.images(G, z, c)
        torch.save({"g_ema": G.state_dict()}, tmp_path / "network.pt")
    transfer(tmp_path / "network.pt", tmp_path / "network.pkl", "nvidia", host=full_host.folder)
    data = pickle.loads((tmp_path / "network.pkl").read_bytes())
    theirs = data["G_ema"](z, c, noise_mode="const", force_fp32=True)
    assert (theirs - images).abs().max() <= float_error(G, images)
    assert data["D"](theirs, c).shape == (3, 1)


def test_mean_style_is_computed_where_none_is_stored(
    draggan: Host, rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = trained(rosinality.generator())
    torch.save({"g_ema": flat.state_dict()}, tmp_path / "network.pt")
    done = transfer(tmp_path / "network.pt", tmp_path / "network.pkl", "nvidia", host=draggan.folder)
    assert done.mean_style
    data = pickle.loads((tmp_path / "network.pkl").read_bytes())
    many = locate(flat).sample_w(20000, seed=7)
    w_avg = data["G_ema"].mapping.w_avg
    # the mean of 4,096 against that of 20,000: five standard errors of the former, and a little for the latter
    assert ((w_avg - many.mean(dim=0)).abs() <= 6 * many.std(dim=0) / 4096**0.5).all()
    assert data["G"] is data["G_ema"]


def test_refusals(draggan: Host, rosinality: FlatHost, tmp_path: Path) -> None:
    checkpoint(draggan, tmp_path / "network.pkl")
    target = tmp_path / "out"
    with pytest.raises(squeeze_patch.PlanError, match="nvidia, rosinality"):
        transfer(tmp_path / "network.pkl", target, "stylegan", trust=True)
    torch.save({"g": draggan.discriminator().state_dict()}, tmp_path / "other.pt")
    with pytest.raises(squeeze_patch.CheckpointError, match="no generator"):
        transfer(tmp_path / "other.pt", target, "nvidia")
    G = trained(draggan.generator(w_dim=32, c_dim=3))
    (tmp_path / "classes.pkl").write_bytes(pickle.dumps(G))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="classes"):
        transfer(tmp_path / "classes.pkl", target, "rosinality", trust=True)
    rivals = {f"{name}.G_ema": trained(draggan.generator(resolution=8)) for name in ("source", "target")}
    (tmp_path / "rivals.pkl").write_bytes(pickle.dumps(rivals))
    with pytest.raises(squeeze_patch.CheckpointError, match=r"source\.G_ema and target\.G_ema would both be the G_ema"):
        transfer(tmp_path / "rivals.pkl", target, "rosinality")
    assert not target.exists()


def _set(kind: str, **settings: Any) -> Any:
    def change(G: Any) -> None:
        for module in G.modules():
            if type(module).__name__ == kind:
                vars(module).update(settings)

    return change


def _double_gain(G: Any) -> None:
    for block in (G.synthesis.b4, G.synthesis.b8):
        block.torgb.weight_gain *= 2


def _box(G: Any) -> None:
    G.synthesis.b16.resample_filter.fill_(1 / 16)


def _linear(G: Any) -> None:
    for name, layer in G.mapping.named_children():
        if name.startswith("fc"):
            layer.activation = "linear"


def _bias_gain(G: Any) -> None:
    for name, layer in G.mapping.named_children():
        if name.startswith("fc"):
            layer.bias_gain = 0.5


SETTINGS = {
    "clamp": (_set("SynthesisLayer", conv_clamp=0.5), "images would differ"),
    "gain": (_set("SynthesisLayer", act_gain=2.0), "images would differ"),
    "gain of toRGB": (_double_gain, "images would differ"),
    "linear mapping": (_linear, "images would differ"),
    "gain of biases": (_bias_gain, "images would differ"),
    "filter of a block": (_box, "images would differ"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_no_tensor_says_are_refused(draggan: Host, tmp_path: Path, case: str) -> None:
    G = trained(draggan.generator(w_dim=32))
    for name, tensor in G.mapping.named_parameters():  # biases of a fresh one are zeros
        if name.endswith("bias"):
            torch.nn.init.normal_(tensor, std=10)
    change, words = SETTINGS[case]
    change(G)
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"G_ema computes something else.*{words}"):
        transfer(tmp_path / "odd.pkl", tmp_path / "out.pt", "rosinality")
    assert not (tmp_path / "out.pt").exists()


def test_half_precision_and_its_clamp_are_carried(draggan: Host, tmp_path: Path) -> None:
    G = trained(draggan.generator(w_dim=32))
    for block in (G.synthesis.b16, G.synthesis.b32):
        block.use_fp16 = True
    _set("SynthesisLayer", conv_clamp=256)(G)
    _set("ToRGBLayer", conv_clamp=256)(G)
    (tmp_path / "half.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    for trust in (False, True):
        done = transfer(tmp_path / "half.pkl", tmp_path / "out.pt", "rosinality", trust=trust, force=True)
        assert done.generators == ("G_ema",)


def test_relatives_with_other_layers_are_refused(gfpgan: FlatHost) -> None:
    G = gfpgan.generator()
    found = locate(G)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="cannot be carried"):
        found.interchange.to_common(G, found.network)


def test_a_host_is_needed_to_make_a_pickle(rosinality: FlatHost, tmp_path: Path) -> None:
    torch.save({"g_ema": trained(rosinality.generator()).state_dict()}, tmp_path / "network.pt")
    command = ("-m", "squeeze_patch", "convert", "network.pt", "network.pkl", "--to", "nvidia")
    run = python(*command, cwd=tmp_path, env=environment_with())
    assert run.returncode == 2
    assert "--host DIR" in run.stderr
    assert not (tmp_path / "network.pkl").exists()


def test_command(draggan: Host, rosinality: FlatHost, tmp_path: Path) -> None:
    checkpoint(draggan, tmp_path / "network.pkl", ratio=2)
    source, target = str(tmp_path / "network.pkl"), str(tmp_path / "network.pt")
    run = CliRunner().invoke(main, ["convert", source, target, "--to", "rosinality", "--trust"])
    assert run.exit_code == 0, run.output
    for words in ("nvidia -> rosinality", "squeezed", "left behind  D", "which no channel_multiplier makes"):
        assert words in run.output
    run = CliRunner().invoke(
        main, ["convert", source, target, "--to", "rosinality", "--trust", "--ratio", "2", "--force"]
    )
    assert run.exit_code == 2
    assert "step of its own" in run.output
    for more in (["--init", "weights"], ["--no-verify"]):
        run = CliRunner().invoke(main, ["convert", source, target, "--to", "rosinality", "--trust", *more, "--force"])
        assert run.exit_code == 2


def test_official_sizes_name_the_hosts_arguments(draggan: Host) -> None:
    for resolution, base, multiplier in ((256, 16384, 1), (256, 32768, 2)):
        G = draggan.sized(resolution, base, 8)
        found = locate(G)
        words = RosinalityInterchange().constructor_hint(found.interchange.to_common(G, found.network))
        assert words == f"Generator({resolution}, 512, 8, channel_multiplier={multiplier})"


@pytest.mark.parametrize("kind", KINDS)
def test_other_shapes(rosinality: FlatHost, draggan: Host, tmp_path: Path, kind: str) -> None:
    """The Plan goes along, for what no tensor tells."""
    source = FLAT_HOSTS["basicsr"]
    with source.active():
        G = trained(source.generator())
        plan = plan_of_kind(G, kind)
        torch.save({"params_ema": G.state_dict()}, tmp_path / "dense.pth")
        squeeze_patch.convert(tmp_path / "dense.pth", tmp_path / "squeezed.pth", plan=plan, init="weights")
        squeeze_patch.load(G, tmp_path / "squeezed.pth")
        z, c = source.latents(G)
        images = source.images(G, z, c)
    transfer(tmp_path / "squeezed.pth", tmp_path / "network.pt", "rosinality")
    with rosinality.active():
        H = rosinality.generator(channel_base=1024)
        squeeze_patch.load(H, tmp_path / "network.pt")
        assert (rosinality.images(H, z, c) - images).abs().max() <= float_error(G, images)
    generators = [G, H]
    if kind == "mixed":  # what is left of the narrowed block is no number of channels that the host's options make
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="channel_base"):
            transfer(tmp_path / "squeezed.pth", tmp_path / "network.pkl", "nvidia", host=draggan.folder)
    else:
        transfer(tmp_path / "squeezed.pth", tmp_path / "network.pkl", "nvidia", host=draggan.folder)
        with draggan.active():
            generators.append(pickle.loads((tmp_path / "network.pkl").read_bytes())["G_ema"])
            assert (draggan.images(generators[-1], z, c) - images).abs().max() <= float_error(G, images)
    kept = []
    for network in generators:
        status = squeeze_patch.status(network)
        assert status.state == "squeezed"
        assert status.plan is not None
        kept.append([(b.resolution, b.inner, b.width, b.excite, b.kept, b.kept_inner) for b in status.plan.blocks])
    assert all(each == kept[0] for each in kept)
