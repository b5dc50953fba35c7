"""squeeze-patch convert"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Optional, Union

import click

from squeeze_patch.checkpoints.addresses import is_url
from squeeze_patch.checkpoints.convert import Conversion, convert_file
from squeeze_patch.checkpoints.fused_files import FusedFile, fuse_file, holds_squeezed
from squeeze_patch.checkpoints.generators import plan_in_file
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.checkpoints.safe_tensors import FORMATS
from squeeze_patch.checkpoints.targets import check_target, refuse_relative
from squeeze_patch.checkpoints.transfer import Transfer, transfer
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.cli.options import file_options, init_option, labels_option, quiet_option, request_options
from squeeze_patch.cli.output import (
    as_named,
    check_outputs,
    progress_bar,
    warn_of_growth,
    warn_of_little,
)
from squeeze_patch.cli.sources import Sources
from squeeze_patch.conditioning import are_given
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.registry import DEFAULT_INIT, INITS
from squeeze_patch.planning.cost import amount, table
from squeeze_patch.planning.plans import describe_reduction
from squeeze_patch.planning.request import Request


@click.command(cls=Command)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@request_options()
@init_option
@labels_option
@click.option(
    "--to",
    metavar="FAMILY",
    help="Squeeze nothing: write the generators, dense or squeezed, as a checkpoint of another family of hosts that "
    "has the same network (nvidia, rosinality).",
)
@click.option(
    "--like",
    metavar="FILE",
    help="Squeeze as a squeezed relative was, and keep the same channels, so that weights of the two files can be "
    "averaged and swapped.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="Write the generator alone (the moving average), as a state dict in a file of this kind, for "
    "squeeze_patch.load.  [default: the whole file, as it came]",
)
@click.option(
    "--fuse",
    "fused",
    is_flag=True,
    help="Let the squeezed generators sample faster where the file is loaded; also of a SRC that is squeezed already.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Do not run each generator first, with equal blocks in the places of its own, to see that its images stay the "
    "same.",
)
@file_options
@click.option("--force", is_flag=True, help="Overwrite DST.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@quiet_option
def convert(
    source: str,
    target: Path,
    request: Request,
    plan_file: Optional[Path],
    init: str,
    to: Optional[str],
    like: Optional[str],
    form: Optional[str],
    fused: bool,
    no_verify: bool,
    trust: bool,
    host: Optional[str],
    sources: Sources,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Squeeze every generator in a file; the untouched host loads it.

    SRC is a path or a URL, DST the file to write.

    \b
    Examples:
      squeeze-patch convert ffhq.pkl ffhq-squeezed.pkl
      squeeze-patch convert cats.pkl cats-squeezed.pkl --like ffhq-squeezed.pkl
      squeeze-patch convert ffhq.pkl half.pkl --ratio 2
      squeeze-patch convert 550000.pt squeezed.pt
      squeeze-patch convert net_g_latest.pth squeezed.pth
      squeeze-patch convert ffhq.pkl ffhq.pt --to rosinality
    """
    check_target(Path(os.devnull if is_url(source) else source), target, force)  # before a long download
    if plan_file is not None:
        check_outputs(str(target), sources=[plan_file])
    if like is not None and not request.is_default:
        raise PlanError(
            "--like says everything; give it without --ratio, --reduction, --budget, --method, --allocate and --plan"
        )
    path, *relative = sources.local(source, like, quiet=quiet)
    if relative:
        refuse_relative(relative[0], target)
        request = like_file(relative[0], trust, host)
    if to is not None:
        if not request.is_default or init != DEFAULT_INIT or form is not None or fused:
            raise PlanError(
                "--to carries generators over as they are; squeeze and fuse them in a step of its own, before or after"
            )
        if no_verify:
            raise PlanError("--to always compares the images of what it writes; leave --no-verify out")
        carried = transfer(path, target, to, trust=trust, host=host, force=force)
        if as_json:
            click.echo(json.dumps(figures_of(carried), indent=2))
        elif not quiet:
            print_transfer(carried)
        return
    how: Dict[str, Any] = {"trust": trust, "host": host, "verify": not no_verify, "force": force}
    only_fuse = fused and request.is_default and form is None and init == DEFAULT_INIT
    if only_fuse and holds_squeezed(path, trust=trust, host=host):
        with progress_bar("fusing", quiet=quiet) as step:
            only_fused = fuse_file(path, target, progress=step, **how)
        if as_json:
            click.echo(json.dumps(figures_of(only_fused), indent=2))
        elif not quiet:
            say(f"fused       {', '.join(name or 'the generator' for name in only_fused.generators)}")
            say(f"written     {only_fused.target}{as_named(only_fused.target)}")
        return
    with progress_bar(quiet=quiet, announced=True) as step:
        done = convert_file(path, target, request, init, form=form, fuse=fused, progress=step, **how)
    warn_of_growth(done.plan)
    warn_of_little(done.plan, request.ratio)
    if as_json:
        click.echo(json.dumps(figures_of(done), indent=2))
    elif not quiet:
        print_conversion(done)


