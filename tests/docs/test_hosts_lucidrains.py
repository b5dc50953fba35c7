"""docs/hosts/lucidrains.md, block by block."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from squeeze_patch.testing import trained
from tests.docs.pages import Page, commands, python
from tests.hosts.lucidrains import LucidrainsHost

PAGE = Page("docs/hosts/lucidrains.md")


def test_wrapper_and_files(
    lucidrains: LucidrainsHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    gan = trained(lucidrains.wrapper(16))
    torch.save({"GAN": gan.state_dict(), "version": "1.9.0"}, "model_5.pt")
    python(PAGE["wrapper"], trainer=SimpleNamespace(GAN=gan))
    assert re.match("squeezed: [1-3] of 3 blocks", capsys.readouterr().out)
    assert "GAN.GE: " in commands(PAGE["convert"])
