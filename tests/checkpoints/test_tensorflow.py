"""Pickles of the TensorFlow StyleGAN2: read as the hosts' own converters read them, and nothing in them is run."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

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
#: small enough to be read some hundred times
TINY = {"resolution": 8, "fmap_base": 16, "fmap_max": 8, "latent_size": 4, "dlatent_size": 4, "mapping_layers": 2}


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
    written = tf.write(tmp_path / "old.pkl", tf.networks(**TINY), protocol)
    usual = tf.write(tmp_path / "usual.pkl", tf.networks(**TINY))
    a, b = read(written, trust=False), read(usual, trust=False)
    assert all(same(tensors_of(a[name]), tensors_of(b[name])) for name in ("G", "G_ema"))


def test_parts_of_a_file(tmp_path: Path) -> None:
    """One network, a list, a dictionary: named by what they are, the average last."""
    G, D, Gs = tf.networks(**TINY)
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
    path, target = tf.write(tmp_path / "old.pkl", tf.networks(**TINY)), tmp_path / "new.pkl"
    for options in ((), ("--trust",)):
        code, _, err = cli("convert", path, target, *options)
        assert code == 2
        assert "--host DIR" in err
        assert "--to rosinality" in err
        assert err.count("\n") == 1
    path = tf.write(tmp_path / "classes.pkl", tf.networks(ada=True, label_size=3, **TINY))
    code, _, err = cli("convert", path, target)
    assert code == 2
    assert "--host DIR" in err
    assert "rosinality" not in err  # which has no classes
    assert not target.exists()


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
    start = _start(str(path), Request(ratio=2), tmp_path, said.append, trust=False)
    made = pickle.loads(Path(str(start.checkpoint)).read_bytes())
    assert squeeze_patch.status(made["G_ema"]).state == "squeezed"
    assert "D" in made
    monkeypatch.setenv(SCRIPT_VARIABLE, str(tmp_path / "train.py"))
    with pytest.raises(squeeze_patch.CheckpointError, match="TensorFlow.*--host DIR"):
        _start(str(path), Request(ratio=2), tmp_path, said.append, trust=True)


def with_function(function: str) -> Callable[[Any], None]:
    return lambda G: G.state.update(build_func_name=function)


def with_option(**options: Any) -> Callable[[Any], None]:
    return lambda G: G.state["static_kwargs"].update(options)


def with_variable(name: str) -> Callable[[Any], None]:
    def change(G: Any) -> None:
        G.state["components"]["synthesis"].state["variables"].append((name, np.zeros(3, np.float32)))

    return change


def progressive(G: Any) -> None:
    G.state["components"]["synthesis"].state["build_func_name"] = "G_synthesis_stylegan_revised"


REFUSED: Dict[str, Tuple[Callable[[Any], None], str]] = {
    "StyleGAN": (with_function("G_style"), r"StyleGAN, the first \(G_style\)"),
    "ProGAN": (with_function("G_paper"), "ProGAN"),
    "an older form": (lambda G: G.state.update(version=3), "version 3"),
    "grown": (progressive, "grow progressively"),
    "residual": (with_option(architecture="resnet"), "architecture 'resnet'.*only 'skip'"),
    "plain": (with_option(architecture="orig"), "architecture 'orig'"),
    "another activation": (with_option(nonlinearity="relu"), "nonlinearity = 'relu'"),
    "another filter": (with_option(resample_kernel=[1, 1]), r"resample_kernel = \[1, 1\]"),
    "an option of a fork": (with_option(attention=True), "attention = True"),
    "a variable of a fork": (with_variable("8x8/Attention/weight"), "8x8/Attention/weight, which is no part"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_networks_are_refused_by_name(case: str, tmp_path: Path) -> None:
    change, words = REFUSED[case]
    G, D, Gs = tf.networks(**TINY)
    change(Gs)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"G_ema.*{words}|{words}"):
        read(tf.write(tmp_path / "old.pkl", (G, D, Gs)), trust=False)


def test_classes_of_the_first_stylegan2(tmp_path: Path) -> None:
    """None of the hosts computes them, its own converter included."""
    path = tf.write(tmp_path / "old.pkl", tf.networks(label_size=3, **TINY))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="LabelConcat"):
        read(path, trust=False)


def test_a_discriminator_that_no_host_has(draggan: Host, tmp_path: Path) -> None:
    """The generators are read all the same; what needs the discriminator says why not."""
    G, D, Gs = tf.networks()
    D.state["static_kwargs"]["use_spectral_norm"] = True
    path = tf.write(tmp_path / "old.pkl", (G, D, Gs))
    assert inspect(path, trust=False)["G_ema"].status is not None
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="D: .*use_spectral_norm.*--to rosinality"):
        squeeze_patch.convert(path, tmp_path / "new.pkl", host=draggan.folder)


def every_variable(network: Any) -> List[Tuple[List[Any], int]]:
    """(list of variables, place in it) of all that a network and its parts have."""
    parts = [network, *network.state["components"].values()]
    return [(part.state["variables"], place) for part in parts for place in range(len(part.state["variables"]))]


def test_every_variable_is_checked(tmp_path: Path) -> None:
    """Missing, of another shape, or of no floating-point numbers: one line that names it, whichever it is."""
    path = tmp_path / "old.pkl"
    for which in (0, 1):
        for index in range(len(every_variable(tf.networks(ada=True, label_size=2, **TINY)[which]))):
            networks = tf.networks(ada=True, label_size=2, **TINY)
            table, place = every_variable(networks[which])[index]
            name, value = table[place]
            for damaged in ((name, value[..., None]), (name, np.zeros(value.shape, np.int32)), (name, "x"), None):
                table[place : place + 1] = [damaged] if damaged else []
                with pytest.raises(squeeze_patch.SqueezeError, match=r"old\.pkl: ") as error:
                    read(tf.write(path, networks), trust=False)
                assert "\n" not in str(error.value)
                assert (name.rpartition("/")[0] or name) in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_option(resolution=16), "resolution is 16, where its variables say 8"),
        (with_option(num_channels=1), "num_channels is 1"),
        (with_option(latent_size=[]), r"latent_size is \[\]"),
        (with_option(mapping_lrmul=float("nan")), "mapping_lrmul is nan"),
        (with_option(conv_clamp="x"), "conv_clamp is 'x'"),
        (lambda G: G.state.pop("variables"), "without name, version, options, parts or variables"),
        (lambda G: G.state.update(components={"synthesis": 1}), "synthesis is no part"),
        (lambda G: G.state["components"].update(mapping=G), "synthesis is no part"),
        (lambda G: G.state["variables"].append(G.state["variables"][0]), "no pairs of names and values"),
        (lambda G: G.state["variables"].append((1, 2, 3)), "no pairs of names and values"),
    ],
)
def test_contradictions(change: Callable[[Any], Any], words: str, tmp_path: Path) -> None:
    G, D, Gs = tf.networks(**TINY)
    change(Gs)
    with pytest.raises(squeeze_patch.SqueezeError, match=words):
        read(tf.write(tmp_path / "old.pkl", (G, D, Gs)), trust=False)


def test_values_that_are_not_finite(draggan: Host, tmp_path: Path) -> None:
    G, D, Gs = tf.networks()
    dict(every_variable(Gs)[3][0])["4x4/Const/const"][0, 0, 0, 0] = np.nan
    path = tf.write(tmp_path / "old.pkl", (G, D, Gs))
    for options in (("--host", draggan.folder), ("--to", "rosinality")):
        code, _, err = cli("convert", path, tmp_path / "new", *options)
        assert code == 2
        assert "G_ema.synthesis.b4.const holds values that are not finite" in err
    assert not (tmp_path / "new").exists()


def test_something_else_beside_the_networks(tmp_path: Path) -> None:
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="4 entries, 3 of them networks"):
        read(tf.write(tmp_path / "old.pkl", (*tf.networks(**TINY), "x")), trust=False)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"other networks than G, D and Gs \(D\)"):
        read(tf.write(tmp_path / "old.pkl", tf.discriminator(**TINY)), trust=False)


class Payload:
    """Makes a file where it is unpickled by Python's own."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("has_run",)


