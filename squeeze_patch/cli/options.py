"""Options that several commands have."""

from __future__ import annotations

import difflib
import functools
import json
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import click

from squeeze_patch.cli.sources import Sources, sums
from squeeze_patch.conditioning import are_unseen, labels
from squeeze_patch.errors import LabelsWarning, PlanError
from squeeze_patch.initialization.registry import DEFAULT_INIT, INITS
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import ALLOCATIONS, METHODS, Request

Decorated = Callable[..., Any]


def _with(command: Decorated, options: Sequence[Any]) -> Decorated:
    """The command with these options, in their order in its help."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def script_first(context: click.Context, parameter: click.Parameter, words: Tuple[str, ...]) -> Tuple[str, ...]:
    """The words of a host's command line, of which the first one names the script: an option in its place is a mistyped
    one, or stands on the wrong side of it."""
    if words and words[0].startswith("-"):
        word = words[0].split("=")[0]
        known = [name for option in context.command.params for name in option.opts if name.startswith("--")]
        near = difflib.get_close_matches(word, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise click.UsageError(
            f"where the script's name was expected there is {word}, which is no option of squeeze-patch "
            f"{context.info_name}{hint} The script's own options stand behind its name"
        )
    return words


def _check_one(**limits: Any) -> None:
    """Raise `PlanError` where several options say how far."""
    given = [f"--{name}" for name, value in limits.items() if value is not None]
    if len(given) > 1:
        raise PlanError(f"{' and '.join(given)} both say how far to squeeze; give one of them")


def _is_given(option: str) -> bool:
    """Whether an option was given, and is not the default."""
    return click.get_current_context().get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def json_option(what: str) -> Decorated:
    """Of commands that print a table; the command gets the file, or "-", as ``json_target``."""
    return click.option(
        "--json",
        "json_target",
        metavar="[FILE]",
        is_flag=False,
        flag_value="-",
        help=f"Write the {what} as JSON; without FILE or with -, to stdout in place of the table.",
    )


def file_options(command: Decorated) -> Decorated:
    """Of commands that load files; `source_options` are among them."""
    return _with(
        source_options(command),
        [
            click.option(
                "--host", metavar="DIR", help="Folder of the host's checkout, where the file needs its modules."
            ),
            click.option("--trust", is_flag=True, help="Load the file as its host does, which runs code stored in it."),
        ],
    )


def source_options(command: Decorated) -> Decorated:
    """Of commands that take paths and addresses; the command gets them as one ``sources``."""

    @functools.wraps(command)
    def wrapped(*args: Any, sha256: Tuple[str, ...], no_cache: bool, **kwargs: Any) -> Any:
        return command(*args, sources=Sources(sha256, cached=not no_cache), **kwargs)

    return _with(
        wrapped,
        [
            click.option(
                "--sha256",
                metavar="HEX",
                multiple=True,
                callback=sums,
                help="The file has to have this SHA-256; of several files, once each, in their order.",
            ),
            click.option("--no-cache", is_flag=True, help="Download addresses anew, and keep nothing."),
        ],
    )


def labels_option(command: Decorated) -> Decorated:
    """Of commands that run conditional generators; the command runs within `labels`."""

    @functools.wraps(command)
    def wrapped(*args: Any, labels_file: Optional[str], **kwargs: Any) -> Any:
        with labels(labels_file):
            result = command(*args, **kwargs)
            if are_unseen():
                words = f"{labels_file} was not needed: no generator was run on labels"
                warnings.warn(LabelsWarning(words), stacklevel=2)
            return result

    meaning = (
        "Labels that conditional generators see: .npy [n, c_dim] or classes [n], a data set's dataset.json, or the "
        "data set.  [default: one random class an image]"
    )
    return click.option("--labels", "labels_file", metavar="FILE", help=meaning)(wrapped)


class BudgetText(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """What an image may take, as an argument of `Request`: a share of the dense generator's multiply-adds, or
    milliseconds."""

    name = "budget"
    units: Mapping[str, str] = {"x": "multiply_adds", "ms": "milliseconds"}

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Dict[str, float]:
        if isinstance(value, dict):
            return value
        text = str(value).strip()
        unit = next((unit for unit in self.units if text.endswith(unit)), None)
        try:
            if unit is None:
                raise ValueError
            return {self.units[unit]: float(text[: -len(unit)])}
        except ValueError:
            self.fail(
                f"{value!r} is no budget; write 0.7x for 0.7 of the dense generator's multiply-adds, or 12ms for 12 "
                "milliseconds an image",
                param,
                ctx,
            )


class ShareText(BudgetText):
    """Of commands whose generators are built in a host's processes: each would measure other times."""

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Dict[str, float]:
        found = super().convert(value, param, ctx)
        if "milliseconds" in found:
            self.fail(
                f"{value!r}: a host's processes would each measure their own; squeeze-patch plan FILE --allocate "
                f"uniform --budget {value} says which share of the multiply-adds that is, to be written like 0.7x here",
                param,
                ctx,
            )
        return found


