"""squeeze-patch cache"""

from __future__ import annotations

import json
from typing import Dict, Optional

import click

from squeeze_patch.checkpoints.cache import CachedFile, cache_dir, cached_files, matching, remove_unused, room_of
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.errors import CheckpointError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cache() -> None:
    """List and remove downloaded checkpoints.

    \b
    Examples:
      squeeze-patch cache list
      squeeze-patch cache clear 'ffhq*'
    """


@cache.command("list", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_files(as_json: bool) -> None:
    """List the downloads that are kept: name, size, date, address."""
    folder = cache_dir()
    files = cached_files(folder)
    total = room_of(files)
    if as_json:
        rows = [_row(one) for one in files]
        click.echo(json.dumps({"folder": str(folder), "files": rows, "total": total}, indent=2))
        return
    width = max((len(printable(one.name)) for one in files), default=0)
    for one in files:
        date = one.record.date[:10] if one.whole else "unfinished"
        name = printable(one.name)
        click.echo(f"{name:<{width}}  {_size(one.bytes):>10}  {date:<10}  {printable(one.record.address)}")
    click.echo(f"{_count(len(files))}, {_size(total)}, in {folder}")


@cache.command("clear", cls=Command, short_help="Remove downloads: all, or those that fit a pattern.")
@click.argument("pattern", metavar="[PATTERN]", required=False)
def clear(pattern: Optional[str]) -> None:
    """Remove downloads: all, or those whose name or address fits PATTERN (*, ? and [...]).

    Other files in the folder stay, and so does what another process is downloading.
    """
    folder = cache_dir()
    files = cached_files(folder)
    chosen = files if pattern is None else matching(files, pattern)
    if pattern is not None and not chosen:
        raise CheckpointError(f"no download in {folder} fits {pattern}; squeeze-patch cache list shows what is there")
    freed, removed = 0, 0
    for one in chosen:
        size = one.bytes if one.path.stat().st_nlink == 1 else 0  # it has another name
        if remove_unused(one):
            freed, removed = freed + size, removed + 1
        else:
            click.echo(f"Warning: {printable(one.name)} is being downloaded and stays", err=True)
    click.echo(f"removed {_count(removed)}, {_size(freed)} freed, in {folder}")


def _row(one: CachedFile) -> Dict[str, object]:
    record = one.record
    return {
        "name": one.name,
        "size": one.bytes,
        "date": record.date or None,
        "address": record.address,
        "sha256": record.sha256 or None,
        "finished": one.whole,
        "path": str(one.path),
    }


def _count(files: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} B"
