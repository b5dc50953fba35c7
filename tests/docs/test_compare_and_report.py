"""docs/compare-and-report.md, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import squeeze_patch
from squeeze_patch.demo import trained_generator
from tests.docs.pages import Page, commands, python

PAGE = Page("docs/compare-and-report.md")


def test_measure(workspace: Path) -> None:
    squeeze_patch.convert("network.pkl", "squeezed.pkl", trust=True)
    printed = commands(PAGE["measure"])
    assert "PSNR" in printed
    assert "The squeezed generator is" in printed
    assert printed.count("The fused generator is") == 1
    assert printed.count("where the time goes") == 2
    assert (workspace / "side_by_side.png").is_file()
    assert "<h1>network.pkl and squeezed.pkl</h1>" in (workspace / "compared.html").read_text(encoding="utf-8")


def test_in_python(capsys: Any) -> None:
    python(PAGE["python"])
    printed = capsys.readouterr().out
    assert printed.startswith("64 latents (seed 0)")
    for figure in ("PSNR", "SSIM", "features 4x4", "Frechet, random network", "sliced Wasserstein 32", "halves"):
        assert figure in printed


def test_report_in_python(capsys: Any) -> None:
    python(PAGE["report"], dense=trained_generator())
    printed = capsys.readouterr().out
    assert "fused / dense" in printed
    assert "GMAC/s" in printed
