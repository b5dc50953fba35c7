"""What checks found, as CI systems and browsers read it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List, Optional, Tuple
from xml.etree import ElementTree

import pytest

from squeeze_patch.checks.github import markdown, step_summary, workflow_commands
from squeeze_patch.checks.junit import BEGIN, junit
from squeeze_patch.checks.outcome import CheckReport, Outcome
from tests.helpers import cli

#: what a repository's code may say, by accident or on purpose
WORDS = "50 % of a|b, c: <i>\n::stop-commands::x\x1b[31m\x00 \ud800 `d`"
OUTCOMES = (
    Outcome("state", "structure", "holds", "as planned", seconds=0.25),
    Outcome("images", "parity", "short", WORDS, "equal, all", "G|1", "b8:conv1", "do it", 1.5, picture="a.png"),
    Outcome("features", "parity", "unknown", "ConfigError: no", subject="G,2:", seconds=1.0),
    Outcome("fidelity", "parity", "skipped", "no dense one", cure="name one"),
)
REPORT = CheckReport(OUTCOMES, "squeeze.toml", "squeeze-baseline.json", {"torch": "2.0"})


def test_messages_are_one_line_that_steers_nothing() -> None:
    message = OUTCOMES[1].message
    assert message.isprintable()
    assert "50 % of a|b, c: <i> ::stop-commands::x\\x1b[31m\\x00 \\ud800 `d`" in message


def test_junit() -> None:
    text = junit(REPORT)
    assert text.startswith(BEGIN.encode())
    root = ElementTree.fromstring(text)
    suites = {suite.get("name"): suite for suite in root}
    assert {
        name: {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
        for name, suite in suites.items()
    } == {
        "structure": {"tests": "1", "failures": "0", "errors": "0", "skipped": "0", "time": "0.250"},
        "parity": {"tests": "3", "failures": "1", "errors": "1", "skipped": "1", "time": "2.500"},
    }
    assert [root.get(key) for key in ("tests", "failures", "errors", "time")] == ["4", "1", "1", "2.750"]
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert {name: case[0].tag for name, case in cases.items()} == {
        "state": "system-out",
        "images[G|1]": "failure",
        "features[G,2:]": "error",
        "fidelity": "skipped",
    }
    assert {case.get("classname") for case in suites["parity"].iter("testcase")} == {"squeeze-patch.parity"}
    failure = cases["images[G|1]"][0]
    assert failure.get("message") == OUTCOMES[1].message
    assert [line.partition(": ")[0] for line in str(failure.text).splitlines()] == [
        *("place", "found", "wanted", "cure", "picture")
    ]
    assert cases["fidelity"][0].get("message") == "no dense one; name one"
    assert {one.get("name"): one.get("value") for one in suites["parity"].iter("property")} == {
        "config": "squeeze.toml",
        "baseline": "squeeze-baseline.json",
        "torch": "2.0",
    }


def parsed(line: str) -> Tuple[str, Dict[str, str], str]:
    """A workflow command as GitHub's runner takes it apart: what stands between two pairs of colons is its name and
    properties; escapes of properties and of the message end last with that of the per cent sign."""
    found = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert found is not None
    properties = dict(one.split("=", 1) for one in found[2].split(","))

    def plain(text: str, escapes: str) -> str:
        for code in escapes.split():
            text = text.replace(f"%{code}", chr(int(code, 16)))
        return text

    return found[1], {key: plain(one, "0D 0A 3A 2C 25") for key, one in properties.items()}, plain(found[3], "0D 0A 25")


def test_workflow_commands() -> None:
    lines = workflow_commands(REPORT, "sub,folder/50%/squeeze.toml")
    assert [parsed(line) for line in lines] == [
        ("error", {"file": "sub,folder/50%/squeeze.toml", "title": "images[G|1]"}, OUTCOMES[1].message),
        (
            "error",
            {"file": "sub,folder/50%/squeeze.toml", "title": "features[G,2:] could not be run"},
            OUTCOMES[2].message,
        ),
    ]
    assert all(line.isprintable() for line in lines)


def test_step_summary() -> None:
    lines = step_summary(REPORT, "a/squeeze.toml").splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {6}
    assert len(rows) == 2 + len(OUTCOMES)
    assert "falls short" in rows[3][1]
    assert re.sub(r"\\(\W|_)", r"\1", rows[3][4].strip()) == OUTCOMES[1].message
    assert "1 falls short" in lines[0]
    assert markdown("<b>*x*</b>") == r"\<b\>\*x\*\</b\>"


class Shown(HTMLParser):
    """The texts of a page, and the sections' headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: List[str] = []
        self.headings: List[str] = []
        self.tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tag = tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.tag == "h2" and data.strip():
            self.headings.append(data)


