"""python -m examples.reproduce_paper [COMMAND]"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Dict, List, Optional

import click

from examples.reproduce_paper import results
from examples.reproduce_paper.commands import command, environment, folder, smoke_data, smoke_gpus
from examples.reproduce_paper.plans import CHOICES, EXPERIMENTS, VARIANTS

OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="paper-runs",
    show_default=True,
    help="Of all runs.",
)


@click.group()
def main() -> None:
    """The paper's experiment: print or run its trainings, then make their table."""


@main.command("list")
def list_() -> None:
    """The trainings, and how their data sets are made."""
    for experiment in EXPERIMENTS.values():
        size = f"{experiment.resolution}x{experiment.resolution}"
        click.echo(f"{experiment.name:<16} {size:<8} {experiment.kimg:>7,} kimg  {experiment.host}")
        click.echo(f"{'':<16} {' '.join(experiment.options)}")
        click.echo(f"{'':<16} data: python {experiment.data}")


@main.command()
@click.argument("experiment", type=click.Choice(list(EXPERIMENTS)))
@click.option(
    "--host", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True, help="Its checkout."
)
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Data set, as its dataset_tool.py made it.")
@click.option(
    "--variant", type=click.Choice([*CHOICES]), default="both", show_default=True, help="both: dense and squeezed."
)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--gpus", type=click.IntRange(1), help="Default: what the configuration is meant for.")
@click.option("--smoke", is_flag=True, help="A trial: 1 kimg on noise of 8x8, no metrics.")
@click.option("--print", "only_print", is_flag=True, help="Print the commands and run nothing.")
@OUT
def run(
    experiment: str,
    host: Path,
    data: Optional[Path],
    variant: str,
    seeds: str,
    gpus: Optional[int],
    smoke: bool,
    only_print: bool,
    out: Path,
) -> None:
    """Train with the host's own train.py, in its own folder: every variant of a seed, then the next seed.

    A run that ended is not run again; one that was stopped begins anew, in a folder of its own, and that one counts.
    """
    if not (host / "train.py").is_file():
        raise click.UsageError(f"--host {host} has no train.py; give a checkout of {EXPERIMENTS[experiment].host}")
    chosen, out = EXPERIMENTS[experiment], out.resolve()
    if data is None and not smoke:
        raise click.UsageError(f"--data is missing: python {chosen.data}")
    source = data.resolve() if data and not smoke else smoke_data(out)
    processes = gpus or (smoke_gpus(chosen) if smoke else chosen.gpus)
    for seed in parsed(seeds):
        for each in CHOICES[variant]:
            wanted = command(chosen, each, seed, source, out, processes, smoke)
            train(wanted, host, folder(out, chosen, each, seed) / "ended", environment(smoke), only_print)


def parsed(seeds: str) -> List[int]:
    """The hosts' scripts take none below 0."""
    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise click.UsageError(f"--seeds {seeds}: whole numbers with commas between them")
    return [*dict.fromkeys(int(seed) for seed in seeds.split(","))]


def train(wanted: List[str], host: Path, ended: Path, variables: Dict[str, str], only_print: bool) -> None:
    """``ended``: a file that says which commands have run to their end here."""
    line = shlex.join(wanted)
    before = ended.read_text(encoding="utf-8").splitlines() if ended.is_file() else []
    if line in before:
        click.echo(f"{ended.parent} has ended")
        return
    click.echo(f"cd {shlex.quote(str(host))} && {line}")
    if only_print:
        return
    done = subprocess.run(wanted, cwd=host, env=variables, check=False)
    if done.returncode:
        raise click.ClickException(f"it ended with status {done.returncode}; what the host says stands above")
    if not ended.parent.is_dir():
        raise click.ClickException(f"it ended, and has made no {ended.parent}; what the host says stands above")
    ended.write_text("\n".join([*before, line]), encoding="utf-8")


@main.command()
@click.option(
    "--against", type=click.Choice([*VARIANTS]), default="dense", show_default=True, help="What others are divided by."
)
@OUT
def table(against: str, out: Path) -> None:
    """The metrics of all runs, the others beside dense: of each run the snapshot with the lowest FID."""
    lines, notes = results.table(out, against)
    if len(lines) == 1:
        nothing = f"no experiment in {out} has metrics of {against} and another variant for one seed"
        raise click.ClickException("\n".join([nothing, *notes]))
    click.echo("\n".join([*lines, *notes]))


@main.command()
@OUT
def cost(out: Path) -> None:
    """GPU hours of every training: from what has run a while in --out, else from the host's published figures."""
    click.echo("\n".join(results.cost(out)))


if __name__ == "__main__":
    main(prog_name="python -m examples.reproduce_paper")
