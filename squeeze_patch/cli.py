"""The command line: options, progress and tables. What the commands do is in the modules that they call."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Tuple

import click

from squeeze_patch import __version__
from squeeze_patch.errors import SqueezeError
from squeeze_patch.recovery.command import options as recovery_options

EXIT_ERROR = 2


def _one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every error is one line on stderr and exit code 2; --debug shows the traceback."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except Exception as error:
            if debug:
                raise
            lines = str(error).strip().splitlines()
            if type(error).__name__ == "ProcessRaisedException":  # its text is the traceback of a spawned process
                lines = lines[-1:]
            text = " ".join(" ".join(lines).split()) or "no further information"
            unexpected = not isinstance(error, (SqueezeError, OSError))
            name = f"{type(error).__name__}: " if unexpected else ""
            hint = " (--debug shows where)" if unexpected else ""
            click.echo(f"Error: {name}{text}{hint}", err=True)
            sys.exit(EXIT_ERROR)

    return wrapped


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--trust", is_flag=True, help="Load the file although that runs code stored in it."),
        click.option("--host", metavar="DIR", help="Folder of the host's checkout (the one with torch_utils)."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


def _wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--ratio", type=float, help="Squeeze every block's c channels to c / RATIO instead."),
        click.option("--reduction", type=float, help="Share of the parameters to save.  [default: 0.121]"),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="squeeze-patch")
def main() -> None:
    """Image squeeze connections for existing StyleGAN2 generators: about 12 % fewer parameters.

    \b
    Try it without any host:
      squeeze-patch demo
    Convert a checkpoint, which the untouched host then loads:
      squeeze-patch convert dense.pkl squeezed.pkl --host path/to/stylegan2-ada-pytorch --trust
    """


@main.command()
@click.argument("file", metavar="FILE")
@_file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_one_line_errors
def info(file: str, trust: bool, host: Optional[str], as_json: bool) -> None:
    """Say what networks FILE (a path or a URL) holds, and whether they are squeezed."""
    from squeeze_patch.checkpoint import inspect

    found = inspect(_local(file, trust), trust=trust, host=host)
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


@main.command()
@click.argument("file", metavar="FILE")
@_wish_options
@_file_options
@click.option("--json", "as_json", is_flag=True, help="Print the Plan as JSON.")
@_one_line_errors
def plan(
    file: str, reduction: Optional[float], ratio: Optional[float], trust: bool, host: Optional[str], as_json: bool
) -> None:
    """Show what convert would do to the generator in FILE, and write nothing."""
    from squeeze_patch.checkpoint import dense_generators, host_path, read, reference_name
    from squeeze_patch.planner import describe_reduction
    from squeeze_patch.planner import plan as make_plan
    from squeeze_patch.report import report, table

    path = _local(file, trust)
    with host_path(host):
        found = dense_generators(path, read(path, trust=trust))
    G = found[reference_name(found)]
    result = make_plan(G, reduction=reduction, ratio=ratio)
    if as_json:
        click.echo(result.to_json())
        return
    click.echo(table(report(G, result)))
    click.echo(
        f"parameters {result.parameters_before:,} -> {result.parameters_after:,} "
        f"({describe_reduction(result.reduction)})"
    )


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@_wish_options
@click.option(
    "--init",
    type=click.Choice(["weights", "random"]),
    default="weights",
    show_default=True,
    help="Start from the trained weights, or from random layers to train from scratch.",
)
@_file_options
@click.option("--force", is_flag=True, help="Overwrite DST.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_one_line_errors
def convert(
    source: str,
    target: Path,
    reduction: Optional[float],
    ratio: Optional[float],
    init: str,
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
    """
    from squeeze_patch.checkpoint import check_target
    from squeeze_patch.checkpoint import convert as convert_file

    check_target(Path(source), target, force)
    path = _local(source, trust)
    with _clean_termination(), _progress() as step:
        done = convert_file(
            path,
            target,
            trust=trust,
            host=host,
            reduction=reduction,
            ratio=ratio,
            init=init,
            force=force,
            progress=step,
        )
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({**asdict(done), "source": str(path), "target": str(target)}, indent=2))
        return
    _print_conversion(done)


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("squeeze-demo"),
    show_default=True,
    help="Folder for the files.",
)
@_wish_options
@_one_line_errors
def demo(out: Path, reduction: Optional[float], ratio: Optional[float]) -> None:
    """Run the whole job on a small built-in generator: convert, report, and a side-by-side picture."""
    from squeeze_patch.demo import run_demo

    result = run_demo(out, reduction=reduction, ratio=ratio)
    _print_conversion(result.conversion)
    click.echo(
        f"images      {result.fidelity.psnr:.1f} dB PSNR to the dense generator's on {result.fidelity.images} latents, "
        "before any training"
    )
    click.echo(f"picture     {result.picture}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="-- train.py ...", nargs=-1, required=True, type=click.UNPROCESSED)
@_wish_options
@click.option("--init-from", metavar="FILE", help="Start from this checkpoint's weights (dense or squeezed).")
@_one_line_errors
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


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", metavar="-- script.py ...", nargs=-1, required=True, type=click.UNPROCESSED)
@_wish_options
@_one_line_errors
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


@main.command()
@click.argument("dense", metavar="DENSE")
@click.argument("squeezed", metavar="[SQUEEZED]", required=False)
@recovery_options
@_wish_options
@_file_options
@_one_line_errors
def recover(dense: str, squeezed: Optional[str], trust: bool, **arguments: Any) -> None:
    """Train SQUEEZED to make the images of DENSE again, without a data set, and write it to OUT.

    Without SQUEEZED, DENSE is squeezed first. A run that was broken off goes on when the same command is given again.

    \b
    Examples:
      squeeze-patch recover dense.pkl squeezed.pkl --out recovered.pkl --host stylegan2-ada-pytorch --trust
      torchrun --nproc_per_node=2 -m squeeze_patch recover dense.pkl squeezed.pkl --out recovered.pkl --trust
    """
    from squeeze_patch.recovery.command import recover as run

    with _clean_termination():
        run(_local(dense, trust), _local(squeezed, trust) if squeezed else None, trust=trust, **arguments)


def _print_conversion(done: Any) -> None:
    from squeeze_patch.planner import describe_reduction
    from squeeze_patch.report import amount, table

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
    if done.carried:
        click.echo(f"unchanged   {', '.join(done.carried)}")
    click.echo(f"written     {done.target}")


def _local(source: str, trust: bool) -> Path:
    """The file behind a path or a URL; a URL is downloaded once, and only if its file may be loaded."""
    from squeeze_patch.checkpoint import check_trust
    from squeeze_patch.files import fetch, is_url

    if not is_url(source):
        return Path(source)
    check_trust(source, trust)
    with _progress(f"downloading {source}", unit=1_000_000) as step:
        return fetch(source, lambda done, total: step("", done, total))


@contextlib.contextmanager
def _clean_termination() -> Iterator[None]:
    """Let a scheduler's SIGTERM clean up behind itself like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_ERROR))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress(label: str = "squeezing", unit: int = 1) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with remaining time on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    with contextlib.ExitStack() as stack:
        bar: Any = None

        def step(what: str, done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                length = max(total // unit, 1)
                bar = stack.enter_context(
                    click.progressbar(length=length, label=label, show_eta=True, show_pos=True, file=sys.stderr)
                )
            bar.update(done // unit - bar.pos)

        yield step


if __name__ == "__main__":
    main()
