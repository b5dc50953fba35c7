"""squeeze-patch report"""

from __future__ import annotations

from typing import Optional

import click

from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.cli.errors import one_line_errors
from squeeze_patch.cli.options import file_options, measuring_options, request_options
from squeeze_patch.cli.output import check_outputs, emit, local, progress_bar
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.evaluation.latency import REPEATS
from squeeze_patch.evaluation.measure import measure, pair_for
from squeeze_patch.planning.request import Request


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--against", metavar="DENSE", help="The dense file of a squeezed FILE.  [default: FILE's constructor]")
@request_options()
@click.option("--batch", default=1, show_default=True, help="Images a call.")
@click.option("--repeats", default=REPEATS, show_default=True, help="Timed pairs of calls.")
@measuring_options
@file_options
@one_line_errors
def report(
    file: str,
    against: Optional[str],
    request: Request,
    batch: int,
    repeats: int,
    key: Optional[str],
    device: str,
    json_target: Optional[str],
    trust: bool,
    host: Optional[str],
) -> None:
    """Measure the generator in FILE dense and squeezed: multiply-adds, parameters, latency, memory.

    A dense FILE is measured against what squeezing would make of it, a squeezed one against its dense counterpart.

    \b
    Examples:
      squeeze-patch report dense.pkl --ratio 2 --batch 8 --host path/to/stylegan2-ada-pytorch --trust
      squeeze-patch report squeezed.pkl --against dense.pkl --host path/to/stylegan2-ada-pytorch --trust
    """
    where = device_named(device)
    files = [local(source, trust) for source in (file, against) if source is not None]
    check_outputs(json_target, sources=files)
    with host_path(host):
        G, *other = (load_generator(path, key, trust=trust).to(where) for path in files)
        dense, squeezed = pair_for(G, request, *other)
        with progress_bar("measuring") as step:
            result = measure(dense, squeezed, batch, repeats, progress=step)
    emit(str(result), {"file": file, "against": against, "key": key, **result.to_dict()}, json_target)
