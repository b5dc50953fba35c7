"""What checks found, as GitHub shows it: annotations on the configuration, and a table for the job's summary."""

from __future__ import annotations

import re
from typing import List

from squeeze_patch.checks.outcome import CheckReport, Outcome, plain

#: variables that GitHub Actions sets: "true", and the file that Markdown is appended to
ACTIONS, SUMMARY = "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"
#: {state: how the summary shows it}
SHOWN = {
    "holds": "\N{WHITE HEAVY CHECK MARK}",
    "short": "\N{CROSS MARK} falls short",
    "unknown": "\N{BLACK QUESTION MARK ORNAMENT} could not be run",
    "skipped": "skipped",
}


def workflow_commands(report: CheckReport, file: str) -> List[str]:
    """Workflow commands, a line each, for checks that fall short or could not be run.

    Args:
        file: path of the configuration in the repository, with slashes.
    """
    return [_command(one, file) for one in report.outcomes if one.state in ("short", "unknown")]


def step_summary(report: CheckReport, file: str) -> str:
    """A heading, the outcomes as a table, and what they are of, in Markdown; ``file`` as of `workflow_commands`."""
    rows = [
        f"| {SHOWN[one.state]} | {markdown(one.group)} | {markdown(one.name)} | {markdown(one.message)} |"
        for one in report.outcomes
    ]
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    lines = [
        f"### squeeze-patch check: {markdown(report.summary)}",
        "",
        "| | group | check | found |",
        "|---|---|---|---|",
        *rows,
        "",
        markdown(f"{plain(file)}, baseline {report.baseline or 'none'}; {versions}"),
        "",
    ]
    return "\n".join(lines)


def markdown(text: str) -> str:
    """A text as Markdown that means nothing but itself, in a cell of a table, too."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", text)


def _command(outcome: Outcome, file: str) -> str:
    title = outcome.name if outcome.state == "short" else f"{outcome.name} could not be run"
    return f"::error file={_property(file)},title={_property(title)}::{_data(outcome.message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
