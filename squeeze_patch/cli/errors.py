"""Errors of commands: one line on stderr, exit code 2, the traceback where it is asked for."""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable

import click

from squeeze_patch.errors import SqueezeError

EXIT_ERROR = 2


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every error is one line on stderr and exit code 2; --debug shows the traceback."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except Exception as error:
            if debug:
                raise
            lines = str(error).strip().splitlines()
            if type(error).__name__ == "ProcessRaisedException":  # its text is the traceback of a spawned process
                lines = lines[-1:]
            text = " ".join(" ".join(lines).split()) or "no further information"
            unexpected = not isinstance(error, (SqueezeError, OSError))
            name = f"{type(error).__name__}: " if unexpected else ""
            hint = " (--debug shows where)" if unexpected else ""
            click.echo(f"Error: {name}{text}{hint}", err=True)
            sys.exit(EXIT_ERROR)

    return wrapped
