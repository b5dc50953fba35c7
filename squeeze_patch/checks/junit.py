"""What checks found as JUnit XML, which CI systems show: a test suite a group, a test case a check."""

from __future__ import annotations

from typing import Dict, Sequence
from xml.etree import ElementTree

from squeeze_patch.checks.outcome import CheckReport, Outcome, plain

#: how every such file begins, and no other: it may be replaced by a newer one
BEGIN = "<?xml version='1.0' encoding='utf-8'?>\n<testsuites name=\"squeeze-patch check\""
#: {state: element of a test case}
ELEMENTS = {"short": "failure", "unknown": "error", "skipped": "skipped"}


def junit(report: CheckReport) -> bytes:
    """A file in UTF-8: ``failure`` is a check that falls short, ``error`` one that could not be run."""
    root = ElementTree.Element("testsuites", {"name": "squeeze-patch check", **_counts(report.outcomes, skipped=False)})
    for group in dict.fromkeys(outcome.group for outcome in report.outcomes):
        outcomes = [outcome for outcome in report.outcomes if outcome.group == group]
        suite = ElementTree.SubElement(root, "testsuite", {"name": group, **_counts(outcomes)})
        properties = ElementTree.SubElement(suite, "properties")
        told = {"config": report.config, "baseline": report.baseline, **report.versions}
        for name, value in told.items():
            ElementTree.SubElement(properties, "property", {"name": name, "value": plain(value)})
        for outcome in outcomes:
            _case(suite, outcome)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _counts(outcomes: Sequence[Outcome], skipped: bool = True) -> Dict[str, str]:
    states = [outcome.state for outcome in outcomes]
    counts = {
        "tests": str(len(states)),
        "failures": str(states.count("short")),
        "errors": str(states.count("unknown")),
        "time": _seconds(sum(outcome.seconds for outcome in outcomes)),
    }
    return {**counts, "skipped": str(states.count("skipped"))} if skipped else counts


def _case(suite: ElementTree.Element, outcome: Outcome) -> None:
    where = {"classname": f"squeeze-patch.{outcome.group}", "name": outcome.name, "time": _seconds(outcome.seconds)}
    case = ElementTree.SubElement(suite, "testcase", where)
    if outcome.state not in ELEMENTS:
        ElementTree.SubElement(case, "system-out").text = outcome.message
        return
    told = ElementTree.SubElement(case, ELEMENTS[outcome.state], {"message": outcome.message, "type": outcome.state})
    if outcome.state != "skipped":
        lines = {"place": outcome.place, "found": outcome.found, "wanted": outcome.wanted, "cure": outcome.cure}
        lines["picture"] = outcome.picture
        told.text = "\n".join(f"{name}: {plain(text)}" for name, text in lines.items() if text)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"
