"""squeeze-patch check"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, ContextManager, Iterator, List, Optional, Set, Tuple

import click

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checks.catalogue import CHECKS, GROUPS
from squeeze_patch.checks.check_page import check_page
from squeeze_patch.checks.github import ACTIONS, SUMMARY, step_summary, workflow_commands
from squeeze_patch.checks.junit import junit as junit_xml
from squeeze_patch.checks.outcome import CheckReport
from squeeze_patch.checks.recording import IN_CI, record
from squeeze_patch.checks.runner import configured, running
from squeeze_patch.checks.subjects import relative_to
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.cli.options import json_option, quiet_option
from squeeze_patch.cli.output import check_outputs, check_replaceable, emit, progress_bar, written
from squeeze_patch.progress import Progress

_NAMES = click.Choice([*GROUPS, *(check.name for check in CHECKS)])


@click.command(cls=Command)
@click.argument("config", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@click.option("--record", "recording", is_flag=True, help="Write the baseline that later runs are held against.")
@click.option("--only", metavar="NAME", multiple=True, type=_NAMES, help="Run these checks, or groups of them, alone.")
@click.option("--skip", metavar="NAME", multiple=True, type=_NAMES, help="Leave these out.")
@click.option("--list", "listing", is_flag=True, help="List the checks and what each catches.")
@json_option("outcomes")
@click.option(
    "--junit", metavar="FILE", callback=written, help="Write the outcomes as JUnit XML, too, which CI systems show."
)
@click.option(
    "--html", metavar="FILE", callback=written, help="Write a page, too: the outcomes, and the images with a slider."
)
@click.option("--github", is_flag=True, help="Annotate the commit and the job as GitHub Actions does; there, it is on.")
@quiet_option
def check(
    config: Optional[Path],
    recording: bool,
    only: Tuple[str, ...],
    skip: Tuple[str, ...],
    listing: bool,
    json_target: Optional[str],
    junit: Optional[str],
    html: Optional[str],
    github: bool,
    quiet: bool,
) -> None:
    """Check that a repository's squeezed generator is what it was.

    CONFIG is a squeeze.toml or a pyproject.toml with [tool.squeeze-patch], or the folder that has one; by default the
    one in this folder or the nearest above it. Exit code 0: all hold; 1: some fall short; 2: some could not be run.

    \b
    Examples:
      squeeze-patch check --record
      squeeze-patch check
      squeeze-patch check --only structure --only images
      squeeze-patch check --junit report.xml --html report.html
    """
    if listing:
        if recording or json_target or junit or html:
            raise click.UsageError("--list lists the checks and writes nothing; leave the other options out")
        click.echo("\n".join(f"{one.group:<10} {one.name:<24} {one.catches}" for one in CHECKS))
        return
    if recording and (only or skip or json_target or junit or html or github):
        raise click.UsageError("--record runs no checks and writes the whole baseline; leave the other options out")
    found = configured(config, only, skip)
    if recording:
        changes: List[str] = []
        with _progress("recording", quiet) as step, _stdout_kept():
            baseline = record(found, progress=step, changed=changes.append)
        if not quiet:
            names = ", ".join(f"{name or 'one generator'} ({one})" for name, one in baseline.generators.items())
            click.echo("\n".join(f"changed  {printable(line)}" for line in changes), nl=bool(changes))
            click.echo(f"recorded {printable(names)} in {relative_to(found, found.baseline)}; commit it")
        if os.environ.get("CI"):
            click.echo(f"Warning: {IN_CI}", err=True)
        return
    check_outputs(json_target, junit, html, sources=[found.path, found.baseline])
    check_replaceable(json_target, junit, html)
    with _progress("checking", quiet) as step, _stdout_kept(), running(found, step) as session:
        report = session.run()
        page = check_page(report, session) if html else ""
    for target, content in ((junit, junit_xml(report)), (html, page.encode())):
        if target is not None:
            with atomic_write(Path(target)) as stream:
                stream.write(content)
    written = [f"\n{what:<24} {name}" for what, name in (("junit", junit), ("page", html)) if name is not None]
    emit(f"{printable_table(str(report))}{''.join(written)}", report.to_dict(), json_target, quiet)
    if github or os.environ.get(ACTIONS) == "true":
        _tell_github(report, _in_workspace(found.path), to_stderr=json_target == "-")
    sys.exit(report.exit_code)


@contextlib.contextmanager
def _progress(label: str, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal; in a log, a line for every thing that takes long."""
    is_log = sys.stderr is not None and not sys.stderr.isatty()
    with progress_bar(label, quiet=quiet or is_log) as bar:
        said: Set[str] = set()

        def step(what: str, done: int, total: int) -> None:
            bar(what, done, total)
            if is_log and not (quiet or what in said):
                said.add(what)
                click.echo(f"{label}: {what}", err=True)

        yield step


def _stdout_kept() -> ContextManager[Any]:
    """What the repository's code prints goes to stderr: stdout may be JSON that a program reads."""
    return contextlib.nullcontext() if sys.stderr is None else contextlib.redirect_stdout(sys.stderr)


def _tell_github(report: CheckReport, file: str, to_stderr: bool) -> None:
    """Annotations where the runner reads them, which are both streams, and the summary in the file that it names."""
    for line in workflow_commands(report, file):
        click.echo(line, err=to_stderr)
    target = os.environ.get(SUMMARY)
    if target:
        try:
            with open(target, "a", encoding="utf-8") as stream:
                stream.write(step_summary(report, file))
        except OSError as error:  # what was found is told by the exit code all the same
            click.echo(f"Warning: {SUMMARY}: {target}: {error.strerror}; the summary is not written", err=True)


def _in_workspace(path: Path) -> str:
    """As the workflow's folder, where it is at its root, says it, with slashes."""
    workspace = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    path = path.resolve()
    return (path.relative_to(workspace) if workspace in path.parents else path).as_posix()


def printable_table(text: str) -> str:
    """Line by line: words of a file or of a repository's code may be among them."""
    return "\n".join(map(printable, text.splitlines()))
