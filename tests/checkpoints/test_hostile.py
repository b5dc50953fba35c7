"""Hostile and damaged pickles: nothing in them is run, nothing that they claim is believed."""

from __future__ import annotations

import codecs
import io
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.adapters.nvidia import stored
from squeeze_patch.adapters.records import Global, count_parameters
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.stored import StoredFile
from squeeze_patch.cli import main
from squeeze_patch.testing import trained
from tests.corpus import Call, payloads
from tests.hosts import Host


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_no_payload_is_run(tmp_path: Path) -> None:
    """Whatever the command, without --trust: one line that says why, and no mark."""
    mark = tmp_path / "sprung"
    files = payloads(str(mark))
    assert len(files) >= 50
    pickle.loads(files["top"])  # they do work
    mark.rmdir()
    path = tmp_path / "file.pkl"
    for name, data in files.items():
        path.write_bytes(data)
        for arguments in (["info"], ["plan"], ["report", "--device", "cpu"], ["convert"]):
            target = [str(tmp_path / "out.pkl")] if arguments == ["convert"] else []
            done = CliRunner().invoke(main, [arguments[0], str(path), *target, *arguments[1:]])
            assert done.exit_code == 2, (name, arguments, done.output)
            assert done.output.startswith("Error: "), (name, done.output)
            assert done.output.count("\n") == 1, (name, done.output)
            assert not mark.exists(), (name, arguments)
            assert not (tmp_path / "out.pkl").exists()
    assert "this" not in sys.modules


