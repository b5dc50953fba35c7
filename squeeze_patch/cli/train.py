"""squeeze-patch train"""

from __future__ import annotations

from typing import Any, Optional, Tuple

import click

from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import labels_option, quiet_option, ratio_options, script_first, source_options
from squeeze_patch.cli.output import say_unless
from squeeze_patch.cli.sources import Sources
from squeeze_patch.training.train import train as run_training


@click.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "arguments", metavar="-- train.py ...", nargs=-1, required=True, type=click.UNPROCESSED, callback=script_first
)
@ratio_options
@click.option(
    "--init-from",
    metavar="FILE",
    help="Start from this checkpoint's weights (dense or squeezed). Nothing that is stored in it is run.",
)
@click.option(
    "--trust", is_flag=True, help="Load the file of --init-from as the script does, which runs code stored in it."
)
@labels_option
@click.option("--dense", is_flag=True, help="Squeeze nothing: the rival, under the same torch in the same way.")
@source_options
@quiet_option
def train(
    arguments: Tuple[str, ...],
    init_from: Optional[str],
    trust: bool,
    dense: bool,
    sources: Sources,
    quiet: bool,
    **how_far: Any,
) -> None:
    """Run a host's own train.py with squeezed generators.

    Call it in the host's folder. The script's --resume takes squeezed snapshots, and dense ones, which are squeezed
    first. Like the script itself, --resume runs the code that is stored in such a file; --init-from does not.

    \b
    Example:
      squeeze-patch train -- train.py --outdir=runs --data=faces.zip --gpus=1
    """
    for path in sources.local(None if dense else init_from, quiet=quiet):
        init_from = str(path)
    run_training(arguments, **how_far, init_from=init_from, trust=trust, dense=dense, say=say_unless(quiet))
