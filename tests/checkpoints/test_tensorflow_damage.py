"""Pickles of the TensorFlow StyleGAN2 that are of other networks, damaged or hostile: told in one line, not run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest

import squeeze_patch
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.io import read
from tests.helpers import cli
from tests.hosts import Host
from tests.hosts import tensorflow as tf


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
    G, D, Gs = tf.networks(**tf.TINY)
    change(Gs)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"G_ema.*{words}|{words}"):
        read(tf.write(tmp_path / "old.pkl", (G, D, Gs)), trust=False)


def test_classes_of_the_first_stylegan2(tmp_path: Path) -> None:
    """None of the hosts computes them, its own converter included."""
    path = tf.write(tmp_path / "old.pkl", tf.networks(label_size=3, **tf.TINY))
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
        for index in range(len(every_variable(tf.networks(ada=True, label_size=2, **tf.TINY)[which]))):
            networks = tf.networks(ada=True, label_size=2, **tf.TINY)
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
    G, D, Gs = tf.networks(**tf.TINY)
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
        read(tf.write(tmp_path / "old.pkl", (*tf.networks(**tf.TINY), "x")), trust=False)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"other networks than G, D and Gs \(D\)"):
        read(tf.write(tmp_path / "old.pkl", tf.discriminator(**tf.TINY)), trust=False)


class Payload:
    """Makes a file where it is unpickled by Python's own."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("has_run",)


def hostile(place: str) -> Any:
    G, D, Gs = tf.networks(**tf.TINY)
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
    whole = tf.write(tmp_path / "whole.pkl", tf.networks(**tf.TINY)).read_bytes()
    random = np.random.RandomState(0)
    path = tmp_path / "old.pkl"
    for number in range(120):
        data = bytearray(whole[: random.randint(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 3):
            data[random.randint(len(data) // 4)] = random.randint(256)
        path.write_bytes(bytes(data))
        with contextlib.suppress(squeeze_patch.SqueezeError):  # and nothing else
            read(path, trust=False)
