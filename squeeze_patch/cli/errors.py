"""Errors of commands: one line on stderr, exit code 2, the traceback where it is asked for."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Type

import click

from squeeze_patch.errors import DownloadWarning, LabelsWarning, LostWarning, ScriptError, SqueezeError, UnprovedWarning

EXIT_ERROR = 2
#: characters of an error's line; what torch says of a state dict can be many times as long
LONGEST = 1000
_WARNINGS = (DownloadWarning, LabelsWarning, LostWarning, UnprovedWarning)


class Command(click.Command):
    """A command whose errors are one line on stderr and exit code 2; --debug shows the traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        try:
            with warnings.catch_warnings():
                setattr(warnings, "showwarning", _show)  # noqa: B010 - its type names every argument
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt, BrokenPipeError):
            raise  # click ends without a word where nobody reads any more
        except Exception as error:
            if debug:
                raise
            click.echo(f"Error: {self._with_options(one_line(error))}", err=True)
            sys.exit(EXIT_ERROR)

    def _with_options(self, text: str) -> str:
        """The library speaks of its arguments ("learning_rate has to be above 0"), users of options (--lr)."""
        name, wanted, rest = text.partition(" has to be ")
        option = next((each for each in self.params if each.name == name and isinstance(each, click.Option)), None)
        return f"{option.opts[0]}{wanted}{rest}" if option is not None and wanted else text


_show_any = warnings.showwarning


def _show(message: Any, category: Type[Warning], *where: Any) -> None:
    """Ours as one line; those of hosts and packages as Python shows them."""
    if issubclass(category, _WARNINGS):
        click.echo(f"Warning: {one_line(message)}", err=True)
    else:
        _show_any(message, category, *where)


def printable(text: str) -> str:
    """Words out of a file, without what would steer a terminal or cannot be written."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """An error's message; of one that was not raised on purpose, with its name and where to look."""
    text = printable(" ".join(str(error).split())) or "no further information"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    if isinstance(error, ScriptError):
        return f"{text} (--debug shows where)"
    if isinstance(error, (SqueezeError, OSError, *_WARNINGS)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"
