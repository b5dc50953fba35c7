"""A group of commands that lists them with a line each, and imports one only when it is run."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional

import click

from squeeze_patch.errors import SqueezeError


@dataclass(frozen=True)
class Entry:
    """What the list says about a command.

    Attributes:
        takes: how long it runs with its default options, on two cores.
        measures: what, in a few words.
        figures: where its figures are.
    """

    takes: str
    measures: str
    figures: str


class Menu(click.Group):
    """``python -m PACKAGE``; the command NAME is ``main`` of the module PACKAGE.NAME."""

    def __init__(self, package: str, entries: Mapping[str, Entry], text: str) -> None:
        super().__init__(
            help=text,
            callback=self._show_list,
            invoke_without_command=True,
            subcommand_metavar="NAME [OPTIONS]",
            options_metavar="",
        )
        self.package, self.entries = package, entries

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in self.entries:
            return None
        found: click.Command = importlib.import_module(f"{self.package}.{cmd_name}").main
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widths = [max(map(len, column)) for column in zip(*((n, e.takes) for n, e in self.entries.items()))]
        with formatter.section("Commands"):
            for name, entry in self.entries.items():
                about = f"{entry.measures} [{entry.figures}]"
                formatter.write(f"  {name:<{widths[0]}}  {entry.takes:<{widths[1]}}  {about}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """What the library or the system says of files and options is a line, not a traceback."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends without a word where nobody reads any more
        except (SqueezeError, OSError) as error:
            raise click.ClickException(str(error)) from error

    @staticmethod
    def _show_list() -> None:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