def ratio_options(command: Decorated) -> Decorated:
    """How far, for generators that have just been built."""

    @functools.wraps(command)
    def wrapped(*args: Any, budget: Optional[Dict[str, float]], **kwargs: Any) -> Any:
        _check_one(reduction=kwargs["reduction"], ratio=kwargs["ratio"], budget=budget)
        return command(*args, multiply_adds=(budget or {}).get("multiply_adds"), **kwargs)

    words = "Multiply-adds that an image may take instead: 0.7x = 0.7 of the dense generator's."
    return _how_far(wrapped, click.option("--budget", metavar="SHAREx", type=ShareText(), help=words))


def _how_far(command: Decorated, budget: Decorated) -> Decorated:
    return _with(
        command,
        [
            click.option("--reduction", type=float, help="Share of the parameters to save.  [default: 0.121]"),
            click.option("--ratio", type=float, help="Squeeze every block's c channels to c / RATIO instead."),
            budget,
            click.option(
                "--method",
                type=click.Choice(METHODS),
                default=METHODS[0],
                show_default=True,
                help="The image squeeze connection, or fewer channels behind every convolution and no excite.",
            ),
        ],
    )


def request_options(plan_file: bool = True) -> Callable[[Decorated], Decorated]:
    """How far and where, for trained generators; the command gets them as one ``request``.

    Args:
        plan_file: whether a Plan in a file is accepted, too; the command gets its path, lest it be overwritten.
    """

    def decorate(command: Decorated) -> Decorated:
        @functools.wraps(command)
        def wrapped(
            *args: Any,
            reduction: Optional[float],
            ratio: Optional[float],
            budget: Optional[Dict[str, float]],
            method: str,
            allocate: Optional[str],
            **kwargs: Any,
        ) -> Any:
            path = kwargs.get("plan_file")
            _check_one(reduction=reduction, ratio=ratio, budget=budget, plan=path)
            plan = None if path is None else read_plan(path)
            if plan is not None and not plan.may_be_by(method) and _is_given("method"):
                raise PlanError(
                    f"{path} is a plan of method {plan.method}: leave --method {method} out, or --plan, to make another"
                )
            request = Request(reduction, ratio, None, plan, allocate, None, method, **(budget or {}))
            return command(*args, request=request, **kwargs)

        allocate = click.option(
            "--allocate",
            type=click.Choice(ALLOCATIONS),
            help="One ratio for all blocks, or the same budget spent where the images need it.  [default: spectral; "
            "with --ratio, or another start than the calibrated one, uniform]",
        )
        from_file = click.option(
            "--plan",
            "plan_file",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Squeeze by this Plan, as plan --json prints it.",
        )
        budget = click.option(
            "--budget",
            metavar="SHAREx|MSms",
            type=BudgetText(),
            help="What an image may take instead: 0.7x = 0.7 of the dense generator's multiply-adds; 12ms = 12 "
            "milliseconds, measured here.",
        )
        return _how_far(_with(wrapped, [allocate, *([from_file] if plan_file else [])]), budget)

    return decorate


def read_plan(path: Path) -> Plan:
    """The Plan in a file of `Plan.to_json`; raises `PlanError` where there is none."""
    try:
        content = path.read_bytes()
        # as JSON says it: what > makes of it in Windows' PowerShell is UTF-16, other editors put a mark in front
        return Plan.from_json(content.decode(json.detect_encoding(content)))
    except (PlanError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}. squeeze-patch plan --json prints what is wanted here") from error


def measuring_options(command: Decorated) -> Decorated:
    """Of commands that run generators and print a table."""
    return _with(
        command,
        [
            click.option(
                "--key", help="Which network of a checkpoint.  [default: the moving average, or the only generator]"
            ),
            click.option(
                "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto = cuda if any."
            ),
            json_option("figures"),
        ],
    )


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and JSON.")
init_option = click.option(
    "--init",
    type=click.Choice(list(INITS)),
    default=DEFAULT_INIT,
    show_default=True,
    help="Start from the trained weights, fitted block by block to what they make of random latents; from simpler "
    "statistics of them (seconds); or from random layers, to train from scratch.",
)
