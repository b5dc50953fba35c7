"""What damaged files have brought about (`python -m benchmarks fuzz`): a test for each cause."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
import torch
from safetensors.torch import save

import squeeze_patch
from squeeze_patch.adapters.lucidrains.standin import from_state as lucidrains_from_state
from squeeze_patch.adapters.nvidia.tensorflow_options import check_options
from squeeze_patch.adapters.rosinality.states import from_state
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.inert import load
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.optimizer_state import optimises, parameters_of
from squeeze_patch.checkpoints.storages import CHUNK, CarefulStream
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.checkpoints.transfer import transfer
from squeeze_patch.errors import MOST_CHARACTERS, MOST_WORDS
from squeeze_patch.evaluation.distributions import frechet_distance
from squeeze_patch.testing import trained
from tests.corpus import saved, zipped
from tests.helpers import FLAT_HOSTS, LUCIDRAINS, SMALL, same, tensors
from tests.hosts import Host

State = Dict[str, torch.Tensor]


def test_pickles_of_old_protocols(full_host: Host, tmp_path: Path) -> None:
    """Up to protocol 2, Python 3 names what it calls builtins and copyreg as Python 2 did."""
    G = trained(full_host.generator(resolution=8))
    for protocol in (2, 4):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps({"G_ema": G, "empty": b"", "set": {1}}, protocol))
    old, usual = (read(tmp_path / f"{protocol}.pkl", trust=False) for protocol in (2, 4))
    assert same(tensors(old["G_ema"]), tensors(usual["G_ema"]))
    assert (old["empty"], old["set"]) == (b"", {1})
    convert(tmp_path / "2.pkl", tmp_path / "squeezed.pkl", ratio=2, init="weights")
    assert squeeze_patch.status(pickle.loads((tmp_path / "squeezed.pkl").read_bytes())["G_ema"]).state == "squeezed"


class Counting(io.BytesIO):
    """Notes the most that it is asked for at a time."""

    most = 0

    def read(self, count: Any = -1, /) -> bytes:
        self.most = max(self.most, count)
        return super().read(count)


@pytest.mark.parametrize("opcode", [b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8e" + b"\xff" * 6 + b"\0\0"])
def test_no_more_is_asked_of_a_file_than_it_has(opcode: bytes) -> None:
    """A file object makes room for what it is asked for before it looks whether there is as much."""
    stream = Counting(b"\x80\x04" + opcode + b"short.")
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        load(stream)
    assert stream.most <= CHUNK
    sound = Counting(b"x" * (CHUNK + 10))
    assert len(CarefulStream(sound, CHUNK + 10).read(CHUNK + 5)) == CHUNK + 5


#: {what is wrong with a flat generator's state: (how it gets there, words)}
FLAT: Dict[str, Any] = {
    "noise of no size": (lambda s: s.update({"noises.noise_2": s["noises.noise_2"][:, :, :1, :1]}), "noises.noise_2"),
    "noise of no number": (lambda s: s.update({"noises.more": torch.zeros(1, 1, 4, 4)}), "noises.more"),
    "a filter of one dimension": (
        lambda s: s.update({"to_rgbs.0.upsample.kernel": torch.ones(4)}),
        "to_rgbs.0 has a filter",
    ),
    "an oblong filter": (lambda s: s.update({"convs.0.conv.blur.kernel": torch.ones(4, 3)}), "convs.0 has a filter"),
    "a kernel of 5x5": (
        lambda s: s.update({"conv1.conv.weight": torch.ones([*s["conv1.conv.weight"].shape[:3], 5, 5])}),
        "convolutions|conv1 has shape",
    ),
    "two inputs": (lambda s: s.update({"input.input": s["input.input"].repeat(2, 1, 1, 1)}), "input.input has shape"),
    "one image channel among three": (
        lambda s: s.update({name: s[name][:, :1] for name in ("to_rgb1.conv.weight", "to_rgb1.bias")}),
        "to_rgbs.0 has shape",
    ),
}


@pytest.mark.parametrize("case", FLAT)
def test_flat_states_whose_layers_do_not_follow_one_another(case: str) -> None:
    host = FLAT_HOSTS["draggan-rosinality"]
    with host.active():
        state: State = dict(host.generator(**SMALL).state_dict())
    assert from_state(state) is not None
    change, words = FLAT[case]
    change(state)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=words):
        from_state(state)


def test_a_state_without_a_filter(draggan: Host, tmp_path: Path) -> None:
    """Nothing of conv1 reads its filter; the host's layer has it all the same, and so has the squeezed one."""
    state = dict(draggan.generator(resolution=8).state_dict())
    del state["synthesis.b8.conv1.resample_filter"]
    torch.save({"state_dict": state}, tmp_path / "dense.pt")
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"b8\.conv1\.resample_filter is missing"):
        convert(tmp_path / "dense.pt", tmp_path / "out.pt", init="weights")


