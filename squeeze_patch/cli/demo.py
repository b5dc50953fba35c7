"""squeeze-patch demo"""

from __future__ import annotations

import json
from pathlib import Path

import click

from squeeze_patch.cli.convert import figures_of, print_conversion
from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import quiet_option, request_options
from squeeze_patch.demo import run_demo
from squeeze_patch.planning.request import Request

DEMO_FOLDER = Path("squeeze-demo")


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_FOLDER,
    show_default=True,
    help="Folder for the files.",
)
@click.option("--force", is_flag=True, help="Overwrite files in OUT; in the default folder they always are.")
@request_options(plan_file=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@quiet_option
def demo(out: Path, force: bool, request: Request, as_json: bool, quiet: bool) -> None:
    """Try it without any host: convert, compare, draw a picture.

    A small built-in generator of handwritten digits is squeezed; its files and samples.png are in OUT.
    """
    result = run_demo(out, request, force or out == DEMO_FOLDER)
    if as_json:
        figures = {"conversion": figures_of(result.conversion), "comparison": result.comparison.to_dict()}
        click.echo(json.dumps({**figures, "picture": str(result.picture)}, indent=2))
    if quiet or as_json:
        return
    print_conversion(result.conversion)
    click.echo(
        f"images      {result.comparison.psnr:.1f} dB PSNR to the dense generator's on "
        f"{result.comparison.images} latents, before any training"
    )
    click.echo(f"picture     {result.picture}")