def like_file(path: Path, trust: bool, host: Optional[str]) -> Request:
    """The request that names a squeezed relative."""
    with host_path(host):
        return Request(like=plan_in_file(path, trust=trust))


def say(line: str) -> None:
    """A line in which words of a file may stand."""
    click.echo(printable(line))


def print_transfer(done: Transfer) -> None:
    say(f"carried over {', '.join(name or 'the generator' for name in done.generators)}: {done.state}")
    say(f"families     {done.origin} -> {done.family}")
    if done.mean_style:
        say("mean style   computed, as the source stores none (w_avg, for truncation)")
    if done.left:
        say(f"left behind  {', '.join(done.left)}")
    if done.constructor_hint:
        say(f"load it into {done.constructor_hint}")
    say(f"written      {done.target}")


def figures_of(done: Union[Conversion, FusedFile, Transfer]) -> Dict[str, Any]:
    """Plain numbers, strings, lists and dicts."""
    return {**asdict(done), "source": str(done.source), "target": str(done.target)}


def print_conversion(done: Conversion) -> None:
    cost = done.cost
    click.echo(table(cost))
    say(
        f"parameters  {cost.parameters_before:,} -> {cost.parameters_after:,} "
        f"({describe_reduction(1 - cost.parameters_after / cost.parameters_before)}), per generator"
    )
    say(
        f"multiply-adds {amount(cost.multiply_adds_before)} -> {amount(cost.multiply_adds_after)} "
        f"({describe_reduction(1 - cost.multiply_adds_after / cost.multiply_adds_before)})"
    )
    if done.timing is not None:
        say(f"time        {done.timing}")
    say(f"file size   {done.bytes_before / 1e6:.1f} MB -> {done.bytes_after / 1e6:.1f} MB")
    names = ", ".join(name or "the generator" for name in done.generators)
    same = ", with the same channels" if done.shared_channels and len(done.generators) > 1 else ""
    narrow = not done.plan.may_be_by("squeeze")
    say(f"{'narrowed' if narrow else 'squeezed'}    {names}{same}")
    if narrow:
        say("            between blocks there are fewer channels now: what reads those beside the blocks cannot go on")
    for name, other in done.aliases.items():
        say(f"            {name} is the same object as {other}, and stays so")
    for line in done.optimisers:
        say(f"optimiser   {line}")
    say(f"start       {INITS[done.init].words}")
    if done.labels:
        say(f"labels      {done.labels}{'' if are_given() else ' (others: --labels FILE)'}")
    if done.plan.fingerprint:
        say(f"channels    {done.plan.fingerprint} (files with the same can be averaged and swapped; see --like)")
    if done.left:
        say(f"left out    {', '.join(done.left)}")
    if done.carried:
        say(f"unchanged   {', '.join(done.carried)}")
    say(f"written     {done.target}{as_named(done.target, '; for others: --format')}")
