"""squeeze-patch run"""

from __future__ import annotations

from typing import Any, Tuple

import click

from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import quiet_option, ratio_options, script_first
from squeeze_patch.cli.output import say_unless
from squeeze_patch.training.run import run as run_script


@click.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "arguments", metavar="-- script.py ...", nargs=-1, required=True, type=click.UNPROCESSED, callback=script_first
)
@ratio_options
@quiet_option
def run(arguments: Tuple[str, ...], quiet: bool, **how_far: Any) -> None:
    """Run a host's script with generators squeezed as its file says.

    For hosts whose files hold state dicts (rosinality's family). Generators are squeezed as the squeezed file among the
    script's arguments says. Without such a file, to train from scratch, --ratio or --reduction say how.

    \b
    Example:
      squeeze-patch run -- generate.py --ckpt squeezed.pt --size 256
    """
    run_script(arguments, say=say_unless(quiet, err=True), **how_far)