#: a dictionary, and a tuple of two tuples of two tuples ... as its key: hashing it takes 2^40 steps
NESTED = b"\x80\x04}K\x01" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(40))
#: an array of one item, whose type says afterwards that an item is 2^28 bytes long
OTHER_SIZE = (
    b"\x80\x04cnumpy\ndtype\n\x8c\x02V8\x85R\x940cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85h\x00\x89C\x08ABCDEFGHtb"
    b"\x940h\x00(K\x03\x8c\x01|NNNJ\x00\x00\x00\x10K\x01K\x00tb0h\x01."
)
#: a megabyte of words, and their encoding once more
LONG = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"\x94"
AGAIN = b"0h\x00h\x01\x8c\x06latin1\x86R"
#: thousands of numbers, pairs of them, and attributes, each under the number 0, and a list of what is made of them
LINEAR = b"\x80\x04ctorch.nn.modules.linear\nLinear\n)\x81"
WHOLE = [b"J" + number.to_bytes(4, "little") for number in range(20_000)]
NUMBERS = b"\x80\x04](" + b"".join(WHOLE) + b"e\x940]"
PAIRS = b"\x80\x04](" + b"".join(number + b"N\x86" for number in WHOLE) + b"e\x940]"
ATTRIBUTES = b"\x80\x04}(" + b"".join(b"\x8c\x05a%04dN" % number for number in range(5000)) + b"u\x940]"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80\x04r\xff\xff\xff\x7f.", "no readable pickle"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.", "no readable pickle"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00abc.", "no readable pickle"),
        (b"\x80\x04" + b"]" * 100_000, "no readable pickle"),
        (b"(" * 100_000, "no readable pickle"),
        (b"", "an empty file, and no checkpoint"),
        (b"hello world\n", "a text, and no checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, and no checkpoint; .*git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "a picture, and no checkpoint"),
        (b"\x80\x7f.", "no readable pickle"),
        (b"\x80\x05\x96" + (3 << 30).to_bytes(8, "little") + b".", "made in an unusual way"),  # a bytearray of 3 GiB
        (NESTED + b"K\x01s.", "keys that are neither numbers nor words"),
        (b"cnumpy\ndtype\n" + NESTED[3:] + b"\x85R.", "numpy.dtype of something else than numbers"),
        (OTHER_SIZE, "numpy.dtype of something else than numbers"),
        (
            b"\x80\x04\x8c\x07_codecs\x8c\x06encode\x93\x94" + LONG + AGAIN * 200 + b".",
            "more of its data than it holds",
        ),
        (NUMBERS + b"cbuiltins\nset\nh\x00\x85Ra" * 100 + b".", "more of its data than it holds"),
        (PAIRS + b"ccollections\nOrderedDict\nh\x00\x85Ra" * 20 + b".", "more of its data than it holds"),
        (ATTRIBUTES + (LINEAR[2:] + b"h\x00ba") * 300 + b".", "more of its data than it holds"),
        (
            b"\x80\x04]" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(40)) + b".",
            "so often that they have no",
        ),
        (b"\x80\x04ctorch\nSize\n\x8c\x0212\x85R.", "the items of a str"),
        (b"\x80\x04}G\x7f\xf8\0\0\0\0\0\0Ns.", "keys that are neither numbers nor words"),
        (b"\x80\x04ccollections\nOrderedDict\n)R}b(K\x01K\x02e.", "something put into a OrderedDict"),
        (LINEAR + b"}\x8c\x06appendcdnnlib.util\nEasyDict\nsb]a.", "something put into a Linear"),
        (b"\x80\x04cdnnlib.util\nEasyDict\n)\x81}\x8c\x06valuesNsb.", "attributes for a EasyDict"),
    ],
)
def test_what_a_file_claims_is_not_believed(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(data)
    with pytest.raises(squeeze_patch.CheckpointError, match=words):
        read(tmp_path / "file.pkl", trust=False)


#: {what is wrong: (where, what is changed)} of a stored generator
DAMAGE: Dict[str, Callable[[Any], Any]] = {
    "a function's name": lambda G: part(G, "b8", "conv1").update(modules=(), forward=3, named_parameters=slice(1)),
    "no resolution": lambda G: part(G, "b8").pop("resolution"),
    "resolution": lambda G: part(G, "b8", "conv1").update(resolution=16384),
    "padding": lambda G: part(G, "b8", "conv1").update(padding=4000),
    "resolutions": lambda G: part(G).update(block_resolutions=[4] * 2000),
    "styles": lambda G: G.state["_modules"]["mapping"].state.update(num_ws=10**8),
    "latents": lambda G: G.state["_modules"]["mapping"].state.update(z_dim=16000),
    "activation": lambda G: part(G, "b8", "conv1").update(activation={}),
    "gain": lambda G: part(G, "b8", "conv1").update(act_gain=float("nan")),
    "tables": lambda G: part(G, "b8", "conv1").update(_buffers=3),
    "arguments": lambda G: part(G, "b8", "conv1").update(_init_kwargs=3),
    "whole numbers": lambda G: tensor(G, "weight", lambda t: t.int()),
    "complex": lambda G: tensor(G, "weight", lambda t: t.to(torch.complex64)),
    "a vector": lambda G: tensor(G, "weight", lambda t: t.flatten()),
    "no bias": lambda G: part(G, "b8", "conv1")["_parameters"].pop("bias"),
    "a long bias": lambda G: tensor(G, "bias", lambda t: torch.zeros(100)),
    "overflow": lambda G: part(G, "b4")["_parameters"]["const"].data.fill_(1e38),
    "no module": lambda G: part(G, "b8")["_modules"].update(conv1=3),
    "a plan": lambda G: part(G).update(squeeze_plan={"schema": 1, "blocks": [1]}),
}


def part(G: Any, *path: str) -> Any:
    """Attributes of the synthesis network, or of a part of it."""
    record = G.state["_modules"]["synthesis"]
    for name in path:
        record = record.state["_modules"][name]
    return record.state


def tensor(G: Any, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    table = part(G, "b8", "conv1")["_parameters"]
    table[name] = torch.nn.Parameter(change(table[name].detach()), requires_grad=False)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_generators(kind: str, full_host: Host, tmp_path: Path) -> None:
    """One line, no file; or, where what is wrong is in nobody's way, the same file as without."""
    loaded = inert.load(io.BytesIO(pickle.dumps({"G_ema": trained(full_host.generator(resolution=8))})))
    DAMAGE[kind](loaded["G_ema"])
    source, target = tmp_path / "file.pkl", tmp_path / "out.pkl"
    with open(source, "wb") as stream:
        dump(loaded, stream, 4)
    for command in (["info", str(source)], ["convert", str(source), str(target), "--init", "weights"]):
        done = CliRunner().invoke(main, command)
        if kind == "a function's name" or (kind == "overflow" and command[0] == "info"):
            assert done.exit_code == 0, done.output
            continue
        if kind == "no bias" and command[0] == "info":
            assert "cannot be squeezed: b8.conv1 (SynthesisLayer) has no bias" in done.output
            continue
        if kind == "a plan" and command[0] == "info":
            assert "irregular" in done.output
            continue
        assert done.exit_code == 2, done.output
        assert done.output.startswith("Error: ")
        assert done.output.count("\n") == 1
        assert "--debug" not in done.output
        assert not target.exists()


def test_names_that_would_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"a": 1}))
    data = {"G\n\x1b[2J": inert.inert_class(Global("torch.nn.modules.linear", "Linear"))(), "\ud800": 1}
    vars(data["G\n\x1b[2J"]).update(_parameters={}, _buffers={}, _modules={})
    with open(tmp_path / "file.pkl", "wb") as stream:
        dump(data, stream, 4)
    done = CliRunner().invoke(main, ["info", str(tmp_path / "file.pkl")])
    assert done.output == "G\\n\\x1b[2J: Linear, no generator: 0 parameters\n"


