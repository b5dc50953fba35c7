"""squeeze-patch info"""

from __future__ import annotations

import json
from typing import Optional

import click

from squeeze_patch.checkpoints.generators import inspect
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.cli.options import file_options
from squeeze_patch.cli.sources import Sources


@click.command(cls=Command)
@click.argument("file", metavar="FILE")
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: str, trust: bool, host: Optional[str], sources: Sources, as_json: bool) -> None:
    """Say what networks a file holds, and whether they are squeezed.

    \b
    Examples:
      squeeze-patch info 550000.pt
      squeeze-patch info squeezed.pkl
    """
    (path,) = sources.local(file)
    found = inspect(path, trust=trust, host=host)
    if as_json:
        rows = {
            name: {
                "class": entry.class_name,
                "parameters": entry.parameters,
                "state": entry.status.state if entry.status else None,
                "same_as": entry.same_as or None,
                "channels": (entry.status.plan.fingerprint or None) if entry.status and entry.status.plan else None,
                "plan": entry.status.plan.to_dict() if entry.status and entry.status.plan else None,
            }
            for name, entry in found.items()
        }
        click.echo(json.dumps(rows, indent=2))
        return
    for key, entry in found.items():
        name = printable(key)
        if entry.same_as:
            click.echo(f"{name}: the same object as {entry.same_as}")
            continue
        other = f"cannot be squeezed: {entry.reason}" if entry.reason else "no generator"
        what = entry.status or f"{other}: {entry.parameters:,} parameters"
        plan = entry.status.plan if entry.status else None
        channels = f", channels {plan.fingerprint}" if plan is not None and plan.fingerprint else ""
        click.echo(printable(f"{name or '(the file)'}: {entry.class_name}, {what}{channels}"))
    if not found:
        click.echo("no networks in this file")
