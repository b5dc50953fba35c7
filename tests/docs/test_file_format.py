"""docs/file-format.md: its blocks, and its tables on real files."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.testing import trained
from tests.docs.pages import Page, python
from tests.helpers import FLAT_HOSTS
from tests.hosts import Host
from tests.hosts.flat import FlatHost
from tests.hosts.lucidrains import LucidrainsHost

PAGE = Page("docs/file-format.md")
#: {name as the page writes it: shapes, dense where the dense generator has it, then squeezed}
Shapes = Dict[str, List[Tuple[int, ...]]]
State = Mapping[str, torch.Tensor]


def test_plan(draggan: Host) -> None:
    G = draggan.generator()
    plan = json.loads(PAGE["schema"])
    assert plan == squeeze_patch.plan(G, allocate="uniform").to_dict()
    assert squeeze_patch.Plan.from_dict({**plan, "unknown": 1}) == squeeze_patch.plan(G, allocate="uniform")
    for key in plan:
        with pytest.raises(squeeze_patch.PlanError):
            squeeze_patch.Plan.from_dict({name: value for name, value in plan.items() if name != key})


def test_pickle(workspace: Path, capsys: Any) -> None:
    squeeze_patch.convert("network.pkl", "squeezed.pkl", trust=True, ratio=1.5)
    data = (workspace / "squeezed.pkl").read_bytes()
    assert data.startswith(b"\x80\x04")
    texts = [str(arg) for op, arg, _ in pickletools.genops(data) if op.name in ("BINUNICODE", "SHORT_BINUNICODE")]
    assert not any(text.startswith("squeeze_patch.") for text in texts)  # nothing is imported from there
    assert {"SqueezedGenerator", "SqueezedBlock", "Excite", "module_src", "class_name", "state"} <= set(texts)
    assert {"torch_utils.persistence", "_reconstruct_persistent_obj", "_load_from_bytes"} <= set(texts)
    host, generator, excite, block = sorted((text for text in texts if "\n" in text), key=source_order)
    assert generator.startswith(host)
    assert block.startswith(excite)
    assert block in generator
    assert set(re.findall(r"^(?:from|import) (\w+)", block, flags=re.MULTILINE)) <= {
        "functools",
        "inspect",
        "math",
        "torch",
        "types",
        "typing",
    }
    assert re.search(r"class SqueezedGenerator\(RebuildSqueezed, Generator\):", generator)

    G = python(PAGE["pickle"])["G"]
    assert capsys.readouterr().out.splitlines()[0] == "synthesis"
    again = type(G)(*G.init_args, **G.init_kwargs)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in G.state_dict().items()}
    dense = pickle.loads((workspace / "network.pkl").read_bytes())["G_ema"]
    found = changed(dense.state_dict(), G.state_dict(), r"synthesis\.b8", "synthesis.b{R}")
    width = squeeze_patch.status(G).plan.widths[8]  # type: ignore[union-attr]
    listed = {
        row[0].strip(" `"): shapes(row[1:], c=32, q=width, w_dim=32) for row in rows("Pickles of the NVIDIA family")
    }
    assert found == {name: shape for name, shape in listed.items() if name.startswith("synthesis.")}
    last = changed(dense.state_dict(), G.state_dict(), r"synthesis\.b16", "synthesis.b{R}")
    assert {name for name in found if "excite" not in name} == set(last)


def source_order(text: str) -> Tuple[bool, int]:
    """The host's module, the same and more, excite, the same and the block."""
    return "class SynthesisNetwork" not in text, len(text)


def rows(section: str) -> List[List[str]]:
    """The cells of the tables in a section of the page."""
    text = PAGE.text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| `")]


def shapes(cells: List[str], **sizes: int) -> List[Tuple[int, ...]]:
    """The shapes that cells say, for these sizes: "[q, c, 3, 3]"."""
    known = {"img_channels": 3, **sizes}
    found = re.findall(r"\[([\w, ]+)\]", " ".join(cells))
    return [tuple(known.get(size) or int(size) for size in shape.split(", ")) for shape in found]


def changed(
    dense: Mapping[str, torch.Tensor], squeezed: Mapping[str, torch.Tensor], block: str, as_named: Any
) -> Shapes:
    """The tensors within one block (a pattern) that squeezing changes or adds, with the block under another name."""
    found: Shapes = {}
    for name, tensor in squeezed.items():
        before = [tuple(dense[name].shape)] if name in dense else []
        if re.match(rf"{block}\.", name) and before != [tuple(tensor.shape)]:
            found[re.sub(block, as_named, name)] = [*before, tuple(tensor.shape)]
    return found


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1.13's weights_only=True refuses every float")
def test_state_dicts(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    state = trained(rosinality.generator(resolution=8)).state_dict()
    torch.save({"g": state, "g_ema": state}, "dense.pt")
    squeeze_patch.convert("dense.pt", "squeezed.pt", init="weights")
    python(PAGE["states"])
    assert capsys.readouterr().out.splitlines()[:2] == ["['g', 'g_ema', 'squeeze_plan']", "1"]


@pytest.mark.parametrize(("host", "column"), [("draggan-rosinality", 0), ("basicsr", 1), ("gfpgan", 2)])
def test_names_of_rosinalitys_family(host: str, column: int) -> None:
    """Every tensor of the first resolution that changes, and excite, under the names of each host."""
    with FLAT_HOSTS[host].active():
        dense = FLAT_HOSTS[host].generator(resolution=8).state_dict()
        G = squeeze_patch.apply(FLAT_HOSTS[host].generator(resolution=8), ratio=2, init="random")
    found = changed(dense, G.state_dict(), r"(style_)?conv1|to_rgb1", r"\g<0>")
    found.update(changed(dense, G.state_dict(), r"convs\.0|style_convs\.0", lambda old: old[0].replace("0", "{2k}")))
    listed: Shapes = {}
    for row in rows("State dicts of rosinality's family"):
        cell = row[1] if "the same" in row[column] else row[column]
        said = shapes(row[3:], c=32, q=16, w_dim=32)
        if len(said) == 4:  # another shape in gfpgan's
            said = said[1::2] if host == "gfpgan" else said[::2]
        listed[re.findall(r"`([^`]+)`", cell)[0]] = said
    assert found == listed


def test_names_of_lucidrains(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    gan = lucidrains.wrapper(16)
    torch.save({"GAN": gan.state_dict(), "version": "1.9.0"}, tmp_path / "model_5.pt")
    squeeze_patch.convert(tmp_path / "model_5.pt", tmp_path / "squeezed.pt", ratio=2, init="random")
    entries = load_tensors(tmp_path / "squeezed.pt")
    assert list(entries) == ["GAN", "version", "squeeze_plan"]
    listed: Shapes = {}
    for row in rows("State dicts of lucidrains' family"):
        names = re.findall(r"`([^`]+)`", row[0])
        said = shapes(row[1:], c=16, q=8, w_dim=32)
        for index, name in enumerate(names):
            listed[names[0].replace(".weight", name) if name.startswith(".") else name] = said[index :: len(names)]
    for part in ("G", "GE"):
        found = changed(gan.state_dict(), entries["GAN"], rf"{part}\.blocks\.1", "blocks.{k}")
        assert found == listed
