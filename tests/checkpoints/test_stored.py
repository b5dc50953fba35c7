"""Pickles of the NVIDIA family read without running them: what comes out is what the trusted route makes, and nothing
that a file says is run."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools
import re
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.adapters.records import Record
from squeeze_patch.checkpoints import inert
from squeeze_patch.checkpoints.fused_files import fuse_file
from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.checkpoints.inert_writing import dump
from squeeze_patch.checkpoints.io import read, write
from squeeze_patch.checkpoints.transfer import transfer
from squeeze_patch.cli import main
from squeeze_patch.testing import float_error, trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.helpers import FORKS, HOSTS, same, tensors
from tests.hosts import Host

#: the hosts whose pickles carry their source
STORING = [name for name, host in {**HOSTS, **FORKS}.items() if host.family == "nvidia"]
SETTINGS: Dict[str, Dict[str, Any]] = {
    "plain": {},
    "three classes": {"c_dim": 3},
    "float16, clamped": {"num_fp16_res": 2, "conv_clamp": 0.7},
}


#: of torch.load, which refuses whole modules by default since 2.6
WHOLE: Dict[str, Any] = {"weights_only": False}


def snapshot(host: Host, path: Path, **settings: Any) -> Any:
    """As the host's training loop writes it."""
    G = trained(host.generator(**settings))
    import dnnlib  # the host's

    data = {"G": copy.deepcopy(G), "G_ema": G, "augment_pipe": None, "training_set_kwargs": dnnlib.EasyDict(path="x")}
    if host.discriminator_kwargs is not None:
        data["D"] = host.discriminator()
    path.write_bytes(pickle.dumps(data))
    return G


