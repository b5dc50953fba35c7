"""squeeze-patch recover"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any, Callable, Optional

import click

from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import file_options, labels_option, quiet_option, request_options
from squeeze_patch.cli.output import as_named, check_outputs, progress_bar
from squeeze_patch.cli.sources import Sources
from squeeze_patch.cli.termination import Terminated
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.planning.request import Request
from squeeze_patch.recovery.paths import state_path
from squeeze_patch.recovery.progress_line import Line
from squeeze_patch.recovery.recover_file import Source, recover_file
from squeeze_patch.recovery.session import Budget
from squeeze_patch.recovery.settings import Settings


def recovery_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a recovery beside those that other commands have too."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in reversed(
        [
            click.option("--out", "target", type=path, required=True, help="File to write."),
            click.option("--steps", default=Settings.steps, show_default=True, help="Length of the training."),
            click.option("--minutes", type=float, help="Stop after this time, earlier runs included; more goes on."),
            click.option("--patience", type=int, help="Stop after so many evaluations without gain."),
            click.option("--batch", default=Settings.batch, show_default=True, help="Images a step, all processes."),
            click.option(
                "--at-a-time",
                type=click.IntRange(min=1),
                help="Images that each process runs at a time, where memory is short; gradients of the batch add up.  "
                "[default: what fits 2 to 4 GB, at 256x256 four]",
            ),
            click.option(
                "--lr",
                "learning_rate",
                default=Settings.learning_rate,
                show_default=True,
                help="Highest learning rate.",
            ),
            click.option("--seed", default=Settings.seed, show_default=True, help="Of the latents."),
            click.option(
                "--feature-weight",
                default=Settings.feature_weight,
                show_default=True,
                help="Weight of the blocks' features at the start, beside 1 for the images; it fades to 0.",
            ),
            click.option(
                "--lpips", "lpips_weight", default=Settings.lpips_weight, show_default=True, help="Weight of LPIPS."
            ),
            click.option(
                "--every",
                "evaluate_every",
                default=Settings.evaluate_every,
                show_default=True,
                help="Steps to an evaluation.",
            ),
            click.option("--log", type=path, help="File of the evaluations.  [default: OUT with .jsonl]"),
            click.option("--device", help="cpu, cuda, ...  [default: a GPU where there is one]"),
            click.option("--force", is_flag=True, help="Overwrite OUT."),
        ]
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("dense", metavar="DENSE")
@click.argument("squeezed", metavar="[SQUEEZED]", required=False)
@recovery_options
@request_options()
@labels_option
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@quiet_option
def recover(
    dense: str,
    squeezed: Optional[str],
    target: Path,
    request: Request,
    plan_file: Optional[Path],
    minutes: Optional[float],
    patience: Optional[int],
    at_a_time: Optional[int],
    log: Optional[Path],
    device: Optional[str],
    force: bool,
    trust: bool,
    host: Optional[str],
    sources: Sources,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a squeezed generator to make its dense one's images again.

    SQUEEZED learns the images of DENSE, without a data set, and is written to OUT. Without SQUEEZED, DENSE is squeezed
    first, as --ratio, --reduction, --budget, --allocate and --plan say. A run that was broken off goes on when the same
    command is given again.

    \b
    Examples:
      squeeze-patch recover dense.pkl squeezed.pkl --out recovered.pkl
      squeeze-patch recover 550000.pt squeezed.pt --out recovered.pt
      torchrun --nproc_per_node=2 -m squeeze_patch recover dense.pkl squeezed.pkl --out recovered.pkl
    """
    if device is not None:
        device_named(device)
    chosen = Settings(**settings)
    if plan_file is not None:
        check_outputs(*(str(path) for path in (target, log) if path), sources=[plan_file])
    first = os.environ.get("RANK", "0") == "0"  # torchrun: one process speaks
    teacher, *student = sources.local(dense, squeezed or None, quiet=quiet)
    try:
        result = recover_file(
            teacher,
            student[0] if student else None,
            target,
            chosen,
            budget=Budget(minutes, patience, at_a_time),
            source=Source(trust, host),
            request=request,
            force=force,
            log=log,
            device=device,
            progress=None if quiet else Line(),
            squeezing=functools.partial(progress_bar, quiet=quiet, announced=True),
            say=lambda line: None if quiet else click.echo(f"time        {line}", err=as_json),
        )
    except (KeyboardInterrupt, Terminated):
        if first and state_path(target).exists():
            click.echo(f"\ninterrupted {state_path(target)} is kept; the same command goes on", err=True)
        raise
    if not first:
        return
    if as_json:
        click.echo(json.dumps({**result.to_dict(), "target": str(target)}, indent=2))
    if quiet or as_json:
        return
    click.echo(str(result))
    click.echo(f"written     {target}{as_named(target)}")
    if result.stopped == "minutes":
        click.echo(f"unfinished  {state_path(target)} is kept; the same command with more --minutes goes on")
