"""info, plan, convert: commands about checkpoint files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import click

from squeeze_patch.cli.common import (
    allocate_option,
    clean_termination,
    file_options,
    local,
    one_line_errors,
    progress_bar,
    wish_options,
)


@click.command()
@click.argument("file", metavar="FILE")
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def info(file: str, trust: bool, host: Optional[str], as_json: bool) -> None:
    """Say what networks FILE (a path or a URL) holds, and whether they are squeezed."""
    from squeeze_patch.checkpoints.convert import inspect

    found = inspect(local(file, trust), trust=trust, host=host)
    if as_json:
        rows = {
            name: {
                "class": entry.class_name,
                "parameters": entry.parameters,
                "state": entry.status.state if entry.status else None,
                "plan": entry.status.plan.to_dict() if entry.status and entry.status.plan else None,
            }
            for name, entry in found.items()
        }
        click.echo(json.dumps(rows, indent=2))
        return
    for name, entry in found.items():
        other = f"cannot be squeezed: {entry.reason}" if entry.reason else "no generator"
        what = entry.status or f"{other}: {entry.parameters:,} parameters"
        click.echo(f"{name or '(the file)'}: {entry.class_name}, {what}")
    if not found:
        click.echo("no networks in this file")


@click.command()
@click.argument("file", metavar="FILE")
@wish_options
@allocate_option
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print the Plan as JSON.")
@one_line_errors
def plan(
    file: str,
    reduction: Optional[float],
    ratio: Optional[float],
    allocate: str,
    trust: bool,
    host: Optional[str],
    as_json: bool,
) -> None:
    """Show what convert would do to the generator in FILE, and write nothing."""
    from squeeze_patch.adapters import reference_name
    from squeeze_patch.checkpoints.convert import dense_generators, host_path, read
    from squeeze_patch.planning.cost import report, table
    from squeeze_patch.planning.planner import describe_reduction
    from squeeze_patch.planning.planner import plan as make_plan

    path = local(file, trust)
    with host_path(host):
        found = dense_generators(path, read(path, trust=trust))
        G = found[reference_name(found)]
        result = make_plan(G, reduction=reduction, ratio=ratio, allocate=allocate)
    if as_json:
        click.echo(result.to_json())
        return
    click.echo(table(report(G, result)))
    click.echo(
        f"parameters {result.parameters_before:,} -> {result.parameters_after:,} "
        f"({describe_reduction(result.reduction)})"
    )


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@wish_options
@allocate_option
@click.option(
    "--init",
    type=click.Choice(["calibrated", "weights", "random"]),
    default="calibrated",
    show_default=True,
    help="Start from the trained weights, fitted block by block to what they make of random latents; from simpler "
    "statistics of them (seconds); or from random layers, to train from scratch.",
)
@click.option(
    "--to",
    metavar="FAMILY",
    help="Squeeze nothing: write the generators, dense or squeezed, as a checkpoint of another family of hosts that "
    "has the same network (nvidia, rosinality).",
)
@file_options
@click.option("--force", is_flag=True, help="Overwrite DST.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def convert(
    source: str,
    target: Path,
    reduction: Optional[float],
    ratio: Optional[float],
    allocate: str,
    init: str,
    to: Optional[str],
    trust: bool,
    host: Optional[str],
    force: bool,
    as_json: bool,
) -> None:
    """Squeeze every generator in SRC (a path or a URL) and write DST, which the untouched host loads.

    \b
    Examples:
      squeeze-patch convert ffhq.pkl ffhq-squeezed.pkl --host stylegan2-ada-pytorch --trust
      squeeze-patch convert ffhq.pkl half.pkl --ratio 2 --host stylegan2-ada-pytorch --trust
      squeeze-patch convert 550000.pt squeezed.pt
      squeeze-patch convert net_g_latest.pth squeezed.pth
      squeeze-patch convert ffhq.pkl ffhq.pt --to rosinality --host stylegan2-ada-pytorch --trust
    """
    from squeeze_patch.checkpoints.convert import check_target
    from squeeze_patch.checkpoints.convert import convert as convert_file
    from squeeze_patch.checkpoints.transfer import exchange
    from squeeze_patch.errors import PlanError

    check_target(Path(source), target, force)
    path = local(source, trust)
    if to is not None:
        if reduction is not None or ratio is not None or allocate != "uniform" or init != "calibrated":
            raise PlanError(
                "--to carries generators over as they are; squeeze them in a step of its own, before or after"
            )
        print_exchange(exchange(path, target, to, trust=trust, host=host, force=force), as_json)
        return
    with clean_termination(), progress_bar() as step:
        done = convert_file(
            path,
            target,
            trust=trust,
            host=host,
            reduction=reduction,
            ratio=ratio,
            allocate=allocate,
            init=init,
            force=force,
            progress=step,
        )
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({**asdict(done), "source": str(path), "target": str(target)}, indent=2))
        return
    print_conversion(done)


def print_exchange(done: Any, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({**asdict(done), "source": str(done.source), "target": str(done.target)}, indent=2))
        return
    click.echo(f"carried over {', '.join(name or 'the generator' for name in done.generators)}: {done.state}")
    click.echo(f"families     {done.origin} -> {done.family}")
    if done.mean_style:
        click.echo("mean style   computed, as the source stores none (w_avg, for truncation)")
    if done.left:
        click.echo(f"left behind  {', '.join(done.left)}")
    if done.built_by:
        click.echo(f"load it into {done.built_by}")
    click.echo(f"written      {done.target}")


STARTS = {
    "calibrated": "the trained weights, calibrated",
    "weights": "the trained weights",
    "random": "random layers, to be trained",
}


def print_conversion(done: Any) -> None:
    from squeeze_patch.planning.cost import amount, table
    from squeeze_patch.planning.planner import describe_reduction

    cost = done.cost
    click.echo(table(cost))
    click.echo(
        f"parameters  {cost.parameters_before:,} -> {cost.parameters_after:,} "
        f"({describe_reduction(1 - cost.parameters_after / cost.parameters_before)}), per generator"
    )
    click.echo(
        f"multiply-adds {amount(cost.multiply_adds_before)} -> {amount(cost.multiply_adds_after)} "
        f"({describe_reduction(1 - cost.multiply_adds_after / cost.multiply_adds_before)})"
    )
    click.echo(f"file size   {done.bytes_before / 1e6:.1f} MB -> {done.bytes_after / 1e6:.1f} MB")
    names = ", ".join(name or "the generator" for name in done.generators)
    same = ", with the same channels" if done.shared_channels and len(done.generators) > 1 else ""
    click.echo(f"squeezed    {names}{same}")
    for line in done.optimisers:
        click.echo(f"optimiser   {line}")
    click.echo(f"start       {STARTS[done.init]}")
    if done.carried:
        click.echo(f"unchanged   {', '.join(done.carried)}")
    click.echo(f"written     {done.target}")
