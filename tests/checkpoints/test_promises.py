"""What an attack has found, each as a kind: classes as values, negated tensors, names of entries, nesting, packings."""

from __future__ import annotations

import collections
import io
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters.nvidia.stored import body_of
from squeeze_patch.adapters.nvidia.wellformed import fault
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.inert_values import UnknownName
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.storages import LEGACY
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.demo import trained_generator
from squeeze_patch.testing import trained
from tests.helpers import cli
from tests.hosts import Host
from tests.hosts.flat import FlatHost


def test_a_name_as_a_value_is_not_written_as_ours(rosinality: FlatHost, tmp_path: Path) -> None:
    """A file of torch.save: in one line. A pickle: as the name that it was."""
    state = trained(rosinality.generator()).state_dict()
    torch.save({"g_ema": state, "kind": collections.OrderedDict}, tmp_path / "dense.pt")
    code, _, err = cli("convert", tmp_path / "dense.pt", tmp_path / "out.pt", "--init", "weights")
    assert code == 2
    assert "the name collections.OrderedDict, as a value" in err
    assert not (tmp_path / "out.pt").exists()
    stream = io.BytesIO()
    dump(inert.load(io.BytesIO(pickle.dumps({"kind": collections.OrderedDict}))), stream, 4)
    assert pickle.loads(stream.getvalue()) == {"kind": collections.OrderedDict}


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1 stores no such views")
@pytest.mark.parametrize("view", [lambda x: torch._neg_view(x), lambda x: x.conj()])
def test_numbers_that_stand_for_others_are_refused(view: Any, tmp_path: Path) -> None:
    torch.save({"x": view(torch.ones(3, dtype=torch.complex64))}, tmp_path / "x.pt")
    with pytest.raises(UnknownName, match="negative"):
        load_tensors(tmp_path / "x.pt")


def test_no_entry_takes_another_ones_place(rosinality: FlatHost, draggan: Host, tmp_path: Path) -> None:
    state = trained(rosinality.generator()).state_dict()
    within = {f"G.{name}": tensor for name, tensor in state.items()}
    cases: Dict[str, Any] = {
        "an entry of the file has no name": {"": state, "iter": 3},
        "two entries are called x.G": {"x.G": 5, "x": {**within, "more": torch.zeros(1)}},
    }
    for words, content in cases.items():
        torch.save(content, tmp_path / "file.pt")
        with pytest.raises(squeeze_patch.CheckpointError, match=words):
            read(tmp_path / "file.pt", trust=False)
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"": draggan.generator(), "iter": 3}))
    with pytest.raises(squeeze_patch.CheckpointError, match="has no name"):
        read(tmp_path / "file.pkl", trust=False)


def test_storages_are_not_nested(tmp_path: Path) -> None:
    """Each level would have a budget of its own, and the time would be its power."""
    blob = pickle.dumps("x")
    for _ in range(40):
        inner = pickle.dumps([_Blob(blob)] * 9, protocol=2)
        blob = LEGACY + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + inner + pickle.dumps([], 2)
        if len(blob) > 20_000:
            break
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"G_ema": _Blob(blob)}, protocol=2))
    start = time.process_time()
    with pytest.raises(squeeze_patch.CheckpointError):
        read(tmp_path / "file.pkl", trust=False)
    assert time.process_time() - start < 5


