"""docs/index.md, block by block."""

from __future__ import annotations

from typing import Any

import squeeze_patch
from tests.docs.pages import Page, python

PAGE = Page("docs/index.md")


def test_first_minute(capsys: Any) -> None:
    G = python(PAGE["first"])["G"]
    assert "squeezed: 2 of 4 blocks" in capsys.readouterr().out
    assert squeeze_patch.status(G).state == "dense"
