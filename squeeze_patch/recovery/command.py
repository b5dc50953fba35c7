"""``squeeze-patch recover``: its options and its arguments; what it does is in `recovery.checkpoint`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Optional

import click

from squeeze_patch.recovery.settings import Settings


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a recovery beside those that other commands have too."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in reversed(
        [
            click.option("--out", "target", type=path, required=True, help="File to write."),
            click.option("--steps", default=Settings.steps, show_default=True, help="Length of the training."),
            click.option("--minutes", type=float, help="Stop after this time, earlier runs included; more goes on."),
            click.option("--patience", type=int, help="Stop after so many evaluations without gain."),
            click.option("--batch", default=Settings.batch, show_default=True, help="Images a step, all processes."),
            click.option("--lr", default=Settings.learning_rate, show_default=True, help="Highest learning rate."),
            click.option("--seed", default=Settings.seed, show_default=True, help="Of the latents."),
            click.option(
                "--feature-weight",
                default=Settings.feature_weight,
                show_default=True,
                help="Weight of the blocks' features at the start, beside 1 for the images; it fades to 0.",
            ),
            click.option("--lpips", default=Settings.lpips_weight, show_default=True, help="Weight of LPIPS."),
            click.option("--every", default=Settings.evaluate_every, show_default=True, help="Steps to an evaluation."),
            click.option("--log", type=path, help="File of the evaluations.  [default: OUT with .jsonl]"),
            click.option("--device", help="cpu, cuda, ...  [default: a GPU where there is one]"),
            click.option("--force", is_flag=True, help="Overwrite OUT."),
        ]
    ):
        command = option(command)
    return command


def recover(
    dense: Path,
    squeezed: Optional[Path],
    target: Path,
    *,
    steps: int,
    minutes: Optional[float],
    patience: Optional[int],
    batch: int,
    lr: float,
    seed: int,
    feature_weight: float,
    lpips: float,
    every: int,
    trust: bool,
    host: Optional[str],
    **others: Any,
) -> None:
    """Run the command and print what it did; ``others`` are arguments of `recover_file`."""
    from squeeze_patch.checkpoints.generators import device_named
    from squeeze_patch.recovery.paths import state_path
    from squeeze_patch.recovery.progress_line import Line
    from squeeze_patch.recovery.recover_file import Source, recover_file
    from squeeze_patch.recovery.session import Budget

    settings = Settings(
        steps=steps,
        batch=batch,
        learning_rate=lr,
        seed=seed,
        feature_weight=feature_weight,
        lpips_weight=lpips,
        evaluate_every=every,
    )
    if others["device"] is not None:
        device_named(others["device"])
    first = os.environ.get("RANK", "0") == "0"  # torchrun: one process speaks
    try:
        result = recover_file(
            dense,
            squeezed,
            target,
            settings,
            budget=Budget(minutes, patience),
            source=Source(trust, host),
            progress=Line(),
            **others,
        )
    except KeyboardInterrupt:
        if first and state_path(target).exists():
            click.echo(f"\ninterrupted {state_path(target)} is kept; the same command goes on", err=True)
        raise
    if not first:
        return
    click.echo(str(result))
    click.echo(f"written     {target}")
    if result.stopped == "minutes":
        click.echo(f"unfinished  {state_path(target)} is kept; the same command with more --minutes goes on")
