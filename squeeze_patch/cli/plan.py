"""squeeze-patch plan"""

from __future__ import annotations

from typing import Optional

import click

from squeeze_patch.adapters import reference_name
from squeeze_patch.checkpoints.convert import is_bare
from squeeze_patch.checkpoints.generators import dense_generators
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import file_options, init_option, labels_option, request_options
from squeeze_patch.cli.output import timed_plan, warn_of_growth, warn_of_little
from squeeze_patch.cli.sources import Sources
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.planning.cost import report, table
from squeeze_patch.planning.plans import describe_reduction
from squeeze_patch.planning.request import Request


@click.command(cls=Command)
@click.argument("file", metavar="FILE")
@request_options(plan_file=False)
@init_option
@labels_option
@file_options
@click.option("--device", default="cpu", show_default=True, help="Where --budget 12ms is measured: cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the Plan as JSON, for --plan of other commands.")
def plan(
    file: str,
    request: Request,
    trust: bool,
    host: Optional[str],
    sources: Sources,
    init: str,
    device: str,
    as_json: bool,
) -> None:
    """Show what convert would do to a file; write nothing.

    \b
    Examples:
      squeeze-patch plan 550000.pt --reduction 0.25
      squeeze-patch plan 550000.pt --allocate spectral --json > plan.json
      squeeze-patch plan 550000.pt --budget 40ms
    """
    where = device_named(device)
    (path,) = sources.local(file)
    with host_path(host):
        data = read(path, trust=trust)
        found = dense_generators(path, data)
        G = found[reference_name(found)]
        result, timing = timed_plan(G, request, where, init, has_inner=not is_bare(data))
    warn_of_growth(result)
    warn_of_little(result, request.ratio)
    if timing is not None:
        click.echo(f"time {timing}", err=as_json)
    if as_json:
        click.echo(result.to_json())
        return
    click.echo(table(report(G, result)))
    click.echo(
        f"parameters {result.parameters_before:,} -> {result.parameters_after:,} "
        f"({describe_reduction(result.reduction)})"
    )
