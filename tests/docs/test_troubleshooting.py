"""docs/troubleshooting.md: its blocks, its messages, and some symptoms brought about."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator, List

import pytest
import torch
from click.testing import CliRunner

import squeeze_patch
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.cli import main
from squeeze_patch.testing import trained
from tests.docs.pages import ROOT, Page, python
from tests.hosts import Host
from tests.hosts.flat import FlatHost
from tests.hosts.lucidrains import LucidrainsHost

PAGE = Page("docs/troubleshooting.md")
#: messages that are not the library's
FOREIGN = {
    "size mismatch for ...",
    "The size of tensor a (...) must match the size of tensor b (...)",
    "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False",
    "Numpy is not available",
    "A module that was compiled using NumPy 1.x cannot be run in ...",
    "You need to have an Nvidia GPU with CUDA installed.",
    "Failed to build CUDA kernels for upfirdn2d. Falling back to slow reference implementation.",
}


def messages() -> List[str]:
    found = re.findall(r"\*\*`(.+?)`\*\*", PAGE.text, flags=re.DOTALL)
    return [" ".join(message.split()) for message in found]


def texts_of_the_library() -> Iterator[str]:
    """Every string in its sources, a zero in the place of what is filled in."""
    for folder in ("squeeze_patch", "adapters"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_messages_are_the_librarys() -> None:
    texts = list(texts_of_the_library())
    assert len(messages()) > 40
    for message in set(messages()) - FOREIGN:
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("...")), flags=re.DOTALL)
        assert any(pattern.search(text) for text in texts), message
    assert set(messages()) >= FOREIGN


def test_status_block(draggan: Host, capsys: Any) -> None:
    python(PAGE["status"], G=draggan.generator())
    assert capsys.readouterr().out.startswith("dense: ")


def test_verify_block(draggan: Host) -> None:
    """A fork that is refused otherwise."""
    G = draggan.generator()
    forward = G.synthesis.b8.conv1.forward
    G.synthesis.b8.conv1.forward = lambda *args, **kwargs: 0.5 * forward(*args, **kwargs)
    with pytest.raises(squeeze_patch.ProofError):
        squeeze_patch.apply(G, init="random")
    with pytest.warns(squeeze_patch.LostWarning, match="b8.conv1 .* holds forward"):
        python(PAGE["verify"], G=G, squeeze_patch=squeeze_patch)
    assert squeeze_patch.status(G).state == "squeezed"


def test_half_random_with_strict_false(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At ratio 1 every shape fits: nothing but missing names tells the two apart."""
    monkeypatch.chdir(tmp_path)
    dense = trained(rosinality.generator(resolution=8))
    torch.save({"g_ema": dense.state_dict()}, "dense.pt")
    squeeze_patch.convert("dense.pt", "squeezed.pt", ratio=1, init="weights")
    entries = load_tensors(Path("squeezed.pt"))
    found = rosinality.generator(resolution=8).load_state_dict(entries["g_ema"], strict=False)
    assert found.unexpected_keys == ["convs.0.excite.weight", "convs.0.excite.bias"]
    G = squeeze_patch.apply(rosinality.generator(resolution=8), ratio=1, init="random")
    assert G.load_state_dict(dense.state_dict(), strict=False).missing_keys == found.unexpected_keys
    G = rosinality.generator(resolution=8)
    python(PAGE["load"], G=G, squeeze_patch=squeeze_patch)
    assert torch.equal(G.state_dict()["convs.0.excite.weight"], entries["g_ema"]["convs.0.excite.weight"])


def test_a_mix_up_stops(draggan: Host) -> None:
    misc = importlib.import_module("torch_utils.misc")
    dense, squeezed = draggan.generator(), squeeze_patch.apply(draggan.generator(), init="random")
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"The size of tensor a \(\d+\) must match"):
        misc.copy_params_and_buffers(squeezed, dense, require_all=False)
    with pytest.raises(RuntimeError, match="size mismatch for "):
        dense.load_state_dict(squeezed.state_dict(), strict=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_on_a_cpu(workspace: Path) -> None:
    arguments = ["report", "network.pkl", "--trust", "--host", "stylegan2-ada-pytorch", "--device", "cuda"]
    assert "--device cpu always can" in CliRunner().invoke(main, arguments).output


def test_compiled_kernels_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    extensions = pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")
    monkeypatch.setattr(extensions, "load", lambda name, sources: ModuleType(name))
    python(PAGE["extensions"])
    module = extensions.load("kernels_of_a_host", sources=["a.cu"])
    assert importlib.import_module("kernels_of_a_host") is module
    del sys.modules["kernels_of_a_host"]


def test_lucidrains_asserts_cuda(lucidrains: LucidrainsHost) -> None:
    source = (lucidrains.folder / "stylegan2_pytorch" / "stylegan2_pytorch.py").read_text(encoding="utf-8")
    assert "assert torch.cuda.is_available(), 'You need to have an Nvidia GPU with CUDA installed.'" in source
