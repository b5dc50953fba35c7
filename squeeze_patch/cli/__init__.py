"""The command line: options, progress and tables. What the commands do is in the modules that they call."""

from __future__ import annotations

import click

from squeeze_patch import __version__
from squeeze_patch.cli.cache import cache
from squeeze_patch.cli.check import check
from squeeze_patch.cli.compare import compare
from squeeze_patch.cli.convert import convert
from squeeze_patch.cli.demo import demo
from squeeze_patch.cli.info import info
from squeeze_patch.cli.output import any_characters
from squeeze_patch.cli.plan import plan
from squeeze_patch.cli.recover import recover
from squeeze_patch.cli.report import report
from squeeze_patch.cli.run import run
from squeeze_patch.cli.scan import scan
from squeeze_patch.cli.termination import clean_termination
from squeeze_patch.cli.train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="squeeze-patch")
def main() -> None:
    """Image squeeze connections for existing StyleGAN2 generators: about 12 % fewer parameters.

    \b
    Try it without any host:
      squeeze-patch demo
    Convert a checkpoint, which the untouched host then loads:
      squeeze-patch convert dense.pkl squeezed.pkl
    """
    for resource in (clean_termination(), any_characters()):  # the first is the last to be left
        click.get_current_context().with_resource(resource)


for command in (info, scan, plan, convert, recover, compare, report, check, demo, train, run, cache):
    main.add_command(command)