class _Blob:
    """Pickles as torch nests its storages."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return torch.storage._load_from_bytes, (self.data,)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_bound_are_refused(packing: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w", packing) as archive:
        archive.writestr("x/data.pkl", b"N.")
    with pytest.raises(squeeze_patch.CheckpointError, match="packed in another way"):
        read(tmp_path / "x.pt", trust=False)


def test_small_things_in_great_number(tmp_path: Path) -> None:
    """Containers and names are charged for: a file of some megabytes makes no gigabytes."""
    for data, words in (
        (b"\x80\x04(" + b"\x8f" * 3_000_000 + b"t.", "more of its data than it holds"),
        (
            b"(" + b"".join(b"ctorch.nn.modules.linear\nL%d\n" % n for n in range(5000)) + b"t.",
            "names more than any checkpoint",
        ),
    ):
        (tmp_path / "file.pkl").write_bytes(data)
        with pytest.raises(squeeze_patch.CheckpointError, match=words):
            read(tmp_path / "file.pkl", trust=False)


def test_words_of_a_file_stay_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(b"\x80\x04\x8c\x04os\nx\x8c\x06system\x93.")
    with pytest.raises(squeeze_patch.CheckpointError) as caught:
        read(tmp_path / "file.pkl", trust=False)
    assert "names os x.system" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"ctorch.nn.modules.module\ntorch.os.abort\n.", b"ctorch.nn.modules.linear\nLinear\n(K\x01t\x81."]
)
def test_inert_objects_are_plain(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(data)
    with pytest.raises(squeeze_patch.CheckpointError, match="not known to be harmless"):
        read(tmp_path / "file.pkl", trust=False)


def test_an_attribute_named_origin_changes_no_name() -> None:
    loaded = inert.load(io.BytesIO(pickle.dumps(torch.nn.Identity())))
    vars(loaded)["origin"] = "x"
    stream = io.BytesIO()
    dump(loaded, stream, 4)
    assert type(pickle.loads(stream.getvalue())) is torch.nn.Identity


def test_generators_that_cannot_run_are_damaged(draggan: Host) -> None:
    for change, words in (
        (lambda G: setattr(G.mapping, "num_ws", 3), "num_ws is 3"),
        (lambda G: setattr(G.synthesis.b8, "num_conv", 1), "num_conv is 1"),
        (lambda G: G.synthesis.b8.conv1.register_buffer("noise_const", torch.zeros(16, 16)), "noise_const has shape"),
        (
            lambda G: setattr(G.synthesis.b4, "const", torch.nn.Parameter(torch.zeros(32, 4, 3))),
            "noise_const has shape",
        ),
    ):
        record = inert.load(io.BytesIO(pickle.dumps(draggan.generator())))
        body = body_of(record)
        assert fault(body) == ""
        change(body)
        assert words in fault(body)


def test_only_our_own_parts_are_swept(tmp_path: Path) -> None:
    notes = tmp_path / ".file.squeeze-my-notes.part"
    notes.write_text("a user's")
    long = tmp_path / ("x" * 250)
    for path in (tmp_path / "file", long):
        with atomic_write(path) as stream:
            stream.write(b"new")
    assert notes.read_text() == "a user's"
    assert long.read_bytes() == b"new"


def test_words_of_a_file_do_not_steer_the_terminal(tmp_path: Path) -> None:
    with open(tmp_path / "dense.pkl", "wb") as stream:
        pickle.dump({"G_ema": trained_generator(), "\x1b[2J\ud800": 3}, stream)
    out = cli("convert", tmp_path / "dense.pkl", tmp_path / "out.pkl", "--trust", "--init", "weights", "--no-verify")
    assert out[0] == 0
    assert "\\x1b[2J\\ud800" in out[1]
    assert "\x1b" not in out[1]


def test_a_link_into_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "file")
    with pytest.raises(squeeze_patch.CheckpointError, match="a link into a folder that does not exist"):
        convert(tmp_path / "dense.pkl", tmp_path / "link")


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    for force in (False, True):
        with pytest.raises(squeeze_patch.CheckpointError, match="a link that leads to itself"):
            convert(tmp_path / "dense.pkl", tmp_path / "link", force=force)


@pytest.mark.parametrize("trust", [False, True])
def test_more_than_one_pickle(draggan: Host, tmp_path: Path, trust: bool) -> None:
    """Hosts read the first one; padding is nothing."""
    data = pickle.dumps({"G_ema": trained(draggan.generator(resolution=8))})
    how: Any = {"trust": trust, "init": "weights", "ratio": 2}
    (tmp_path / "padded.pkl").write_bytes(data + b"\0" * 300 + b"\n")
    convert(tmp_path / "padded.pkl", tmp_path / "out.pkl", **how)
    (tmp_path / "two.pkl").write_bytes(data + b"\0" * (1 << 20) + pickle.dumps({"D": 1}))
    with pytest.warns(
        squeeze_patch.LostWarning, match=r"two.pkl: its last 1,0\d\d,\d{3} bytes stand behind the pickle"
    ):
        convert(tmp_path / "two.pkl", tmp_path / "out.pkl", force=True, **how)


def test_numbers_too_large_to_compute_with(draggan: Host, tmp_path: Path) -> None:
    """They are finite, and no image that is made of them is."""
    G = trained(draggan.generator())
    G.synthesis.b8.conv1.bias.detach().fill_(1e38)
    torch.save({"state_dict": G.state_dict()}, tmp_path / "dense.pth")
    with pytest.raises(squeeze_patch.CheckpointError, match=r"b8.conv1.bias holds values that are not finite"):
        convert(tmp_path / "dense.pth", tmp_path / "out.pth", init="random")
