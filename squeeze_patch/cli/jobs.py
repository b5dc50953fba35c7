"""demo, train, run and recover: commands that run a whole job."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Tuple

import click

from squeeze_patch.cli.checkpoints import print_conversion
from squeeze_patch.cli.common import (
    allocate_option,
    clean_termination,
    file_options,
    local,
    one_line_errors,
    progress_bar,
    wish_options,
)
from squeeze_patch.recovery.command import options as recovery_options

DEMO_FOLDER = Path("squeeze-demo")


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_FOLDER,
    show_default=True,
    help="Folder for the files.",
)
@click.option("--force", is_flag=True, help="Overwrite files in OUT; in the default folder they always are.")
@wish_options
@allocate_option
@one_line_errors
def demo(out: Path, force: bool, reduction: Optional[float], ratio: Optional[float], allocate: str) -> None:
    """Run the whole job on a small built-in generator: convert, report, and a side-by-side picture."""
    from squeeze_patch.demo import run_demo

    result = run_demo(out, force or out == DEMO_FOLDER, reduction=reduction, ratio=ratio, allocate=allocate)
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


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="-- script.py ...", nargs=-1, required=True, type=click.UNPROCESSED)
@wish_options
@one_line_errors
def run(arguments: Tuple[str, ...], reduction: Optional[float], ratio: Optional[float]) -> None:
    """Run a script of a host whose files hold state dicts (rosinality's family), with squeezed generators.

    They are squeezed as the squeezed file among the script's arguments says. Without such a file, to train from
    scratch, --ratio or --reduction say how.

    \b
    Example:
      squeeze-patch run -- generate.py --ckpt squeezed.pt --size 256
    """
    from squeeze_patch.run import run as run_script

    run_script(arguments, reduction=reduction, ratio=ratio, say=lambda line: click.echo(line, err=True))


@click.command()
@click.argument("dense", metavar="DENSE")
@click.argument("squeezed", metavar="[SQUEEZED]", required=False)
@recovery_options
@wish_options
@allocate_option
@file_options
@one_line_errors
def recover(dense: str, squeezed: Optional[str], trust: bool, **arguments: Any) -> None:
    """Train SQUEEZED to make the images of DENSE again, without a data set, and write it to OUT.

    Without SQUEEZED, DENSE is squeezed first, as --ratio, --reduction and --allocate say. A run that was broken off
    goes on when the same command is given again.

    \b
    Examples:
      squeeze-patch recover dense.pkl squeezed.pkl --out recovered.pkl --host stylegan2-ada-pytorch --trust
      squeeze-patch recover 550000.pt squeezed.pt --out recovered.pt
      torchrun --nproc_per_node=2 -m squeeze_patch recover dense.pkl squeezed.pkl --out recovered.pkl --trust
    """
    from squeeze_patch.recovery.command import recover as run

    files = local(dense, trust), local(squeezed, trust) if squeezed else None
    with clean_termination():
        run(*files, trust=trust, squeezing=progress_bar, **arguments)
