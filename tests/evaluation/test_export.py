"""Squeezed generators in ONNX and under torch.compile, on the CPU, against eager mode.

What a host's operations do not allow, its dense generators cannot do either.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.demo.network import Generator
from squeeze_patch.testing import float_error, trained
from tests.fused import count
from tests.helpers import FLAT_HOSTS, HOSTS

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
HEADER = Path(sysconfig.get_paths()["include"], "Python.h")
COMPILER = any(map(shutil.which, ("g++", "clang++", "c++"))) and HEADER.is_file()
#: NVIDIA's fused convolution groups by batch, which fixes the batch; its other one does the same arithmetic
NVIDIA = {"noise_mode": "const", "fused_modconv": False}


class Images(torch.nn.Module):
    """z -> images with the stored noise, as exporters want them: tensors in, one tensor out."""

    def __init__(self, G: Any, flat: bool, **settings: Any) -> None:
        super().__init__()
        self.G, self.flat, self.settings = G, flat, settings

    def forward(self, z: torch.Tensor) -> Any:
        if self.flat:
            return self.G([z], randomize_noise=False)[0]
        return self.G(z, z.new_zeros(z.shape[0], 0), **self.settings)


@contextlib.contextmanager
def images_of(name: str, resolution: int = 8, **wish: Any) -> Iterator[Images]:
    """A trained-looking generator, squeezed if there is a ``wish``: first block and last, excite and its reader."""
    host = {**HOSTS, **FLAT_HOSTS}.get(name)
    with host.active() if host else contextlib.nullcontext():
        if host:
            G = trained(host.generator(resolution=resolution))
        else:
            sizes = {"channel_base": 512, "channel_max": 32}
            G = trained(Generator(32, 0, 32, resolution, 3, synthesis_kwargs=sizes))
        if wish:
            squeeze_patch.apply(G, keep_original=False, **wish)
        settings: Dict[str, Any] = NVIDIA if name == "draggan" else {"noise_mode": "const"}
        yield Images(G.requires_grad_(False), name in FLAT_HOSTS, **settings).eval()


def latents(n: int) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.skipif(VERSION < (2, 9), reason="the exporter that is tested is the default from torch 2.9 onwards")
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.parametrize(("name", "any_batch"), [("demo", True), ("draggan", True), ("draggan-rosinality", False)])
def test_onnx(name: str, any_batch: bool, tmp_path: Path) -> None:
    import onnxruntime

    with images_of(name, ratio=2) as module:
        shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
        torch.onnx.export(
            module, (latents(3),), tmp_path / "squeezed.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False
        )
        session = onnxruntime.InferenceSession(str(tmp_path / "squeezed.onnx"), providers=["CPUExecutionProvider"])
        z = latents(5 if any_batch else 3)
        (images,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
        expected = module(z)
        assert (torch.from_numpy(images) - expected).abs().max() <= float_error(module.G, expected)


@pytest.mark.skipif(VERSION < (2, 9), reason="the exporter that is tested is the default from torch 2.9 onwards")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="a quarter of a minute; SQUEEZE_SLOW=1 runs it")
@pytest.mark.parametrize("any_batch", [False, True])
def test_onnx_of_a_fused_generator(any_batch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Excite is folded away in a graph of a fixed number of images, and cannot be in one for any."""
    import onnxruntime

    with images_of("demo", 16, ratio=2) as module, torch.no_grad():
        expected = module(latents(3))
        squeeze_patch.fuse(module.G)
        folds = count(monkeypatch, fused_convolution, "_folded")
        shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
        file = tmp_path / "fused.onnx"
        torch.onnx.export(module, (latents(3),), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
        assert (folds == []) is any_batch
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for n in (3, 2, 1) if any_batch else (3,):
            (images,) = session.run(None, {session.get_inputs()[0].name: latents(3)[:n].numpy()})
            assert (torch.from_numpy(images) - expected[:n]).abs().max() <= float_error(module.G, expected)


@pytest.mark.skipif(VERSION < (2, 0), reason="torch.compile came with torch 2.0")
@pytest.mark.filterwarnings("ignore")  # of the compiler, about the hosts' code
@pytest.mark.parametrize("wish", [{}, {"ratio": 2}], ids=["dense", "squeezed"])
@pytest.mark.parametrize("name", ["demo", "draggan-rosinality"])
def test_compiled_in_one_graph(name: str, wish: Dict[str, Any]) -> None:
    """Images and gradients, traced by torch.compile without a break and run by its backend aot_eager."""
    with images_of(name, resolution=16, **wish) as module:
        torch._dynamo.reset()
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        results = []
        for run in (module, compiled):
            module.G.requires_grad_(True).zero_grad()
            images = run(latents(3))
            images.square().mean().backward()
            results.append({"images": images.detach(), **{n: p.grad.clone() for n, p in module.G.named_parameters()}})
        eager, traced = results
        for what, tensor in eager.items():
            # the way back is as long as the way there
            assert (traced[what] - tensor).abs().max() <= 2 * float_error(module.G, tensor), what


@pytest.mark.skipif(VERSION < (2, 6), reason="what is compiled can be switched off from torch 2.6 on")
@pytest.mark.filterwarnings("ignore")
def test_trials_run_what_was_compiled_as_it_was_before() -> None:
    """Each block that is exchanged on trial would be compiled, up to torch's limit, beyond which nothing is."""
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    G: Any = Generator(32, 0, 8, 8, 3, synthesis_kwargs={"channel_base": 64}).eval().requires_grad_(False)
    network = G.synthesis
    torch._dynamo.reset()
    G.synthesis = torch.compile(network, backend=backend)
    squeeze_patch.fuse(squeeze_patch.apply(G, ratio=2))
    assert squeeze_patch.status(G).place == ""
    assert graphs == []
    images, expected = G(latents(3), None), G.synthesis._orig_mod(G.mapping(latents(3), None))
    assert graphs != []
    graphs.clear()
    torch._dynamo.reset()
    squeeze_patch.compare(G, G, samples=2)
    assert graphs != []  # what is compared is what was given
    assert (images - expected).abs().max() <= float_error(G, expected)


@pytest.mark.skipif(VERSION < (2, 0), reason="torch.compile came with torch 2.0")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_compiled_in_parts() -> None:
    """NVIDIA's operations switch warnings off and on, which no graph holds, dense neither; the parts do."""
    with images_of("draggan") as dense:
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(dense, backend="eager", fullgraph=True)(latents(3))
    with images_of("draggan", ratio=2) as module:
        torch._dynamo.reset()
        graphs = []

        def backend(graph: Any, _: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        images = torch.compile(module, backend=backend)(latents(3))
        expected = module(latents(3))
        assert (images - expected).abs().max() <= float_error(module.G, expected)
        assert graphs != []


@pytest.mark.skipif(VERSION < (2, 0), reason="torch.compile came with torch 2.0")
@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="most of a minute; SQUEEZE_SLOW=1 runs it")
@pytest.mark.skipif(not COMPILER, reason="inductor needs a C++ compiler and Python's headers")
@pytest.mark.filterwarnings("ignore")
def test_compiled_to_machine_code() -> None:
    """torch.compile as it is by default, on the demo's generator."""
    with images_of("demo", ratio=2) as module, torch.no_grad():
        torch._dynamo.reset()
        images, expected = torch.compile(module, fullgraph=True)(latents(3)), module(latents(3))
        assert (images - expected).abs().max() <= float_error(module.G, expected)
