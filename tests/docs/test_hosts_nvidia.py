"""docs/hosts/nvidia.md, block by block."""

from __future__ import annotations

from pathlib import Path

import squeeze_patch
from tests.docs.pages import Page, python

PAGE = Page("docs/hosts/nvidia.md")


def test_fp16(workspace: Path) -> None:
    squeeze_patch.convert("network.pkl", "squeezed.pkl", trust=True, init="weights")
    G = python(PAGE["fp16"])["G"]
    assert squeeze_patch.status(G).state == "squeezed"
    assert G.synthesis.b16.use_fp16
