"""squeeze-patch compare: its table, figures, picture and page."""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
from pathlib import Path

import pytest
from PIL import Image

import squeeze_patch
from squeeze_patch.reporting.page import page
from tests.helpers import cli


def test_compare(snapshot: Path, tmp_path: Path) -> None:
    squeezed, figures, picture = snapshot.with_name("squeezed.pkl"), tmp_path / "figures.json", tmp_path / "out.png"
    cli("convert", snapshot, squeezed, "--trust", "--allocate", "uniform")
    options = ["--trust", "--samples", "9", "--seed", "3", "--noise", "none", "--truncation", "0.7"]
    code, out, err = cli("compare", snapshot, squeezed, *options, "--json", figures, "--grid", picture)
    assert (code, err) == (0, "")  # quiet beside the table where stderr is no terminal
    assert out.startswith(f"A {snapshot}, dense: ")
    assert f"\nB {squeezed}, squeezed: 4 of 4 blocks" in out
    for words in ("9 latents (seed 3), noise none, truncation 0.7", "PSNR", "SSIM", "features 16x16", "Wasserstein 16"):
        assert words in out
    data = json.loads(figures.read_text())
    G, H = (pickle.loads(path.read_bytes())["G_ema"] for path in (snapshot, squeezed))
    direct = squeeze_patch.compare(G, H, samples=9, seed=3, noise_mode="none", truncation=0.7)
    assert data["psnr"] == pytest.approx(direct.psnr, abs=1e-3)  # the same computation on the same file
    with Image.open(picture) as image:
        assert image.size == (8 * 64, 3 * (64 + 16))
    code, out, _ = cli("compare", snapshot, snapshot, "--trust", "--samples", "2", "--key", "G", "--json")
    assert code == 0
    assert json.loads(out)["psnr"] is None  # nothing but JSON; equal


def test_the_page(snapshot: Path, tmp_path: Path) -> None:
    squeezed, picture, html = snapshot.with_name("squeezed.pkl"), tmp_path / "out.png", tmp_path / "out.html"
    cli("convert", snapshot, squeezed, "--allocate", "uniform")
    code, out, _ = cli("compare", snapshot, squeezed, "--samples", "9", "--grid", picture, "--html", html)
    assert code == 0
    assert out.endswith(f"picture                  {picture}\npage                     {html}\n")
    text = html.read_text(encoding="utf-8")
    figures = re.findall(r"^(?:PSNR|SSIM|features 8x8|sliced Wasserstein 16) +(\S+)", out, re.MULTILINE)
    assert len(figures) == 4
    for words in ("dense.pkl and squeezed.pkl", "Of the first 8 of 9 latents", "squeezed: 4 of 4 blocks", *figures):
        assert words in text
    found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([AB]): \w+.pkl, latent (\d)"', text)
    assert [(which, int(latent)) for _, which, latent in found] == [(which, n) for which in "AB" for n in range(1, 9)]
    with Image.open(picture) as rows:
        for address, which, latent in found:
            left, top = 64 * (int(latent) - 1), 16 + (64 + 16) * "AB".index(which)
            with Image.open(io.BytesIO(base64.b64decode(address))) as image:
                enlarged = image.resize((64, 64), Image.Resampling.NEAREST)
            assert enlarged.tobytes() == rows.crop((left, top, left + 64, top + 64)).tobytes()


def test_an_older_page_is_replaced_and_other_files_are_not(snapshot: Path, tmp_path: Path) -> None:
    html = tmp_path / "out.html"
    command = ["compare", snapshot, snapshot, "--samples", "2", "--html", html, "--quiet"]
    html.write_text(page("Older", "", []), encoding="utf-8")
    assert cli(*command) == (0, "", "")
    assert "All images are equal." in html.read_text(encoding="utf-8")
    html.write_text("<!DOCTYPE html>\n<title>Mine</title>", encoding="utf-8")
    code, _, err = cli(*command)
    assert (code, "nor a page of squeeze-patch (HTML), and would be lost" in err) == (2, True)
    assert "Mine" in html.read_text(encoding="utf-8")
    code, _, err = cli("compare", snapshot, snapshot, "--html", tmp_path / "new", "--grid", tmp_path / "new")
    assert (code, "two things cannot be written to one file" in err) == (2, True)