def hostile(place: str) -> Any:
    G, D, Gs = tf.networks(**TINY)
    if place == "beside":
        return (G, D, Gs, Payload())
    if place == "options":
        Gs.state["static_kwargs"]["payload"] = Payload()
    elif place == "variables":
        Gs.state["variables"].append(("payload", Payload()))
    elif place == "objects":
        Gs.state["variables"].append(("payload", np.array([Payload()], dtype=object)))
    elif place == "parts":
        Gs.state["components"]["payload"] = Payload()
    return (G, D, Gs)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("place", ["beside", "options", "variables", "objects", "parts", "source"])
def test_nothing_is_run(place: str, trust: bool, draggan: Host, tmp_path: Path, monkeypatch: Any) -> None:
    """Neither what is called by the pickle, nor the source in it, trusted or not, with a host or without."""
    monkeypatch.chdir(tmp_path)
    path = tf.write(tmp_path / "old.pkl", hostile(place))
    if place == "source":  # every file has one
        assert b"os.system" in path.read_bytes()
        squeeze_patch.convert(path, tmp_path / "new.pkl", trust=trust, host=draggan.folder)
    else:
        with pytest.raises(squeeze_patch.CheckpointError, match=r"not known to be harmless.*no way to load it"):
            squeeze_patch.convert(path, tmp_path / "new.pkl", trust=trust, host=draggan.folder)
    assert {item.name for item in tmp_path.iterdir()} <= {"old.pkl", "new.pkl"}


def test_damaged_bytes(tmp_path: Path) -> None:
    """A file with bytes cut off or changed is read, or refused in words."""
    whole = tf.write(tmp_path / "whole.pkl", tf.networks(**TINY)).read_bytes()
    random = np.random.RandomState(0)
    path = tmp_path / "old.pkl"
    for number in range(120):
        data = bytearray(whole[: random.randint(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 3):
            data[random.randint(len(data) // 4)] = random.randint(256)
        path.write_bytes(bytes(data))
        with contextlib.suppress(squeeze_patch.SqueezeError):  # and nothing else
            read(path, trust=False)
