"""All trainings of a folder have the same host, data and settings: else their table would compare what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

import click

from benchmarks.curves import read_json
from squeeze_patch.checkpoints.atomic import atomic_write

NAME = "trainings.json"


def require_same(out: Path, how: Mapping[str, Any]) -> None:
    """Remember ``how`` the first training in ``out`` is done; a folder of before, which does not say, stays as it is.

    Raises:
        UsageError: others in it were done otherwise.
    """
    file = out / NAME
    begun = any(out.glob("*-seed*"))
    if begun and file.is_file():
        there = read_json(file)
        others = [f"{key} {there.get(key)}, not {how.get(key)}" for key in how if there.get(key) != how[key]]
        if others:
            raise click.UsageError(
                f"--out {out} has trainings of another kind: {'; '.join(others)}. Another folder keeps them apart"
            )
    elif not begun:
        with atomic_write(file) as stream:
            stream.write(json.dumps(dict(how), indent=1).encode())
