"""docs/hosts/rosinality.md, block by block."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.testing import trained
from tests.docs.pages import Page, commands, python, shell
from tests.helpers import FLAT_HOSTS, script_environment
from tests.hosts.flat import FlatHost

PAGE = Page("docs/hosts/rosinality.md")

#: what the host's generate.py does, for the copy that ships none
GENERATE = """
import argparse, torch
from model import Generator
options = argparse.ArgumentParser()
options.add_argument("--ckpt")
g_ema = Generator(8, 64, 2)
g_ema.load_state_dict(torch.load(options.parse_args().ckpt)["g_ema"], strict=False)
image, _ = g_ema([torch.ones(2, 64)], randomize_noise=False)
torch.save(image.detach(), "out.pt")
"""

#: the host's model.py, of 64 channels in place of 512
MODEL = """
from stylegan2 import model
class Generator(model.Generator):
    def __setattr__(self, name, value):
        super().__setattr__(name, {size: 64 for size in value} if name == "channels" else value)
"""


def test_convert_and_run(rosinality: FlatHost, tmp_path: Path) -> None:
    (tmp_path / "generate.py").write_text(GENERATE)
    (tmp_path / "model.py").write_text(MODEL)
    G = trained(rosinality.generator(8, w_dim=64, layers=2, channel_base=512, channel_max=64))
    torch.save({"g_ema": G.state_dict()}, tmp_path / "550000.pt")
    done = shell(PAGE["rosinality"], tmp_path, script_environment(rosinality))
    assert re.search(r"\(1[12]\.\d+ % fewer\), per generator", done.stdout)
    assert re.search("squeezed: [12] of 2 blocks", done.stderr)
    assert (tmp_path / "out.pt").is_file()


def test_load(rosinality: FlatHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(size: int, style_dim: int, n_mlp: int) -> Any:
        return rosinality.generator(size, w_dim=style_dim, layers=n_mlp)

    torch.save({"g_ema": squeeze_patch.apply(narrow(256, 512, 8), ratio=2).state_dict()}, tmp_path / "squeezed.pt")
    model = ModuleType("model")
    model.Generator = narrow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model", model)
    monkeypatch.chdir(tmp_path)
    assert squeeze_patch.status(python(PAGE["load"])["g_ema"]).state == "squeezed"


def test_basicsr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FLAT_HOSTS["basicsr"].active():
        state = trained(FLAT_HOSTS["basicsr"].generator(resolution=8)).state_dict()
    torch.save({"params": state, "params_ema": state}, "net_g_latest.pth")
    assert re.search("params_ema: StyleGAN2Generator, squeezed: [12] of 2 blocks", commands(PAGE["basicsr"]))
