"""What commands write, and how they tell of their progress."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

import click
import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.atomic import atomic_write, refuse_special
from squeeze_patch.checkpoints.safe_tensors import is_tensor_file
from squeeze_patch.checkpoints.targets import check_writable, refuse_dash, same_place
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.checks.junit import BEGIN
from squeeze_patch.cli.log_lines import LogLines
from squeeze_patch.errors import CheckpointError, MeasurementError
from squeeze_patch.initialization.registry import DEFAULT_INIT
from squeeze_patch.planning.milliseconds import Timing
from squeeze_patch.planning.planner import timed_plan_for
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.progress import Progress
from squeeze_patch.reporting.page import START

#: share of the parameters beyond which little is left
MOST = 0.75
#: beginnings of pages and reports of ours
OURS = (START.encode(), BEGIN.encode())


def emit(text: str, figures: Dict[str, Any], json_target: Optional[str], quiet: bool = False) -> None:
    """Print the table, or the figures to stdout as JSON, or both where the JSON goes to a file; of a quiet command,
    only the JSON."""
    if json_target != "-" and not quiet:
        click.echo(text)
    if json_target == "-":
        click.echo(json.dumps(figures, indent=2))
    elif json_target is not None:
        with atomic_write(Path(json_target)) as stream:
            stream.write((json.dumps(figures, indent=2) + "\n").encode())
        if not quiet:
            click.echo(f"{'figures':<24} {json_target}")


def warn_of_growth(plan: Plan) -> None:
    """Of a wish that adds parameters: excite costs more than is squeezed away."""
    more = plan.parameters_after - plan.parameters_before
    if more > 0:
        click.echo(
            f"Warning: this adds {more:,} parameters to each generator ({more / plan.parameters_before:.2%} more): "
            "excite needs more than is squeezed away. Ask for a larger --ratio or --reduction",
            err=True,
        )


def warn_of_little(plan: Plan, ratio: Optional[float]) -> None:
    """Of a plan that leaves next to nothing, and of a ratio that its widths do not reach."""
    if plan.reduction > MOST:
        click.echo(
            f"Warning: {plan.reduction:.0%} of the parameters go; little of the images will be left. squeeze-patch "
            "compare shows how much",
            err=True,
        )
    reached = max((block.channels / block.width for block in plan.blocks), default=1.0)
    if ratio is not None and reached < 0.75 * ratio:
        click.echo(
            f"Warning: a ratio of {ratio:g} is not reached, but {reached:g}: at least 8 channels stay in layers of 32 "
            "and more, one in others",
            err=True,
        )


def timed_plan(
    found: Located,
    request: Request,
    device: torch.device,
    init: str = DEFAULT_INIT,
    quiet: bool = False,
    has_inner: bool = True,
) -> Tuple[Plan, Optional[Timing]]:
    """The Plan that a request means, and, for a budget in milliseconds, what was measured on ``device``, where the
    generator then is. ``init`` and ``has_inner`` as for `plan_for`."""
    if request.milliseconds is not None:
        found.root.to(device)
    with progress_bar("planning", quiet=quiet, announced=True) as step:
        return timed_plan_for(found, request, init, has_inner=has_inner, progress=step)


def say_unless(quiet: bool, err: bool = False) -> Callable[[str], None]:
    """Prints a line, or nothing."""
    return (lambda line: None) if quiet else functools.partial(click.echo, err=err)


def written(_context: click.Context, _parameter: click.Parameter, target: Optional[str]) -> Optional[str]:
    """The value of an option that names a file to be written."""
    try:
        refuse_dash(target or "")
    except CheckpointError as error:
        raise click.BadParameter(str(error)) from error
    return target


def check_outputs(*targets: Optional[str], sources: Sequence[Path]) -> None:
    """Before long work: raise `MeasurementError` or `CheckpointError` where a file to be written has no folder, is no
    ordinary file, cannot be written, or is one of the files that are read."""
    for target in (Path(name) for name in targets if name is not None and name != "-"):
        if target.is_dir() or not target.parent.is_dir():
            raise MeasurementError(f"{target}: this has to be a file in a folder that exists")
        refuse_special(target)
        check_writable(target)
        if any(same_place(target, source) for source in sources):
            raise MeasurementError(f"{target}: this file is read; it would be lost. Write to another one")


def check_replaceable(*targets: Optional[str]) -> None:
    """Before long work: raise `MeasurementError` where figures, a picture or a page would take the place of something
    else, of a checkpoint whose name has come behind --json, say, or of each other."""
    paths = [Path(name) for name in targets if name is not None and name != "-"]
    for index, target in enumerate(paths):
        if any(same_place(target, other) for other in paths[:index]):
            raise MeasurementError(f"{target}: two things cannot be written to one file; name another one for each")
        if target.is_file():
            with open(target, "rb") as stream:
                head = stream.read(max(map(len, OURS)))
            ours = head.startswith(OURS) or head[:8].lstrip().startswith((b"{", b"[", b"\x89PNG"))
            if head and not ours:
                raise MeasurementError(
                    f"{target}: this file holds neither figures (JSON) nor a picture (PNG) nor a report (XML) nor a "
                    "page of squeeze-patch (HTML), and would be lost; name another one, or delete it first"
                )


@contextlib.contextmanager
def any_characters() -> Iterator[None]:
    """Print as escapes what an output cannot hold: where it is a file or a pipe, Windows encodes it in the characters
    of one part of the world, and names of files have all."""
    strict = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper) and s.errors == "strict"]
    for stream in strict:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in strict:
            with contextlib.suppress(ValueError):  # closed meanwhile
                stream.reconfigure(errors="strict")


@contextlib.contextmanager
def progress_bar(
    label: str = "squeezing", unit: int = 1, quiet: bool = False, announced: bool = False
) -> Iterator[Progress]:
    """A progress bar with remaining time on a terminal; elsewhere a line now and then, ``announced`` as for
    `LogLines`."""
    if quiet or sys.stderr is None:  # None where it is closed
        yield lambda what, done, total: None
        return
    if not sys.stderr.isatty():
        yield LogLines(label, unit, announced)
        return
    with contextlib.ExitStack() as stack:
        bar: Any = None

        def step(what: str, done: int, total: int) -> None:
            nonlocal bar
            if bar is not None and total and bar.length != max(total // unit, 1):
                bar.length = max(total // unit, 1)  # other work, or more of it than was known
            if bar is None:
                how: Any = {"label": label, "show_eta": True, "show_pos": True, "file": sys.stderr}
                # without a length, click counts what an iterator of unknown length brings: none
                how.update({"length": max(total // unit, 1)} if total else {"iterable": (one for one in range(0))})
                bar = stack.enter_context(click.progressbar(**how))
            if done // unit < bar.pos:
                bar.pos = done // unit  # begun anew; click counts forwards only
            bar.update(done // unit - bar.pos)

        yield step


def as_named(target: Path, cure: str = "") -> str:
    """Words for a file that is of its source's kind, and named like one of another; ``cure``: how to get that one."""
    kind = "safetensors" if is_tensor_file(target) else "torch.save" if is_archive(target) else "pickle"
    usual = {".pkl": "pickle", ".pt": "torch.save", ".pth": "torch.save"}.get(target.suffix.lower(), kind)
    return f" (of the source's kind, {kind}, whatever its name says{cure})" if kind != usual else ""