def test_classes_and_functions_stay_what_they_were(tmp_path: Path) -> None:
    """A file that only names them is written with the same names."""
    data = b"\x80\x04}(\x8c\x01actorch.nn.modules.linear\nLinear\n\x8c\x01bctorch._utils\n_rebuild_tensor_v2\nu."
    stream = io.BytesIO()
    dump(inert.load(io.BytesIO(data)), stream, 4)
    assert pickle.loads(stream.getvalue()) == {"a": torch.nn.Linear, "b": torch._utils._rebuild_tensor_v2}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensors_that_do_not_fit_their_storage(tmp_path: Path) -> None:
    storage = torch.zeros(4).storage()
    for offset, size, stride in (
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (1 << 33,), (0,)),
        (0, (2,), (-1,)),
        (-1, (2,), (1,)),
    ):
        value = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
        (tmp_path / "file.pkl").write_bytes(pickle.dumps({"G": value}))
        with pytest.raises(squeeze_patch.CheckpointError, match="no readable pickle .* a tensor of"):
            read(tmp_path / "file.pkl", trust=False)


def call_of_tensor(*more: Any) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, (4,), (1,), False, *more)


SCALAR, DTYPE = np.float32(1).__reduce__()[0], np.dtype("f4")
#: what torch or numpy would make something of that cannot be taken for what it looks like
ODD: Dict[str, Callable[[], Call]] = {
    "hooks on a tensor": lambda: call_of_tensor(OrderedDict(hook=1)),
    "stored as another one's negative": lambda: call_of_tensor(OrderedDict(), {"neg": True}),
    "a parameter that is no tensor": lambda: Call(torch._utils._rebuild_parameter, 1, True, OrderedDict()),
    "a numpy scalar that is none": lambda: Call(SCALAR, DTYPE, b"12345"),
    "an OrderedDict of something else": lambda: Call(OrderedDict, [("a", 1, 2)]),
    "torch.device of something else": lambda: Call(torch.device, "c" * 40),
    "encode to something else than latin1": lambda: Call(codecs.encode, "a", "utf-8"),
}


class OddArray:
    """An array of three numbers, said to be otherwise."""

    def __init__(self, shape: Any, raw: Any) -> None:
        self.shape, self.raw = shape, raw

    def __reduce__(self) -> Any:
        made, arguments, (version, _, dtype, order, _) = np.zeros(3, "f4").__reduce__()  # type: ignore[misc]
        return made, arguments, (version, self.shape, dtype, order, self.raw)


@pytest.mark.parametrize("shape", [(4,), (2,), (-1, -3), (3.0,), (3, 0), [3], (1,) * 8 + (3,)])
def test_arrays_that_do_not_fit_their_data(shape: Any) -> None:
    good, odd = (io.BytesIO(pickle.dumps(OddArray(each, bytes(12)))) for each in ((1, 3), shape))
    assert np.array_equal(inert.load(good), np.zeros((1, 3)))
    with pytest.raises(pickle.UnpicklingError, match="an array whose data do not fit its shape"):
        inert.load(odd)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("words", ODD)
def test_odd_values_are_refused(words: str, tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"G": ODD[words]()}))
    with pytest.raises(squeeze_patch.CheckpointError, match=words):
        read(tmp_path / "file.pkl", trust=False)


def test_a_module_that_holds_itself(full_host: Host, tmp_path: Path) -> None:
    """A cycle among stored modules ends in one line, in a generator and beside one."""
    for name in ("G_ema", "D"):
        loaded = inert.load(io.BytesIO(pickle.dumps({"G_ema": full_host.generator(), "D": full_host.discriminator()})))
        loaded[name].state["_modules"]["itself"] = loaded[name]
        monkey = StoredFile(loaded)
        with pytest.raises(squeeze_patch.CheckpointError, match="holds itself, or is nested too deep"):
            monkey.save(io.BytesIO(), 4)
    with pytest.raises(ValueError, match="mapping is there twice"):
        stored.body_of(inert_cycle(full_host))
    assert count_parameters(inert_cycle(full_host)) > 0


def inert_cycle(host: Host) -> Any:
    record = inert.load(io.BytesIO(pickle.dumps({"G_ema": host.generator()})))["G_ema"]
    record.state["_modules"]["mapping"] = record
    return record
