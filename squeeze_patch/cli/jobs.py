"""demo and train: commands that run a whole job."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from squeeze_patch.cli.checkpoints import print_conversion
from squeeze_patch.cli.common import one_line_errors, wish_options


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("squeeze-demo"),
    show_default=True,
    help="Folder for the files.",
)
@wish_options
@one_line_errors
def demo(out: Path, reduction: Optional[float], ratio: Optional[float]) -> None:
    """Run the whole job on a small built-in generator: convert, report, and a side-by-side picture."""
    from squeeze_patch.demo import run_demo

    result = run_demo(out, reduction=reduction, ratio=ratio)
    print_conversion(result.conversion)
    click.echo(
        f"images      {result.comparison.psnr:.1f} dB PSNR to the dense generator's on "
        f"{result.comparison.images} latents, before any training"
    )
    click.echo(f"picture     {result.picture}")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="-- train.py ...", nargs=-1, required=True, type=click.UNPROCESSED)
@wish_options
@click.option("--init-from", metavar="FILE", help="Start from this checkpoint's weights (dense or squeezed).")
@one_line_errors
def train(
    arguments: Tuple[str, ...], reduction: Optional[float], ratio: Optional[float], init_from: Optional[str]
) -> None:
    """Run the host's own train.py with squeezed generators; call it in the host's folder.

    The script's --resume takes squeezed snapshots, and dense ones, which are squeezed first. Like the script itself,
    this runs the code that is stored in such a file.

    \b
    Example:
      squeeze-patch train -- train.py --outdir=runs --data=faces.zip --gpus=1
    """
    from squeeze_patch.launch import train as run

    run(arguments, reduction=reduction, ratio=ratio, init_from=init_from, say=click.echo)
