"""docs/export.md, block by block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import squeeze_patch
from squeeze_patch.testing import float_error, trained
from tests.docs.pages import Page, python
from tests.hosts import Host

PAGE = Page("docs/export.md")


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="the exporter is of torch 2")
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_export(draggan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    G = trained(draggan.generator(resolution=8)).requires_grad_(False)
    python(PAGE["export"], G=G)
    session = onnxruntime.InferenceSession("squeezed.onnx", providers=["CPUExecutionProvider"])
    z, c = draggan.latents(G, n=5)
    (images,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    expected = draggan.images(G, z, c)
    assert squeeze_patch.status(G).state == "squeezed"
    assert (torch.from_numpy(images) - expected).abs().max() <= float_error(G, expected)