def test_words_out_of_files_are_few_and_short(draggan: Host, tmp_path: Path) -> None:
    """Names of members are as long as a file likes, and a bare state dict that is none has hundreds of entries."""
    state: Dict[str, Any] = {f"layer{index}{'x' * 1000}": torch.zeros(1) for index in range(300)}
    torch.save({**state, "number": 3}, tmp_path / "file.pt")
    readers: List[Callable[[], Any]] = [
        lambda: convert(tmp_path / "file.pt", tmp_path / "out.pt"),
        lambda: squeeze_patch.load(draggan.generator(resolution=8), tmp_path / "file.pt"),
    ]
    for reader in readers:
        with pytest.raises(squeeze_patch.CheckpointError, match=f"and {301 - MOST_WORDS} more") as found:
            reader()
        assert len(str(found.value)) < (MOST_CHARACTERS + 3) * (MOST_WORDS + 3)
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(2)}))) as archive:
        pickled = archive.read("archive/data.pkl")
    long = pickled.replace(b"X\x01\0\0\x000", b"X\x10\x27\0\0" + b"y" * 10_000)
    assert len(long) > 10_000
    (tmp_path / "file.pt").write_bytes(zipped(("archive/data.pkl", long), ("archive/data/0", bytes(8))))
    with pytest.raises(squeeze_patch.CheckpointError, match="archive/data/yyy") as found:
        read(tmp_path / "file.pt", trust=False)
    assert len(str(found.value)) < len(str(tmp_path)) + 2 * MOST_CHARACTERS


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "3"])
def test_plans_that_are_none(text: str, draggan: Host, tmp_path: Path) -> None:
    """In the header of a file of safetensors, and in a file of their own."""
    state = {name: tensor.contiguous() for name, tensor in draggan.generator(resolution=8).state_dict().items()}
    (tmp_path / "file.safetensors").write_bytes(save(state, metadata={"squeeze_plan": text}))
    with pytest.raises(squeeze_patch.CheckpointError, match="the file was changed"):
        read(tmp_path / "file.safetensors", trust=False)
    with pytest.raises(squeeze_patch.PlanError, match="no JSON"):
        squeeze_patch.Plan.from_json(text)


def test_archives_of_whole_modules_that_are_damaged(draggan: Host, tmp_path: Path) -> None:
    """One line each, as for archives of tensors."""
    path = tmp_path / "whole.pt"
    torch.save({"G_ema": trained(draggan.generator(resolution=8))}, path)
    data = path.read_bytes()
    storage = data.index(b"/data/0") + 100
    for damaged in (data[:storage] + b"\xff\xff" + data[storage + 2 :], data[: len(data) // 2], data[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(squeeze_patch.CheckpointError, match="no readable file of torch.save"):
            read(path, trust=False)


def test_features_that_are_not_finite_are_told() -> None:
    with pytest.raises(squeeze_patch.errors.MeasurementError, match="not finite"):
        frechet_distance(torch.full((3, 2), float("inf")), torch.zeros(3, 2))


#: {what is wrong with an optimiser's state: how it gets there}
OPTIMISERS: Dict[str, Callable[[Any], Any]] = {
    "no table of moments": lambda state: state.update(state=3),
    "moments of no parameter": lambda state: state["state"].update({0: 1.0}),
    "no groups": lambda state: state.update(param_groups={0: 1}),
    "a group that is none": lambda state: state.update(param_groups=[3]),
    "a group without parameters": lambda state: state["param_groups"][0].pop("params"),
    "parameters that are no numbers": lambda state: state["param_groups"][0]["params"].__setitem__(0, [1]),
}


@pytest.mark.parametrize("case", OPTIMISERS)
def test_damaged_optimisers_are_none(case: str) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state, parameters = optimiser.state_dict(), parameters_of(layer)
    assert optimises(state, parameters)
    OPTIMISERS[case](state)
    assert not optimises(state, parameters)


def test_an_archive_with_a_member_of_no_name(tmp_path: Path) -> None:
    """Which Python's own zipfile.ZipInfo.is_dir does not expect."""
    nameless: Any = zipfile.ZipInfo("")
    (tmp_path / "file.pt").write_bytes(zipped(("archive/data.pkl", pickle.dumps({"a": 1}, 2)), (nameless, b"x")))
    assert squeeze_patch.scan(tmp_path / "file.pt").size > 0
    assert load_tensors(tmp_path / "file.pt") == {"a": 1}


def test_older_files_are_read_through_careful_streams(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": torch.ones(2, 3)}
    (tmp_path / "older.pt").write_bytes(saved(state, zipped=False))
    found = load_tensors(tmp_path / "older.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_mapping_layer_without_a_bias(full_host: Host, tmp_path: Path) -> None:
    """Hosts can build such ones; other families have none."""
    state = trained(full_host.generator(resolution=8)).state_dict()
    del state["mapping.fc0.bias"]
    torch.save({"G_ema": state}, tmp_path / "G.pt")
    G = read(tmp_path / "G.pt", trust=False)["G_ema"]
    assert G(torch.zeros(1, 32), torch.zeros(1, 0), noise_mode="const").isfinite().all()
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="mapping layer 0 has no bias"):
        transfer(tmp_path / "G.pt", tmp_path / "flat.pt", "rosinality")


@pytest.mark.parametrize("layer", ["b8", "b8.conv0"])
def test_filters_of_other_sizes(layer: str, full_host: Host, tmp_path: Path) -> None:
    """What runs here, and what trained starts simulate, is StyleGAN2's filter of 4 x 4 taps."""
    G = trained(full_host.generator(resolution=8))
    state = G.state_dict()
    state[f"synthesis.{layer}.resample_filter"] = torch.full([8, 8], 1 / 64)
    torch.save({"G_ema": state}, tmp_path / "G.pt")
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"resample_filter has shape \[8, 8\]"):
        read(tmp_path / "G.pt", trust=False)
    G.get_submodule(f"synthesis.{layer}").resample_filter = torch.full([8, 8], 1 / 64)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="4 x 4"):
        squeeze_patch.apply(G, verify=False)
    assert squeeze_patch.status(G).state == "dense"


def linear(name: str) -> State:
    return {f"S.net.{name}.weight": torch.eye(3), f"S.net.{name}.bias": torch.ones(3)}


MAPPINGS: Dict[str, Callable[[State], Any]] = {
    "S.net.0 is none": lambda state: state.pop("S.net.0.bias"),
    "S.net.2 is none": lambda state: state.update({"S.net.2.scale": torch.ones(1)}),
    "S.net.first is none": lambda state: state.update(linear("first")),
    "S.net.4 is none": lambda state: state.update(linear("4")),
    "S.net.0 is none of": lambda state: state.update({"S.net.0.bias": torch.tensor(1.0)}),
    "S.net has slope": lambda state: state.update({"S.net.slope": torch.ones(1)}),
}


@pytest.mark.parametrize("words", MAPPINGS)
def test_mapping_networks_of_other_layers(words: str) -> None:
    """What runs here are the host's linear layers; whatever else a file has would be left out of its images."""
    with LUCIDRAINS.active():
        state = LUCIDRAINS.generator().state_dict()
    assert lucidrains_from_state(state) is not None
    MAPPINGS[words](state)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=words):
        lucidrains_from_state(state)


