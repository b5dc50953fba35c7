"""squeeze-patch scan"""

from __future__ import annotations

from typing import List, Optional, Tuple

import click

from squeeze_patch.checkpoints.scanning import Scan
from squeeze_patch.checkpoints.scanning import scan as scan_file
from squeeze_patch.checkpoints.scanning_findings import Finding
from squeeze_patch.cli.errors import EXIT_ERROR, Command, printable
from squeeze_patch.cli.options import json_option, quiet_option, source_options
from squeeze_patch.cli.output import check_outputs, check_replaceable, emit, progress_bar
from squeeze_patch.cli.sources import Sources

EXIT_UNUSUAL = 1
#: rows of a table; --json has them all
ROWS = 60


@click.command(cls=Command, short_help="Say what loading a file would import, call and run.")
@click.argument("file", metavar="FILE")
@json_option("findings")
@source_options
@quiet_option
def scan(file: str, json_target: Optional[str], sources: Sources, quiet: bool) -> None:
    """Say what loading a file as its host does would import, call and run, without doing it.

    It never says that a file is safe: it says what it saw, and what it could not look into. Exit code: 1 where it saw
    something that such files do not need; else 2 where it could not look into all of the file; else 0.

    \b
    Examples:
      squeeze-patch scan network.pkl
      squeeze-patch scan 550000.pt --json findings.json
    """
    (path,) = sources.local(file, quiet=quiet)
    check_outputs(json_target, sources=[path])
    check_replaceable(json_target)
    with progress_bar("scanning", unit=1_000_000, quiet=quiet) as step:
        found = scan_file(path, step)
    emit("\n".join(_lines(found)), found.to_dict(), json_target, quiet)
    click.get_current_context().exit(EXIT_UNUSUAL if found.unusual else 0 if found.complete else EXIT_ERROR)


def _lines(found: Scan) -> List[str]:
    rows = [_row(finding) for finding in found.findings[:ROWS]]
    header = ("level", "named", "called", "at", "what")
    widths = [max(map(len, column)) for column in list(zip(header, *rows))[:-1]]
    lines = [f"{printable(found.file)}: {found.form}, {found.size:,} bytes"]
    for row in [header, *rows] if rows else []:
        level, *numbers, what = row
        cells = [f"{level:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:])), what]
        lines.append("  ".join(cells))
    if len(found.findings) > ROWS:
        lines.append(f"... and {len(found.findings) - ROWS:,} more; --json has them all")
    return [*lines, printable(found.verdict)]


def _row(finding: Finding) -> Tuple[str, ...]:
    where = f" [{finding.place}]" if finding.place else ""
    why = f" ({finding.why})" if finding.why else ""
    called = f"{finding.called:,}" if finding.kind in ("name", "call") else ""
    return (
        finding.level,
        f"{finding.named:,}",
        called,
        f"{finding.position:,}",
        printable(f"{finding.what}{where}{why}"),
    )
