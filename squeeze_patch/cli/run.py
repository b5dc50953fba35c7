"""squeeze-patch run"""

from __future__ import annotations

from typing import Optional, Tuple

import click

from squeeze_patch.cli.errors import one_line_errors
from squeeze_patch.cli.options import ratio_options
from squeeze_patch.training.run import run as run_script


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="-- script.py ...", nargs=-1, required=True, type=click.UNPROCESSED)
@ratio_options
@one_line_errors
def run(arguments: Tuple[str, ...], reduction: Optional[float], ratio: Optional[float]) -> None:
    """Run a script of a host whose files hold state dicts (rosinality's family), with squeezed generators.

    They are squeezed as the squeezed file among the script's arguments says. Without such a file, to train from
    scratch, --ratio or --reduction say how.

    \b
    Example:
      squeeze-patch run -- generate.py --ckpt squeezed.pt --size 256
    """
    run_script(arguments, reduction=reduction, ratio=ratio, say=lambda line: click.echo(line, err=True))
