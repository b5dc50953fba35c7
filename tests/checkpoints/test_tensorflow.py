"""Pickles of the TensorFlow StyleGAN2: read as the hosts' own converters read them, and nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.records import Inert
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.checkpoints.stored import HostedFile
from squeeze_patch.planning.request import Request
from squeeze_patch.testing import float_error
from squeeze_patch.training.common import SCRIPT_VARIABLE
from squeeze_patch.training.train import _start
from tests.helpers import FORKS, HOSTS, cli, same
from tests.hosts import Host
from tests.hosts import tensorflow as tf

#: hosts that can read such files themselves
READERS = [name for name, host in {**HOSTS, **FORKS}.items() if (host.folder / "legacy.py").is_file()]
READERS = [name for name in READERS if (({**HOSTS, **FORKS})[name].networks).startswith("training.networks")]
SETTINGS: Dict[str, Dict[str, Any]] = {
    "as configuration F": {},
    "as configuration E, two mapping layers": {"fmap_base": 128, "mapping_layers": 2},
    "one image channel": {"num_channels": 1, "mapping_layers": 2},
    "discriminator with skips": {"architecture": "skip"},
    "plain discriminator": {"architecture": "orig"},
    "three classes": {"ada": True, "label_size": 3, "mapping_layers": 2},
    "clamped, narrower mapping": {"ada": True, "conv_clamp": 0.7, "mapping_fmaps": 20, "mapping_lrmul": 0.02},
    "no noise": {"ada": True, "use_noise": False},
}


def tensors_of(network: Any) -> Dict[str, torch.Tensor]:
    """In the order of their names."""
    return dict(sorted(network.state_dict().items()))


def of_discriminator(D: Any) -> Dict[str, torch.Tensor]:
    """But for filters, which are constant; of a module, or of what stands for one."""
    found = vars(D)["_parameters"] if isinstance(D, Inert) else D.state_dict()
    return {name: tensor for name, tensor in sorted(found.items()) if not name.endswith("resample_filter")}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_as_the_host_converts_it(name: str, setting: str, tmp_path: Path) -> None:
    """Tensor for tensor and image for image, without the host and with its classes."""
    host = {**HOSTS, **FORKS}[name]
    path = tf.write(tmp_path / "old.pkl", tf.networks(**SETTINGS[setting]))
    bodies = read(path, trust=False)
    assert list(bodies) == ["G", "D", "G_ema"]
    with host.active():
        import legacy  # the host's

        with open(path, "rb") as stream:
            theirs = legacy.load_network_pkl(stream)
        with host_path(host.folder):
            hosted = read(path, trust=False)
        assert isinstance(hosted, HostedFile)
        assert list(hosted) == ["training_set_kwargs", *bodies, "augment_pipe"]
        for entry in ("G", "G_ema"):
            G, z_c = theirs[entry], host.latents(theirs[entry])
            for made in (bodies[entry], hosted[entry]):
                assert same(tensors_of(made), tensors_of(G))
            for call, images in host.calls(G, *z_c).items():
                if call != "random noise":
                    for made in (bodies[entry], hosted[entry]):
                        assert (host.calls(made, *z_c)[call] - images).abs().max() <= float_error(bodies[entry], images)
        z, c = host.latents(theirs["G_ema"])
        images = host.images(theirs["G_ema"], z, c)
        assert same(of_discriminator(bodies["D"]), of_discriminator(theirs["D"]))
        assert torch.equal(hosted["D"](images, c), theirs["D"](images, c))


def test_settings_that_shapes_do_not_say(draggan: Host, tmp_path: Path) -> None:
    """The minibatch statistics of stylegan2 are those of four images where the file does not say it, those of
    stylegan2-ada of all; learning rates, clamp, and the pace of the mean style are the file's."""
    options = {"conv_clamp": 128, "mapping_lrmul": 0.02, "dlatent_avg_beta": 0.9}
    with host_path(draggan.folder):
        for ada, size in ((False, 4), (True, None)):
            made = read(tf.write(tmp_path / "old.pkl", tf.networks(ada=ada, **options)), trust=False)
            assert made["D"].b4.mbstd.group_size == size
            G = made["G_ema"]
            assert G.mapping.w_avg_beta == 0.9
            assert G.mapping.fc0.bias_gain == 0.02
            assert G.synthesis.b8.conv1.conv_clamp == made["D"].b8.conv1.conv_clamp == 128
            assert not any(getattr(module, "use_fp16", False) for module in G.modules())
        made = read(tf.write(tmp_path / "old.pkl", tf.networks(mbstd_group_size=8)), trust=False)
        assert made["D"].b4.mbstd.group_size == 8


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol(protocol: int, tmp_path: Path) -> None:
    written = tf.write(tmp_path / "old.pkl", tf.networks(**tf.TINY), protocol)
    usual = tf.write(tmp_path / "usual.pkl", tf.networks(**tf.TINY))
    a, b = read(written, trust=False), read(usual, trust=False)
    assert all(same(tensors_of(a[name]), tensors_of(b[name])) for name in ("G", "G_ema"))