def test_all_at_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("squeeze.toml", "a") as stream:
        stream.write('[dense]\nfactory = "squeeze_patch.demo:trained_generator"\n')
    monkeypatch.setenv("PLANTED", "shift")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repository / "summary.md"))
    files = ["--junit", "report.xml", "--html", "report.html", "--json", "report.json"]
    with pytest.warns(UserWarning, match="as harmless"):
        code, out, _ = cli("check", "--skip", "fidelity", *files)
    assert code == 1
    outcomes = json.loads(Path("report.json").read_text())["outcomes"]
    short = {one["name"] for one in outcomes if one["state"] == "short"}
    assert short == {f"{check}[{name}]" for check in ("weights", "images", "features") for name in ("G", "G_ema")}
    commands = [parsed(line) for line in out.splitlines() if line.startswith("::")]
    assert {properties["title"] for _, properties, _ in commands} == short
    assert {properties["file"] for _, properties, _ in commands} == {"repository/squeeze.toml"}
    cases = {case.get("name"): [one.tag for one in case] for case in ElementTree.parse("report.xml").iter("testcase")}
    assert {name for name, tags in cases.items() if tags == ["failure"]} == short
    assert len(cases) == len(outcomes)
    assert Path("summary.md").read_text(encoding="utf-8").count("falls short") == len(short)

    page = Path("report.html").read_text(encoding="utf-8")
    shown = Shown(page)
    assert [
        *("Structure", "Parity", "Images of G_ema", "Features of G_ema against the recorded ones", "Images of G"),
        *("Features of G against the recorded ones", "Figures", "Versions"),
    ] == shown.headings
    assert {"recorded", "now", "dense"} <= set(shown.texts)
    assert all(one["name"] in shown.texts for one in outcomes)
    assert any("falls short" in text for text in shown.texts)

    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repository / "nowhere" / "summary.md"))
    with pytest.warns(UserWarning, match="as harmless"):
        code, out, err = cli("check", "--only", "weights", "--junit", "report.xml", "--html", "report.html", "--json")
    assert (code, len(json.loads(out)["outcomes"])) == (1, 2)  # what goes to GitHub is no part of the JSON
    assert err.count("::error ") == 2
    assert "Warning: GITHUB_STEP_SUMMARY: " in err


def test_files_that_are_no_reports_stay(repository: Path) -> None:
    Path("report.xml").write_text("<?xml version='1.0' encoding='utf-8'?>\n<recipe/>")
    code, _, err = cli("check", "--junit", "report.xml")
    assert (code, "would be lost" in err) == (2, True)
    code, _, err = cli("check", "--junit", "squeeze.toml")
    assert (code, "this file is read" in err) == (2, True)
    assert Path("report.xml").read_text().endswith("<recipe/>")
    code, _, err = cli("check", "--junit", "both", "--html", "both")
    assert (code, "two things cannot be written to one file" in err) == (2, True)


def test_quiet_and_without_faults(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repository / "summary.md"))
    with pytest.warns(UserWarning, match="as harmless"):
        code, out, _ = cli("check", "--only", "state", "--quiet", "--github", "--junit", "report.xml")
    assert (code, out) == (0, "")
    assert "2 hold" in Path("summary.md").read_text(encoding="utf-8")
    assert ElementTree.parse("report.xml").getroot().get("failures") == "0"
