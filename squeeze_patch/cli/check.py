"""squeeze-patch check"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional, Tuple

import click

from squeeze_patch.checks.catalogue import CHECKS, GROUPS
from squeeze_patch.checks.runner import check as run_checks
from squeeze_patch.checks.runner import configured, record
from squeeze_patch.checks.subjects import relative_to
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.cli.options import quiet_option
from squeeze_patch.cli.output import check_outputs, check_replaceable, emit, progress_bar

_NAMES = click.Choice([*GROUPS, *(check.name for check in CHECKS)])


@click.command(cls=Command)
@click.argument("config", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@click.option("--record", "recording", is_flag=True, help="Write the baseline that later runs are held against.")
@click.option("--only", metavar="NAME", multiple=True, type=_NAMES, help="Run these checks, or groups of them, alone.")
@click.option("--skip", metavar="NAME", multiple=True, type=_NAMES, help="Leave these out.")
@click.option("--list", "listing", is_flag=True, help="List the checks and what each catches.")
@click.option(
    "--json",
    "json_target",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="Write the outcomes as JSON; without FILE or with -, to stdout in place of the table.",
)
@quiet_option
def check(
    config: Optional[Path],
    recording: bool,
    only: Tuple[str, ...],
    skip: Tuple[str, ...],
    listing: bool,
    json_target: Optional[str],
    quiet: bool,
) -> None:
    """Check that a repository's squeezed generator is what it was.

    CONFIG is a squeeze.toml or a pyproject.toml with [tool.squeeze-patch]; by default the one in this folder or the
    nearest above it. Exit code 0: all hold; 1: some fall short; 2: some could not be run.

    \b
    Examples:
      squeeze-patch check --record
      squeeze-patch check
      squeeze-patch check --only structure --only images
    """
    if listing:
        click.echo("\n".join(f"{one.group:<10} {one.name:<24} {one.catches}" for one in CHECKS))
        return
    found = configured(config, only, skip)
    if recording:
        with progress_bar("recording", quiet=quiet) as step:
            baseline = record(found, progress=step)
        if not quiet:
            names = ", ".join(name or "one generator" for name in baseline.generators)
            click.echo(f"recorded {printable(names)} in {relative_to(found, found.baseline)}; commit it")
        return
    check_outputs(json_target, sources=[found.path, found.baseline])
    check_replaceable(json_target)
    with progress_bar("checking", quiet=quiet) as step:
        report = run_checks(found, progress=step)
    emit(printable_table(str(report)), report.to_dict(), json_target, quiet)
    sys.exit(report.exit_code)


def printable_table(text: str) -> str:
    """Line by line: words of a file or of a repository's code may be among them."""
    return "\n".join(map(printable, text.splitlines()))
