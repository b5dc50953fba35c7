"""Run a host's own script with every generator that it builds squeezed, as the file that it loads says."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import runpy
import sys
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters import search
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.addresses import is_url, redacted
from squeeze_patch.checkpoints.bodies import find_bodies, plan_beside
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.safe_tensors import is_tensor_file, read_tensors
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.errors import CheckpointError, PlanError, ScriptError, SqueezeError
from squeeze_patch.planning.planner import is_meant
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.apply import apply_request
from squeeze_patch.surgery.status import status
from squeeze_patch.training.command_lines import host_words
from squeeze_patch.training.common import Say, host_code
from squeeze_patch.training.families import families
from squeeze_patch.training.saving import SavedPlans

#: options of scripts for the size of the generator that they build
_SIZE_OPTION = re.compile(r"--?(image_?|img_?)?(size|res|resolution)")
#: for the number of their process on this machine
_RANK_OPTION = re.compile(r"""["'](--local[_-]rank)["']""")
#: for the file that they load; a host that takes addresses there takes a path as well
_FILE_OPTION = re.compile(r"--?\w*(ckpt|checkpoint|resume|weights)\w*")


@dataclass(frozen=True)
class SqueezedSource:
    """A squeezed generator among a script's files, and how it is squeezed."""

    path: Path
    plan: Plan
    found: Located

    @property
    def channels(self) -> Mapping[int, int]:
        """{resolution: channels} when it was dense."""
        return _channels(self.found)

    def difference(self, built: Mapping[int, int], arguments: Sequence[str]) -> Optional[str]:
        """How the generator of these channels, which the script ``arguments[0]`` has built, differs from the file's in
        size, and the cure; None where it does not."""
        name, size, here = Path(arguments[0]).name, max(self.channels), max(built)
        if size != here:
            given = _size_given(arguments[1:], here)
            cure = f"{given} has to be {size}" if given else f"give it that size (rosinality's scripts: --size {size})"
            return f"{self.path} holds a generator of {size}x{size}, and {name} built one of {here}x{here}: {cure}"
        other = next((side for side, count in self.channels.items() if count != built.get(side)), None)
        if other is None:
            return None
        return (
            f"the generator in {self.path} has {self.channels[other]} channels at {other}x{other}, the one that {name} "
            f"built has {built.get(other, 'none')}: give it the multiplier of the channels that the file was trained "
            "with (rosinality's scripts: --channel_multiplier)"
        )


def run(
    arguments: Sequence[str],
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    multiply_adds: Optional[float] = None,
    method: str = "squeeze",
    say: Say = print,
) -> None:
    """Do what ``python script.py ...`` does, with squeezed generators.

    For families whose files hold state dicts. The plan is that of the squeezed file among the script's arguments; where
    there is none, as in training from scratch, it is made from ``reduction`` or ``ratio``. Generators are squeezed as
    they are built, before the script makes optimisers or loads weights; its own loading then meets the file's shapes.

    Args:
        arguments: the script and its own options; ``python`` in front of it is passed over. What is behind the address
            of a checkpoint (``--ckpt https://...``) is downloaded, and the script is given the file.
        reduction, ratio, multiply_adds, method: as for `squeeze_patch.apply`.
        say: prints one line.

    Raises:
        SqueezeError: no adapter knows how the script builds its generator, or a file does not fit the request, or what
            the script builds.
        ScriptError: the script itself stopped.
    """
    arguments = host_words(arguments, "run")
    script = Path(arguments[0]).resolve()
    if not script.is_file():
        raise SqueezeError(
            f"{arguments[0]}: there is no such script; installed commands (stylegan2_pytorch) are trained by "
            "squeeze-patch train"
        )
    request = Request(
        reduction, ratio, method=method, multiply_adds=multiply_adds
    )  # a wrong one stops here, before the script begins its work
    arguments = _ranked(_downloaded(arguments, say), script)
    file = _squeezed_file(arguments[1:])
    if file is not None and not (request.is_default or is_meant(request, file.found, file.plan)):
        raise PlanError(
            f"{file.path} is squeezed in another way than asked for ({file.plan}); leave --ratio, --reduction, "
            "--budget and --method out to go on with it, or start from a dense file"
        )
    differences: List[str] = []
    built: List[str] = []
    plans = SavedPlans()

    def squeeze(G: torch.nn.Module) -> None:
        wanted, unlike = request, None
        if file is not None:
            dense = search(G).reference
            plan = plan_beside(dense, file.found, file.plan)
            wanted = Request(plan=plan)
            unlike = file.difference(_channels(dense), arguments) if plan is file.plan else None
        differences.extend([unlike] if unlike else [])  # no error yet: a script may want another size
        try:
            apply_request(G, wanted, "random", keep_original=False, record=file is not None)
        except PlanError as error:
            raise PlanError(f"{unlike}. {error}") if unlike else error from error
        built.append(type(G).__name__)  # not G itself, which the script may be done with
        plans.add(G)
        say(f"squeeze_patch: {status(G)}")

    sys.path.insert(0, str(script.parent))
    with host_code(script.name):
        known = any(family.hook_generators(script.parent, squeeze) for family in families())
    if not known:
        raise SqueezeError(
            f"{script.name}: no adapter knows how this script builds its generator. "
            "NVIDIA's train.py is run by squeeze-patch train, and its other scripts as they are, since its squeezed "
            "files need nothing; elsewhere, call squeeze_patch.load(G, file) in it, right after G is built"
        )
    if hasattr(torch.serialization, "add_safe_globals"):  # hosts call torch.load on files that hold their options
        torch.serialization.add_safe_globals([argparse.Namespace])
    sys.argv = [str(arguments[0]), *arguments[1:]]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(host_code(script.name))
            stack.enter_context(_told_of_none(script.name, built, say))
            stack.enter_context(_told_of_spawned(script.name, say))
            stack.enter_context(plans.in_files())
            runpy.run_path(os.path.abspath(arguments[0]), run_name="__main__")  # its __file__ by its own name, a link's
    except ScriptError as error:
        if differences and "loading state_dict" in str(error):
            raise ScriptError(f"{differences[0]}. {error}") from error.__cause__
        raise


def _downloaded(arguments: Sequence[str], say: Say) -> List[str]:
    """A command, with the paths of downloads for the addresses of checkpoints in it."""
    words = list(arguments[:1])
    for before, word in zip(arguments, arguments[1:]):
        option, equals, value = word.partition("=") if word.startswith("-") else (before, "", word)
        if is_url(value) and _FILE_OPTION.fullmatch(option):
            path = fetch(value)
            say(f"squeeze_patch: {redacted(value)} is given to {Path(arguments[0]).name} as {path}")
            word = f"{option}{equals}{path}" if equals else str(path)
        words.append(word)
    return words


def _ranked(arguments: Sequence[str], script: Path) -> Sequence[str]:
    """A command, with the number of this process for scripts that take it as an option, as torch.distributed.launch
    handed it to them; torchrun has it in the environment alone, and all processes would take the first GPU."""
    rank, text = os.environ.get("LOCAL_RANK"), script.read_text(encoding="utf-8", errors="replace")
    option = _RANK_OPTION.search(text)
    if rank is None or option is None or any(word.replace("-", "_").startswith("__local_rank") for word in arguments):
        return arguments
    return [*arguments, f"{option[1]}={rank}"]


@contextlib.contextmanager
def _told_of_none(script: str, built: Sequence[str], say: Say) -> Iterator[None]:
    """A script that has built no generator runs as it is: where it trains, that is said with the first gradient, and
    else when it ends well, by ``sys.exit`` or without."""
    told: List[str] = []
    backward = torch.autograd.backward

    def tell() -> None:
        if not (built or told):
            told.append(words)
            say(words)

    def backward_and_tell(*args: Any, **kwargs: Any) -> None:
        torch.autograd.backward = backward
        tell()
        backward(*args, **kwargs)

    words = (
        f"squeeze_patch: {script} built no generator in this process, so nothing was squeezed here; where it starts "
        "other processes, squeeze-patch run has to stand in front of their scripts, and functions that it spawns have "
        "to call squeeze_patch.load or squeeze_patch.apply"
    )
    torch.autograd.backward = backward_and_tell
    try:
        yield
    except SystemExit as end:
        if not end.code:
            tell()
        raise
    finally:
        torch.autograd.backward = backward
    tell()


def _function_of(process: Any) -> Any:
    """What a process is started for; torch.multiprocessing.spawn hands it to a function of its own."""
    target, arguments = getattr(process, "_target", None), getattr(process, "_args", ())
    by_torch = getattr(target, "__module__", None) == "torch.multiprocessing.spawn"
    return next((value for value in arguments if callable(value)), target) if by_torch else target


@contextlib.contextmanager
def _told_of_spawned(script: str, say: Say) -> Iterator[None]:
    """Processes that are spawned rather than forked have nothing of what was done to this one, and their generators
    stay dense. Once a run; those of torch's data loaders, and multiprocessing's own, build none."""
    told: List[str] = []
    start = BaseProcess.start

    def start_and_tell(self: Any) -> None:
        method = getattr(self, "_start_method", None) or multiprocessing.get_start_method()
        works = _function_of(self) or type(self)
        where = getattr(works, "__module__", None) or ""
        if method != "fork" and not told and not where.startswith(("torch.utils.data", "multiprocessing.")):
            told.append(where)
            say(
                f"squeeze_patch: {script} spawns a process, for {getattr(works, '__name__', 'a function')}: a "
                "generator that is built in there stays dense, unless squeeze_patch.load or squeeze_patch.apply is "
                "called in there"
            )
        start(self)

    BaseProcess.start = start_and_tell  # type: ignore[method-assign]
    try:
        yield
    finally:
        BaseProcess.start = start  # type: ignore[method-assign]


def _channels(found: Located) -> Mapping[int, int]:
    return {spec.resolution: spec.channels for spec in found.specs}


def _size_given(arguments: Sequence[str], size: int) -> Optional[str]:
    """The option that says ``size``, as it is written in a command."""
    for before, word in zip(["", *arguments], arguments):
        option, equals, value = word.partition("=") if word.startswith("-") else (before, " ", word)
        if value == str(size) and _SIZE_OPTION.fullmatch(option):
            return f"{option}{equals}{value}"
    return None


def _squeezed_file(arguments: Sequence[str]) -> Optional[SqueezedSource]:
    """The first of the squeezed files among a script's arguments, None where there is no such file."""
    sources: List[SqueezedSource] = []
    for argument in arguments:
        names = (argument, argument.partition("=")[2])  # a path may have one of its own: runs/lr=0.1/000100.pt
        path = next((Path(name) for name in names if name and os.path.isfile(name)), None)
        if path is None or not (is_archive(path) or is_tensor_file(path)):
            continue
        try:
            data = (
                read_tensors(path) if is_tensor_file(path) else read_entries(path, trust=False)
            )  # only the script itself may run what is in its files
        except CheckpointError:
            continue  # a data set, or a checkpoint of another kind: squeezed files hold tensors and plain values
        bodies = [found.body for found in find_bodies(data, f"{path}: ").values()]
        plans = [(body, status(body).plan) for body in bodies]
        found = [SqueezedSource(path, plan, search(body).reference) for body, plan in plans if plan]
        if bodies and not found:
            raise CheckpointError(
                f"{path}: its generators are dense; squeeze-patch convert makes a squeezed file of it"
            )
        sources += found
    if any(not source.plan.same_widths(sources[0].plan) for source in sources):
        raise PlanError(
            "the script's files hold generators that are squeezed in different ways; squeeze-patch convert --like FILE "
            "makes the one from its dense file as the other is"
        )
    if not sources:
        return None
    first = sources[0]
    is_true = all(source.plan.same_channels(first.plan) for source in sources)  # of G and of G_ema
    return first if is_true else replace(first, plan=first.plan.with_kept({}))
