"""Which contract tests pass on which hosts, run now: hosts as columns, tests as rows.

    python -m benchmarks contract_table [PYTEST'S ARGUMENTS, such as -k TestContract]

A cell counts the cases that passed; "-" = the test is not for that host; letters name the reasons of skips, which are
listed below. Exit code 1 where a case failed.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

import click
import pytest

#: an egg-info beside the sources names benchmarks among what a plug-in brings, and this one is running
ALREADY = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
FILE = Path(__file__).parent.parent / "tests" / "adapters" / "test_contract.py"
FIXTURES = ("any_host", "official_host", "host", "full_host", "flat_host")


class Collector:
    """A plugin of pytest that keeps what became of every case."""

    def __init__(self) -> None:
        self.cases: Dict[str, Tuple[str, str]] = {}
        self.outcomes: Counter[Tuple[str, str, str]] = Counter()
        self.reasons: List[str] = []
        self.failures: List[str] = []

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            host = next((str(parameters[name]) for name in FIXTURES if name in parameters), "no host")
            self.cases[item.nodeid] = (item.originalname, host)

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = report.outcome
        if outcome == "skipped":
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason not in self.reasons:
                self.reasons.append(reason)
            outcome = chr(ord("a") + self.reasons.index(reason))
        elif outcome == "failed":
            self.failures.append(report.nodeid)
        if report.when == "call" or outcome != "passed":  # what is set up well is no result yet
            self.outcomes[(*self.cases[report.nodeid], outcome)] += 1


def table(found: Collector) -> str:
    """Markdown, and the reasons and failures below."""
    tests, hosts = (list(dict.fromkeys(case[i] for case in found.cases.values())) for i in (0, 1))
    lines = [["contract test", *hosts], ["---"] * (len(hosts) + 1)]
    for test in tests:
        cells = []
        for host in hosts:
            seen = {outcome: n for (t, h, outcome), n in found.outcomes.items() if (t, h) == (test, host)}
            words = [str(n) if outcome == "passed" else f"{n} {outcome}" for outcome, n in sorted(seen.items())]
            cells.append(", ".join(words) or "-")
        lines.append([test.removeprefix("test_").replace("_", " "), *cells])
    notes = [f"{chr(ord('a') + index)}: skipped, {reason}" for index, reason in enumerate(found.reasons)]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *notes, *found.failures]).rstrip()


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(arguments: Tuple[str, ...]) -> None:
    """Run the contract's tests, with ARGUMENTS of pytest such as -k TestContract, and print the table."""
    found = Collector()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main([str(FILE), "-q", "-p", "no:cacheprovider", "-W", ALREADY, *arguments], plugins=[found])
    if not found.outcomes:
        print(output.getvalue(), file=sys.stderr)
        sys.exit(int(code) or 1)
    print(table(found))
    sys.exit(1 if found.failures else 0)
