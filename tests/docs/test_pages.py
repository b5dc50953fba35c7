"""README.md and docs/ as a whole: every block has a test, every link leads somewhere, every public name is there."""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from typing import Any, Dict, List

import pytest
import yaml
from markdown.extensions.toc import slugify

import squeeze_patch
import squeeze_patch.testing
from tests.docs.pages import PARSED, ROOT, RUN, SHOWN, Page, module_of, pages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest depends on it there

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_block_has_a_test(page: Page) -> None:
    """Blocks that run, and all others that have a name, are asked for by the page's test module; and no others are."""
    assert len(re.findall(r"^ *```\w", page.text, flags=re.MULTILINE)) == sum(bool(b.language) for b in page.blocks)
    named = [block.name for block in page.blocks if block.name]
    assert len(named) == page.text.count("<!-- run: ") == len(set(named))
    for block in page.blocks:
        assert block.language in ("", *RUN, *SHOWN, *PARSED), f"{page}:{block.line}: {block.language}"
        assert block.name or block.language not in RUN, f"{page}:{block.line}: a block that runs needs a name"
    module = module_of(page)
    asked = re.findall(r'\bPAGE\["([\w-]+)"\]', module.read_text(encoding="utf-8")) if module.exists() else []
    assert set(asked) == set(named)


def test_every_test_module_is_of_a_page() -> None:
    for module in sorted((ROOT / "tests" / "docs").glob("test_*.py")):
        of = re.search(r'^PAGE = Page\("(.+)"\)$', module.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert of is None or module_of(Page(of[1])) == module


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_blocks_that_are_read(page: Page) -> None:
    for block in page.blocks:
        if block.language == "json":
            data = json.loads(block.text)
            if "schema" in data:
                assert squeeze_patch.Plan.from_dict(data).to_dict() == data
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "bibtex":
            assert [entry["type"] for entry in bibtex(block.text)] == ["article", "software"]


def bibtex(text: str) -> List[Dict[str, str]]:
    """The entries, {"type", "key", fields}; values are in braces."""
    entries = []
    for kind, key, body in re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}$", text, flags=re.DOTALL | re.MULTILINE):
        fields = dict(re.findall(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\},?", body))
        assert re.sub(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\},?|\s", "", body) == ""
        assert {"author", "title", "year"} <= set(fields)
        entries.append({"type": kind, "key": key, **fields})
    return entries


@pytest.mark.parametrize("page", [*PAGES, Page("CHANGELOG.md")], ids=str)
def test_links(page: Page) -> None:
    """Between the pages, to their headings, and to files of the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = ((ROOT / page.path).parent / path).resolve() if path else ROOT / page.path
        assert file.is_file(), f"{page}: {target}"
        if heading:
            assert heading in headings(file.read_text(encoding="utf-8")), f"{page}: {target}"


def headings(text: str) -> List[str]:
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [slugify(title.replace("`", ""), "-") for title in re.findall(r"^#+ (.+)$", plain, flags=re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_and_commands_that_are_named(page: Page) -> None:
    text = " ".join(page.text.split())
    for path in re.findall(r"`((?:benchmarks|docs|examples|experiments|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for folder, name in re.findall(r"python -m (benchmarks|experiments) (\w+)", text):
        assert (ROOT / folder / f"{name}.py").is_file(), f"{folder} {name}"
    assert not re.search(r"python -m (?:benchmarks|experiments)\.\w", text)  # a list of commands runs them
    assert not re.search(r"(?<![\w.~<:/])/(?:home|root|tmp|usr|work)/", text)  # nobody else has these folders


def test_readme_is_short() -> None:
    assert len(Page("README.md").text.splitlines()) <= 125


def test_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", Page("docs/api.md").text, flags=re.MULTILINE)
    for module in (squeeze_patch, squeeze_patch.testing):
        assert {f"{module.__name__}.{name}" for name in module.__all__} - set(listed) == set()
    assert len(listed) == len(set(listed))


def test_citation() -> None:
    """By the parts of the format (Citation File Format 1.2.0) that are used."""
    data: Dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license", "type"} <= set(data)
    assert data["cff-version"] == "1.2.0"
    assert data["type"] == "software"
    assert str(data["version"]) == squeeze_patch.__version__
    (paper,) = data["references"]
    for entry in (data, paper):
        assert entry["authors"]
        for author in entry["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})
    assert paper["type"] == "article"
    cited, _ = (entry for block in Page("README.md").blocks for entry in bibtex(block.text))
    for key, name in (("title", "title"), ("doi", "doi"), ("year", "year"), ("volume", "volume"), ("issue", "number")):
        assert str(paper[key]) == re.sub(r"[{}]", "", cited[name])
    assert f"{paper['start']}--{paper['end']}" == cited["pages"]


def test_changelog() -> None:
    """In the form of keepachangelog.com, every entry with its day, newest first."""
    text = Page("CHANGELOG.md").text
    assert text.startswith("# Changelog\n")
    released = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["date-released"]
    headings = [head for head in re.findall(r"^## (.*)$", text, flags=re.MULTILINE) if head != "[Unreleased]"]
    assert headings[0] == f"[{squeeze_patch.__version__}] - {released}"
    groups = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [group.split("\n", 1)[0] for group in groups] == ["Added", "Changed", "Fixed"]
    for group in groups:
        entries = re.findall(r"^- (.{10})", group, flags=re.MULTILINE)
        days = [date.fromisoformat(entry) for entry in entries]
        assert days == sorted(days, reverse=True)
        assert len(days) > 0