def test_an_excite_without_a_bias(full_host: Host, tmp_path: Path) -> None:
    G = squeeze_patch.apply(trained(full_host.generator(**SMALL)), ratio=2, init="weights", keep_original=False)
    del G.synthesis.b4.excite.bias
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="b4.excite has no bias"):
        transfer(tmp_path / "G.pkl", tmp_path / "flat.pt", "rosinality")


def test_options_that_are_no_words() -> None:
    """Such as arrays, whose own words take several lines."""
    for options in ({"mapping_layers": np.zeros([9, 9])}, {"unknown": "two\nlines" * 100}):
        with pytest.raises(squeeze_patch.UnsupportedModelError, match="which no StyleGAN2") as found:
            check_options(options, {"mapping_layers": 8})
        assert len(str(found.value).splitlines()) == 1
        assert len(str(found.value)) < 2 * MOST_CHARACTERS


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("synthesis.b8.torgb.affine", 2, r"b8.torgb.affine.weight has shape \[\d+, 2\], where styles have 16 numbers"),
        ("mapping.fc1", 2, r"fc1.weight has shape \[16, 2\], where fc0 makes 16 numbers"),
    ],
)
def test_layers_that_read_other_sizes(name: str, columns: int, words: str, full_host: Host, tmp_path: Path) -> None:
    """Pickles and state dicts, before anything is computed of them."""
    G = trained(full_host.generator(**SMALL))
    layer = G.get_submodule(name)
    layer.weight = torch.nn.Parameter(layer.weight[:, :columns].clone())
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    torch.save({"G_ema": G.state_dict()}, tmp_path / "G.pt")
    for path in ("G.pkl", "G.pt"):
        with pytest.raises(squeeze_patch.SqueezeError, match=words):
            read(tmp_path / path, trust=False)


@pytest.mark.parametrize("name", ["conv0", "conv1"])
def test_a_block_without_a_convolution(name: str, full_host: Host, tmp_path: Path) -> None:
    G = trained(full_host.generator(**SMALL))
    block = G.synthesis.b8
    setattr(block, f"{name}x", block._modules.pop(name))
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    with pytest.raises(squeeze_patch.CheckpointError, match=f"b8.{name} is missing"):
        read(tmp_path / "G.pkl", trust=False)