def test_parts_of_a_file(tmp_path: Path) -> None:
    """One network, a list, a dictionary: named by what they are, the average last."""
    G, D, Gs = tf.networks(**tf.TINY)
    for data, entries in (
        (Gs, ["G_ema"]),
        ((Gs,), ["G_ema"]),
        (G, ["G"]),
        ([G, D, Gs], ["G", "D", "G_ema"]),
        ({"Gs": Gs, "G": G}, ["G", "G_ema"]),
    ):
        found = read(tf.write(tmp_path / "old.pkl", data), trust=False)
        assert list(found) == entries
    average = tensors_of(found["G_ema"])["synthesis.b4.const"]
    stored = dict(Gs.state["components"]["synthesis"].state["variables"])["4x4/Const/const"]
    assert np.array_equal(average.numpy(), stored[0])


def test_what_can_be_done_without_a_host(tmp_path: Path) -> None:
    path = tf.write(tmp_path / "old.pkl", tf.networks(mapping_layers=2))
    code, out, err = cli("info", path)
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()] == ["G", "D", "G_ema"]
    assert inspect(path, trust=False)["D"].class_name == "Discriminator"
    assert cli("plan", path, "--ratio", "2")[0] == 0
    carried, squeezed = tmp_path / "carried.pt", tmp_path / "squeezed.pt"
    assert cli("convert", path, carried, "--to", "rosinality")[0] == 0
    G, other = read(path, trust=False)["G_ema"], read(carried, trust=False)["g_ema"]
    z = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    images = G(z, torch.zeros(3, 0), noise_mode="const")
    stored = sampler(other).images(z, torch.zeros(3, 0), "const", 1.0)
    assert (stored - images).abs().max() <= float_error(G, images)
    assert cli("convert", carried, squeezed, "--ratio", "2", "--init", "weights")[0] == 0
    code, _, err = cli("compare", path, squeezed)
    assert code == 0, err


def test_without_a_host_nothing_is_squeezed_or_written(tmp_path: Path) -> None:
    path, target = tf.write(tmp_path / "old.pkl", tf.networks(**tf.TINY)), tmp_path / "new.pkl"
    for options in ((), ("--trust",)):
        code, _, err = cli("convert", path, target, *options)
        assert code == 2
        assert "--host DIR" in err
        assert "--to rosinality" in err
        assert err.count("\n") == 1
    path = tf.write(tmp_path / "classes.pkl", tf.networks(ada=True, label_size=3, **tf.TINY))
    code, _, err = cli("convert", path, target)
    assert code == 2
    assert "--host DIR" in err
    assert "rosinality" not in err  # which has no classes
    assert not target.exists()
    assert cli("convert", path, target, "--format", "pt", "--ratio", "2", "--init", "weights")[0] == 0
    assert squeeze_patch.status(next(iter(read(target, trust=False).values()))).state == "squeezed"


@pytest.mark.parametrize("trust", [False, True])
def test_convert_with_a_host(trust: bool, draggan: Host, tmp_path: Path) -> None:
    path, target = tf.write(tmp_path / "old.pkl", tf.networks(ada=True, label_size=2)), tmp_path / "new.pkl"
    done = squeeze_patch.convert(path, target, ratio=2, trust=trust, host=draggan.folder)
    assert done.generators == ("G_ema", "G")
    assert done.shared_channels
    assert done.carried == ("D",)
    bodies = read(path, trust=False)
    stored = pickle.loads(target.read_bytes())
    assert type(stored) is dict
    assert squeeze_patch.status(stored["G_ema"]).state == "squeezed"
    assert same(of_discriminator(stored["D"]), of_discriminator(bodies["D"]))
    assert same(tensors_of(stored["G"].mapping), tensors_of(bodies["G"].mapping))
    assert inspect(target, trust=False)["G_ema"].status == squeeze_patch.status(stored["G_ema"])
    code, _, err = cli("recover", path, target, "--out", tmp_path / "recovered.pkl", "--steps", "2", "--batch", "2")
    assert code == 0, err


def test_carried_to_the_hosts_form_as_it_is(draggan: Host, tmp_path: Path) -> None:
    """Classes and discriminator too; without a host it is told what to name."""
    path, target = tf.write(tmp_path / "old.pkl", tf.networks(ada=True, label_size=2)), tmp_path / "new.pkl"
    code, out, err = cli("convert", path, target, "--to", "nvidia", "--host", draggan.folder)
    assert code == 0, err
    assert "left behind" not in out
    bodies, made = read(path, trust=False), read(target, trust=False)
    for entry in ("G", "G_ema"):
        assert same(tensors_of(made[entry]), tensors_of(bodies[entry]))
    assert same(of_discriminator(pickle.loads(target.read_bytes())["D"]), of_discriminator(bodies["D"]))


def test_training_goes_on_from_it(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's own folder is the host; a script of another family is told what the file is."""
    path = tf.write(tmp_path / "old.pkl", tf.networks())
    said: List[str] = []
    monkeypatch.setenv(SCRIPT_VARIABLE, str(draggan.folder / "train.py"))
    start = _start(str(path), Request(ratio=2), tmp_path, said.append, trust=True)
    made = pickle.loads(Path(str(start.checkpoint)).read_bytes())
    assert squeeze_patch.status(made["G_ema"]).state == "squeezed"
    assert "D" in made
    monkeypatch.setenv(SCRIPT_VARIABLE, str(tmp_path / "train.py"))
    with pytest.raises(squeeze_patch.CheckpointError, match="TensorFlow.*--host DIR"):
        _start(str(path), Request(ratio=2), tmp_path, said.append, trust=True)
