"""docs/adding-a-family.md, block by block."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.docs.pages import ROOT, Page, python
from tests.hosts import Host

PAGE = Page("docs/adding-a-family.md")


def test_entry_point_is_the_examples() -> None:
    assert PAGE["entry-point"] in (ROOT / "examples" / "third_party_adapter" / "pyproject.toml").read_text()


def test_contract(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    my_host = ModuleType("my_host")
    my_host.Generator = draggan.generator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_host", my_host)
    suite = python(PAGE["contract"])["TestMyFamily"]()
    suite.test_it_is_found()
    suite.test_ratio_1_changes_no_image("weights")
    suite.family = "another"
    with pytest.raises(AssertionError):
        suite.test_it_is_found()
