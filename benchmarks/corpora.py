"""The files that `benchmarks.fuzz` damages: one of every kind that squeeze_patch reads, tiny, made when they are asked
for.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Mapping
from unittest import mock

import torch
from safetensors.torch import save

from benchmarks.common import random_layers
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.testing import trained
from tests.helpers import FLAT_HOSTS, LUCIDRAINS, Snapshot, save_wrapper, trained_wrapper
from tests.hosts import Host, draggan, tensorflow

#: an 8x8 generator of 8 to 16 channels
TINY: Dict[str, Any] = {"resolution": 8, "w_dim": 8, "layers": 1, "channel_base": 64, "channel_max": 16}
FORMS = ("pickle", "zip", "older", "safetensors")
#: {form of a file: end of its name}
SUFFIXES = {"pickle": ".pkl", "zip": ".pt", "older": ".pt", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Base:
    """A sound file.

    Attributes:
        name: of what it holds.
        form: one of `FORMS`.
        path: where it is.
        dense: path of a dense file with the same generators, itself where it is dense.
    """

    name: str
    form: str
    path: Path
    dense: Path

    @property
    def is_plain(self) -> bool:
        """Whether what it holds can be changed and be written by torch.save or as what it was read from."""
        return "whole" not in self.name

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def squeezed(self) -> bool:
        return self.path != self.dense


def make(folder: Path) -> Dict[str, Base]:
    """{name: file} of all of them, written into ``folder``; the same bytes every time.

    Takes seconds, most of them for the hosts' imports.
    """
    with random_layers(0):
        return _make(folder)


def _make(folder: Path) -> Dict[str, Base]:
    found: Dict[str, Base] = {}

    def add(name: str, form: str, write: Callable[[Path], Any], dense: str = "") -> None:
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}{SUFFIXES[form]}"
        write(path)
        path.write_bytes(numbered(path.read_bytes()))
        found[name] = Base(name, form, path, found[dense].path if dense else path)

    host = draggan()
    with host.active():
        _add_pickles(host, add, found)
        G = trained(host.generator(**TINY), seed=3)
        state = dict(G.state_dict())
    states: Dict[str, Any] = {
        "nvidia state": {"state_dict": state, "epoch": 3},
        "nvidia bare": state,
        "nvidia module": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "nvidia decoder": {
            "state_dict": {**{f"decoder.{key}": value for key, value in state.items()}, "encoder.0": torch.ones(3)}
        },
    }
    for name, entries in states.items():
        _add_state(name, add, found, _saving(entries))
    _add_hosts(add, found)
    for name in ("nvidia state", "rosinality"):
        for kind in ("", " squeezed"):
            source = found[f"{name}{kind}"].path
            dense = f"{name} safetensors" if kind else ""
            add(f"{name} safetensors{kind}", "safetensors", _tensors_of(source, bool(kind)), dense)
    return found


Add = Callable[..., None]


def numbered(data: bytes) -> bytes:
    """torch's older form names storages by their addresses, which are others every time: numbers of the same length."""
    names: Dict[bytes, bytes] = {}

    def number(found: Any) -> bytes:
        name = names.setdefault(found[2], b"%0*d" % (len(found[2]), len(names)))
        return bytes(found[1]) + name

    return re.sub(rb"(X[\x0d-\x10]\0\0\0)(\d{13,16})", number, data)


def _saving(entries: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(entries, path)


def _squeezing(source: Path, **how: Any) -> Callable[[Path], Any]:
    return lambda path: convert(source, path, ratio=2, init="weights", **how)


def _tensors_of(source: Path, squeezed: bool) -> Callable[[Path], None]:
    """The moving average of ``source`` in a file of safetensors."""

    def write(path: Path) -> None:
        entries = load_tensors(source)
        state = entries.get("g_ema", entries.get("state_dict"))
        words = {"format": "pt", **({"squeeze_plan": json.dumps(entries["squeeze_plan"])} if squeezed else {})}
        path.write_bytes(saved_tensors(state, words))

    return write


def _add_pickles(host: Host, add: Add, found: Mapping[str, Base]) -> None:
    """A snapshot as the host's training loop writes it."""
    data = {
        "G": trained(host.generator(**TINY), seed=1),
        "D": host.discriminator(8, channel_base=64, channel_max=8),
        "G_ema": trained(host.generator(**TINY), seed=2),
        "augment_pipe": None,
        "training_set_kwargs": importlib.import_module("dnnlib").EasyDict(path="faces", seed=0, labels=[0.5, (1, 2)]),
    }
    for name, protocol in (("nvidia", 4), ("nvidia protocol 2", 2)):
        add(name, "pickle", lambda path, protocol=protocol: path.write_bytes(pickle.dumps(data, protocol)))
    add("nvidia squeezed", "pickle", _squeezing(found["nvidia"].path), "nvidia")
    add("nvidia whole", "zip", _saving({"G_ema": data["G_ema"], "step": 3}))
    add("nvidia whole squeezed", "zip", _squeezing(found["nvidia whole"].path), "nvidia whole")
    for name, protocol in (("tensorflow", 4), ("tensorflow protocol 2", 2)):
        networks = tensorflow.networks(ada=protocol == 2, **tensorflow.TINY)
        add(name, "pickle", lambda path, networks=networks, at=protocol: tensorflow.write(path, networks, at))


def _add_state(name: str, add: Add, found: Mapping[str, Base], write: Callable[[Path], Any]) -> None:
    """Dense and squeezed, as zip archives and in torch's older form."""
    add(name, "zip", write)
    add(f"{name} squeezed", "zip", _squeezing(found[name].path), name)
    for kind in ("", " squeezed"):
        add(f"{name} older{kind}", "older", _older(found[f"{name}{kind}"].path), f"{name} older" if kind else "")


def _older(source: Path) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(saved_older(load_tensors(source)))

    return write


def saved_older(data: Any) -> bytes:
    """By torch.save in its older form, storages in the order of their first use instead of that of their addresses."""
    stream = io.BytesIO()
    with mock.patch("torch.serialization.sorted", list, create=True):
        torch.save(data, stream, _use_new_zipfile_serialization=False)
    return numbered(stream.getvalue())


def saved_tensors(state: Mapping[str, torch.Tensor], words: Mapping[str, Any]) -> bytes:
    """A file of safetensors, words in their order."""
    data = save({key: value.contiguous() for key, value in state.items()})
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": words, **json.loads(data[8:length])}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[length:]


def _add_hosts(add: Add, found: Mapping[str, Base]) -> None:
    host = FLAT_HOSTS["draggan-rosinality"]
    with host.active():
        _add_state("rosinality", add, found, lambda path: Snapshot(host, path, **TINY))
    averages = load_tensors(found["rosinality"].path)["g_ema"]
    _add_state("rosinality bare", add, found, _saving(dict(averages)))
    with LUCIDRAINS.active():
        gan = trained_wrapper(LUCIDRAINS, resolution=8, latent_dim=8, style_depth=1, network_capacity=2, fmap_max=8)
        _add_state("lucidrains", add, found, lambda path: save_wrapper(gan, path.parent).replace(path))
