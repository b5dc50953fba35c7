"""What the commands share: options, one-line errors, downloads, progress bars."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

import click

from squeeze_patch.errors import MeasurementError, SqueezeError

EXIT_ERROR = 2


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
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


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--trust", is_flag=True, help="Load the file although that runs code stored in it."),
        click.option("--host", metavar="DIR", help="Folder of the host's checkout (the one with torch_utils)."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--ratio", type=float, help="Squeeze every block's c channels to c / RATIO instead."),
        click.option("--reduction", type=float, help="Share of the parameters to save.  [default: 0.121]"),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


def allocate_option(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "One ratio for all blocks, or the same budget spent where the images need it."
    return click.option(
        "--allocate", type=click.Choice(["uniform", "spectral"]), default="uniform", show_default=True, help=text
    )(command)


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Of commands that run generators and print a table."""
    options = [
        click.option(
            "--json",
            "json_target",
            metavar="[FILE]",
            is_flag=False,
            flag_value="-",
            help="Write the figures as JSON; without FILE or with -, to stdout in place of the table.",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto = cuda if any."),
        click.option(
            "--key", help="Which network of a checkpoint.  [default: the moving average, or the only generator]"
        ),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), options, command)


def emit(text: str, figures: Dict[str, Any], json_target: Optional[str]) -> None:
    """Print the table, or the figures to stdout as JSON, or both where the JSON goes to a file."""
    if json_target != "-":
        click.echo(text)
    if json_target == "-":
        click.echo(json.dumps(figures, indent=2))
    elif json_target is not None:
        from squeeze_patch.checkpoints.io import atomic_write

        with atomic_write(Path(json_target)) as stream:
            stream.write((json.dumps(figures, indent=2) + "\n").encode())
        click.echo(f"{'figures':<24} {json_target}")


def check_outputs(*targets: Optional[str], sources: Sequence[Path]) -> None:
    """Before long work: raise `MeasurementError` where a file to be written has no folder that can be written to, is a
    folder, or is one of the files that are read."""
    for target in (Path(name) for name in targets if name not in (None, "-")):
        if target.is_dir() or not target.parent.is_dir():
            raise MeasurementError(f"{target}: this has to be a file in a folder that exists")
        if not os.access(target.parent, os.W_OK):
            raise MeasurementError(f"{target}: nothing can be written into the folder {target.parent}")
        if target.exists() and any(source.exists() and target.samefile(source) for source in sources):
            raise MeasurementError(f"{target}: this file is read; it would be lost. Write to another one")


def local(source: str, trust: bool) -> Path:
    """The file behind a path or a URL; a URL is downloaded once, and only if its file may be loaded."""
    from squeeze_patch.checkpoints.convert import check_trust
    from squeeze_patch.checkpoints.io import fetch, is_url

    if not is_url(source):
        return Path(source)
    check_trust(source, trust)
    with progress_bar(f"downloading {source}", unit=1_000_000) as step:
        return fetch(source, lambda done, total: step("", done, total))


@contextlib.contextmanager
def clean_termination() -> Iterator[None]:
    """Let a scheduler's SIGTERM clean up behind itself like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_ERROR))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def progress_bar(label: str = "squeezing", unit: int = 1) -> Iterator[Callable[[str, int, int], None]]:
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