@pytest.mark.parametrize("name", STORING)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_same_as_the_trusted_route(name: str, setting: str, tmp_path: Path) -> None:
    """Images of the body are the host's; the file is, tensor for tensor and attribute for attribute, what the host and
    its code would have made; with nothing but its name on the command line."""
    host = {**HOSTS, **FORKS}[name]
    with host.active():
        dense, safe, trusted = (tmp_path / f"{kind}.pkl" for kind in ("dense", "safe", "trusted"))
        G = snapshot(host, dense, **SETTINGS[setting])
        body = read(dense, trust=False)["G_ema"]
        z, c = host.latents(G)
        in_full = {"force_fp32": True} if "num_fp16_res" in SETTINGS[setting] else {}
        for options in ({"noise_mode": "const"}, {"noise_mode": "none", "truncation_psi": 0.5, "truncation_cutoff": 3}):
            expected = G(z, c, **options, **in_full)
            assert (body(z, c, **options) - expected).abs().max() <= float_error(G, expected)
        done = CliRunner().invoke(main, ["convert", str(dense), str(safe), "--ratio", "2"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        squeeze_patch.convert(dense, trusted, ratio=2, trust=True)
        a, b = (pickle.loads(path.read_bytes()) for path in (safe, trusted))
        assert list(a) == list(b)
        for key in ("G", "G_ema"):
            assert same(tensors(a[key]), tensors(b[key]))
            assert attributes(a[key]) == attributes(b[key])
            assert squeeze_patch.status(a[key]) == squeeze_patch.status(b[key])
        assert torch.equal(host.images(a["G_ema"], z, c), host.images(b["G_ema"], z, c))
        assert a["training_set_kwargs"] == b["training_set_kwargs"]
        if "D" in a:
            assert same(tensors(a["D"]), tensors(b["D"]))
        again = pickle.loads(pickle.dumps(a["G_ema"]))  # the host stores it as its own
        assert squeeze_patch.status(again).state == "squeezed"


def attributes(G: Any) -> Dict[str, str]:
    """Everything on its modules but tensors, children and hooks, as text: 1 and 1.0 differ."""
    kept = ("_init_args", "_init_kwargs", "_orig_class_name", "_orig_module_src")
    return {
        f"{path}.{name}": f"{type(value).__name__} {value!r}"
        for path, module in G.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") or name in kept
    }


@pytest.mark.parametrize("wide", [2, 8])
@pytest.mark.parametrize("method", ["squeeze", "narrow"])
def test_images_that_are_not_square(wide: int, method: str, draggan: Host, tmp_path: Path) -> None:
    """Forks for portraits cut the constant and the noise: the resolution is the longer side, or the shorter."""
    dense, target = tmp_path / "dense.pkl", tmp_path / "target.pkl"
    G: Any = trained(draggan.generator(resolution=16))
    for block in G.synthesis.children():
        if block.in_channels == 0:
            block.const = torch.nn.Parameter(block.const.repeat(1, 1, 2)[:, :, :wide])
        for layer in (block.conv1, *([block.conv0] if block.in_channels else [])):
            layer.noise_const = layer.noise_const.repeat(1, 2)[:, : wide * block.resolution // 4].clone()
    dense.write_bytes(pickle.dumps({"G_ema": G}))
    squeeze_patch.convert(dense, target, ratio=2, method=method)
    found, source = (read(path, trust=False)["G_ema"] for path in (target, dense))
    assert squeeze_patch.status(found).squeezed_blocks == 3
    z, c = draggan.latents(G)
    image = found(z, c, noise_mode="const")
    assert image.shape == (3, 3, 16, 4 * wide)
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=f"begins with features of 4x{wide}, and other"):
        transfer(target, tmp_path / "other.pt", "rosinality")
    for name, noise in source.named_buffers():
        if name.endswith("noise_const"):
            assert torch.equal(found.get_buffer(name), noise)


def test_what_only_the_dense_block_knows(draggan: Host, tmp_path: Path) -> None:
    """Read in the source of a fork's block: `call_arguments`, in a file that nothing was run of."""
    dense, target = tmp_path / "dense.pkl", tmp_path / "target.pkl"
    G: Any = trained(draggan.generator(resolution=16))
    own = "def forward(self, x, img, ws, "
    for block in G.synthesis.children():
        assert own in block._orig_module_src
        block._orig_module_src = block._orig_module_src.replace(own, f"{own}shift=0.5, also=[], ")
    dense.write_bytes(pickle.dumps({"G_ema": G}))
    with pytest.warns(squeeze_patch.UnprovedWarning, match="source of SynthesisBlock is none that is known"):
        squeeze_patch.convert(dense, target, ratio=2)
    found = pickle.loads(target.read_bytes())["G_ema"]
    assert found.synthesis.b8.foreign == {"shift": 0.5, "also": None}
    z, c = draggan.latents(G)
    found(z, c, shift=0.5)
    with pytest.raises(TypeError, match="block 4 is squeezed and does not know shift"):
        found(z, c, shift=0.25)


@pytest.mark.parametrize("kind", ["inner", "narrow", "mixed"])
def test_other_shapes_are_rebuilt_by_the_host(kind: str, full_host: Host, tmp_path: Path) -> None:
    """legacy.load_network_pkl(force_fp16=True), on a file that was read without running it."""
    import legacy  # the host's

    dense, target = tmp_path / "dense.pkl", tmp_path / "target.pkl"
    G = trained(full_host.generator())
    dense.write_bytes(pickle.dumps({"G": G, "D": full_host.discriminator(), "G_ema": G}))
    squeeze_patch.convert(dense, target, plan=plan_of_kind(G, kind), init="weights")
    whole, rebuilt = (
        legacy.load_network_pkl(io.BytesIO(target.read_bytes()), force_fp16=half)["G_ema"] for half in (False, True)
    )
    assert squeeze_patch.status(rebuilt) == squeeze_patch.status(whole)
    assert rebuilt.synthesis.b32.use_fp16
    z, c = full_host.latents(G)
    images = whole(z, c, noise_mode="const")
    assert (rebuilt(z, c, noise_mode="const", force_fp32=True) - images).abs().max() <= float_error(G, images)


def test_a_synthesis_network_that_was_squeezed_alone(draggan: Host, tmp_path: Path) -> None:
    """It is read, and written fused, as its host pickled it: within a generator of the host's own class."""
    G = trained(draggan.generator(resolution=8)).eval()
    squeeze_patch.apply(G.synthesis, init="random")
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    fuse_file(tmp_path / "G.pkl", tmp_path / "fused.pkl")
    z, c = draggan.latents(G)
    expected = draggan.images(G, z, c)
    for name, fused in (("G.pkl", 0), ("fused.pkl", 2)):
        body = read(tmp_path / name, trust=False)["G_ema"]
        status = squeeze_patch.status(body)
        assert (status.plan, status.fused_blocks) == (squeeze_patch.status(G).plan, fused)
        assert (body(z, c, noise_mode="const") - expected).abs().max() <= float_error(G, expected)
    again = read(tmp_path / "fused.pkl", trust=True)["G_ema"]
    assert type(again).__name__ == type(G).__name__
    assert (draggan.images(again, z, c) - expected).abs().max() <= float_error(G, expected)


def test_what_is_not_touched_is_written_as_it_was(full_host: Host, tmp_path: Path) -> None:
    """The names that the pickle mentions, and all tensors; G and G_ema that are one object stay one."""
    G = trained(full_host.generator())
    path = tmp_path / "one.pkl"
    path.write_bytes(pickle.dumps({"G": G, "G_ema": G, "D": full_host.discriminator(), "extra": [1, {"a": 2.0}]}))
    data, stream = read(path, trust=False), io.BytesIO()
    write(data, stream)
    before, after = pickle.loads(path.read_bytes()), pickle.loads(stream.getvalue())
    assert mentioned(stream.getvalue()) == mentioned(path.read_bytes())
    assert after["G"] is after["G_ema"]
    assert after["extra"] == before["extra"]
    for name in ("G", "D"):
        assert same(tensors(after[name]), tensors(before[name]))
        assert attributes(after[name]) == attributes(before[name])


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_in_files_of_torch_save(full_host: Host, tmp_path: Path, zipped: bool) -> None:
    """PTI's tuned generators are such files: the same as the trusted route, in the same form."""
    G = trained(full_host.generator())
    names = ("dense", "safe", "trusted")
    dense, safe, trusted = (tmp_path / f"{name}.pt" for name in names)
    torch.save(G, dense, _use_new_zipfile_serialization=zipped)
    squeeze_patch.convert(dense, safe, ratio=2)
    squeeze_patch.convert(dense, trusted, ratio=2, trust=True)
    a, b = (torch.load(path, **WHOLE) for path in (safe, trusted))
    assert same(tensors(a), tensors(b))
    assert attributes(a) == attributes(b)
    z, c = full_host.latents(G)
    assert torch.equal(full_host.images(a, z, c), full_host.images(b, z, c))
    torch.save({"G_ema": G, "other": torch.nn.Linear(2, 2)}, dense, _use_new_zipfile_serialization=zipped)
    assert [entry.class_name for entry in inspect(dense, trust=False).values()] == ["Generator", "Linear"]


def mentioned(data: bytes) -> Any:
    texts: List[str] = []
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STACK_GLOBAL":
            found.add(tuple(texts[-2:]))
        if "UNICODE" in opcode.name:
            texts.append(str(argument))
    return {name for _, name in found}


def test_commands_need_neither_trust_nor_host(full_host: Host, tmp_path: Path) -> None:
    """info, plan, compare, report and recover, on dense and squeezed files; and --to, and --init random."""
    dense, squeezed, out = (str(tmp_path / f"{name}.pkl") for name in ("dense", "squeezed", "recovered"))
    snapshot(full_host, Path(dense))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "G_ema: Generator, dense" in run("info", dense)
    parameters = sum(parameter.numel() for parameter in read(dense, trust=True)["D"].parameters())
    assert f"D: Discriminator, no generator: {parameters:,} parameters\n" in run("info", dense)
    assert "fewer" in run("plan", dense)
    run("convert", dense, squeezed)
    assert re.search("G_ema: Generator, squeezed: [1-4] of 4 blocks", run("info", squeezed))
    measure = ("--samples", "4", "--device", "cpu")
    assert "PSNR" in run("compare", dense, squeezed, *measure)
    assert "parameters" in run("report", squeezed, "--against", dense, "--repeats", "2", "--device", "cpu")
    run("recover", dense, squeezed, "--out", out, "--steps", "2", "--batch", "2", "--device", "cpu")
    assert squeeze_patch.status(pickle.loads(Path(out).read_bytes())["G_ema"]).state == "squeezed"
    assert "rosinality" in run("convert", dense, str(tmp_path / "other.pt"), "--to", "rosinality")
    run("convert", dense, str(tmp_path / "random.pkl"), "--init", "random")


def test_forks_are_named(full_host: Host, tmp_path: Path) -> None:
    """A layer that only its host knows is refused with the cure; a class of the right name and another text is
    warned of."""
    G = trained(full_host.generator())
    path = tmp_path / "fork.pkl"
    module = sys.modules[type(G.synthesis.b4.conv1).__mro__[1].__module__]  # of the class that was made persistent
    source = Path(str(module.__file__)).read_text(encoding="utf-8-sig")
    data = pickle.dumps({"G_ema": G})
    assert source.encode() in data
    for text, words in (
        (source.replace("dcoefs", "factors"), "source of modulated_conv2d is none that is known"),
        (
            source.replace("\ndef modulated_conv2d", "\n@other\ndef modulated_conv2d"),
            "source of modulated_conv2d is none",
        ),
        (f"{source}\nSynthesisLayer.forward = other\n", "source of SynthesisLayer is none that is known"),
        (source, ""),
    ):
        path.write_bytes(read_with_source(data, source, text))
        if words:
            with pytest.warns(squeeze_patch.UnprovedWarning, match=words):
                inspect(path, trust=False)
        else:
            inspect(path, trust=False)
    path.write_bytes(data.replace(b"SynthesisLayer", b"SynthesisLayeR"))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match="is a SynthesisLayeR, a layer of .*--trust"):
        inspect(path, trust=False)


def test_alias_free_files_are_refused_for_what_they_are(full_host: Host, tmp_path: Path) -> None:
    """No trust makes them squeezable: the reason comes in the place of that advice."""
    G = full_host.generator()
    G.synthesis.input = copy.deepcopy(G.synthesis.b4.conv1)
    path = tmp_path / "alias-free.pkl"
    path.write_bytes(pickle.dumps({"G_ema": G}).replace(b"SynthesisLayer", b"SynthesisInput"))
    for command in (["info"], ["plan"], ["convert", str(tmp_path / "squeezed.pkl")]):
        result = CliRunner().invoke(main, [command[0], str(path), *command[1:]])
        assert result.exit_code == 2
        assert "G_ema: this is a StyleGAN3 (alias-free) generator" in result.output
        assert "If you trust where the file came from" not in result.output
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["mapping", "mapping.fc0", "synthesis", "synthesis.b8", "synthesis.b8.torgb", ""])
def test_what_only_forks_hold_is_named(full_host: Host, tmp_path: Path, place: str) -> None:
    """A layer of the right name whose source is not known may compute with what it holds; in a host's own it is the
    user's, who put it there."""
    G = trained(full_host.generator())
    owner: Any = G.get_submodule(place)
    own = next(iter(type(owner).__mro__[1:]))  # the class that was made persistent
    owner.register_buffer("offset", torch.ones([]))
    G.mapping.rotation = copy.deepcopy(G.mapping.fc0)
    path, data = tmp_path / "fork.pkl", pickle.dumps({"G_ema": G})
    path.write_bytes(data)
    inspect(path, trust=False)
    source = Path(str(sys.modules[own.__module__].__file__)).read_text(encoding="utf-8-sig")
    path.write_bytes(read_with_source(data, source, f"{source}\n{own.__name__}.forward = other\n"))
    with pytest.raises(squeeze_patch.UnsupportedModelError, match=r"holds (offset|rotation).*, which .*--trust"):
        inspect(path, trust=False)


def read_with_source(data: bytes, source: str, text: str) -> bytes:
    """The pickle, as if its host's module had been ``text``."""
    loaded = inert.load(io.BytesIO(data))

    def change(record: Any) -> None:
        if isinstance(record, Record):
            if record.meta["module_src"].rstrip() == source.rstrip():  # some files lack the last line end
                record.meta["module_src"] = text
            for _, child in record.children():
                change(child)

    change(loaded["G_ema"])
    stream = io.BytesIO()
    dump(loaded, stream, 4)
    return stream.getvalue()
