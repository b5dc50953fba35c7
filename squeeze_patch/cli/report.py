"""squeeze-patch report"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import click

from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.addresses import redacted
from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.cli.errors import Command
from squeeze_patch.cli.options import file_options, labels_option, measuring_options, quiet_option, request_options
from squeeze_patch.cli.output import check_outputs, check_replaceable, emit, progress_bar, timed_plan
from squeeze_patch.cli.sources import Sources
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.evaluation.latency import REPEATS
from squeeze_patch.evaluation.measure import check_counts, measure, pair_for
from squeeze_patch.planning.request import Request


@click.command(cls=Command)
@click.argument("file", metavar="FILE")
@click.option("--against", metavar="DENSE", help="The dense file of a squeezed FILE.  [default: FILE's constructor]")
@request_options()
@click.option("--batch", default=1, show_default=True, help="Images a call.")
@click.option("--repeats", default=REPEATS, show_default=True, help="Timed rounds of calls.")
@click.option("--fuse", is_flag=True, help="Measure the squeezed generator fused, too.")
@measuring_options
@labels_option
@file_options
@quiet_option
def report(
    file: str,
    against: Optional[str],
    request: Request,
    plan_file: Optional[Path],
    batch: int,
    repeats: int,
    fuse: bool,
    key: Optional[str],
    device: str,
    json_target: Optional[str],
    trust: bool,
    host: Optional[str],
    sources: Sources,
    quiet: bool,
) -> None:
    """Measure dense against squeezed: cost, latency, memory, blocks.

    A dense FILE is measured against what squeezing would make of it, a squeezed one against its dense counterpart.

    \b
    Examples:
      squeeze-patch report dense.pkl --ratio 2 --batch 8
      squeeze-patch report squeezed.pkl --against dense.pkl
      squeeze-patch report squeezed.pkl --fuse
    """
    check_counts(batch, repeats)  # before what takes minutes
    where = device_named(device)
    files = sources.local(file, against, quiet=quiet)
    check_outputs(json_target, sources=[*files, *filter(None, [plan_file])])
    check_replaceable(json_target)
    with host_path(host):
        G, *other = (load_generator(path, key, trust=trust).to(where) for path in files)
        timing = None
        if request.milliseconds is not None and not other:
            planned, timing = timed_plan(locate(G), request, where, quiet=quiet)
            request = Request(plan=planned)
        with progress_bar("planning", quiet=quiet, announced=True) as step:
            dense, squeezed = pair_for(G, request, other[0] if other else None, step)
        with progress_bar("measuring", quiet=quiet) as step:
            result = measure(dense, squeezed, batch, repeats, step, fuse=fuse)
    names = {"file": redacted(file), "against": None if against is None else redacted(against)}
    text = str(result) if timing is None else f"{result}\nbudget       {timing}"
    budget = {} if timing is None else {"budget": timing.to_dict()}
    emit(text, {**names, "key": key, **budget, **result.to_dict()}, json_target, quiet)
