"""Run a host's own train.py with every generator that it builds squeezed, in this process and in those it spawns.

No patch has to survive a spawn: the options that a host hands to its processes name the function that builds the
generator, and the file of the host's family puts a function of ours there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Tuple

from squeeze_patch.adapters import reference_name
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.addresses import is_url, redacted
from squeeze_patch.checkpoints.convert import convert_file
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.generators import generators, no_generator
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.pickles import is_checkout
from squeeze_patch.checkpoints.stored import StoredFile
from squeeze_patch.conditioning import are_given
from squeeze_patch.errors import TRUST_CURE, CheckpointError, LabelsError, PlanError, SqueezeError
from squeeze_patch.planning.planner import is_meant
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.status import status_of_part
from squeeze_patch.training.bare import bare_copy
from squeeze_patch.training.command_lines import host_words
from squeeze_patch.training.common import SCRIPT_VARIABLE, RunStart, Say, host_code, import_script
from squeeze_patch.training.families import families


def train(
    arguments: Sequence[str],
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    multiply_adds: Optional[float] = None,
    method: str = "squeeze",
    init_from: Optional[str] = None,
    trust: bool = False,
    dense: bool = False,
    say: Say = print,
) -> None:
    """Do what ``python train.py --outdir=... ...`` does, with squeezed generators.

    A run that goes on from a file (the host's ``--resume``, or ``init_from``) takes the file's plan where the file is
    squeezed already; a dense file is converted first.

    Args:
        arguments: the host's script, or its installed command, and its own options; ``python`` in front of it is
            passed over.
        reduction, ratio, multiply_adds, method: as for `squeeze_patch.apply`.
        init_from: checkpoint (path or URL) for the weights of G, D and G_ema, without the changes that some hosts make
            to their settings with ``--resume``. Nothing of the file is run: the host is given its tensors, in modules
            of torch's own.
        trust: give the host the file of ``init_from`` itself, or what became of it, which runs the code in it.
        dense: leave the generators dense: the rival, trained under the same torch in the same way. Hosts of 2020 stop
            on a current torch by themselves.
        say: prints one line.

    Raises:
        SqueezeError: no adapter knows how the script builds its generator, or a file does not fit the request.
    """
    if dense and (init_from is not None or (reduction, ratio, multiply_adds, method) != (None, None, None, "squeeze")):
        raise SqueezeError(
            "--dense trains the host's own generator: leave --reduction, --ratio, --budget, --method and --init-from "
            "out"
        )
    if trust and not init_from:
        raise SqueezeError(
            "--trust says that the file of --init-from may run its code: give --init-from, or leave it out"
        )
    if dense:
        _need_no_labels("a dense run")
    request = Request(
        reduction, ratio, method=method, multiply_adds=multiply_adds
    )  # a wrong one stops here, before the script could delete an earlier run
    words = host_words(arguments, "train")
    script = find_script(words[0])
    os.environ[SCRIPT_VARIABLE] = str(script)
    module = import_script()
    with tempfile.TemporaryDirectory(prefix="squeeze_patch_") as folder:

        def prepare(resume: Optional[str]) -> RunStart:
            if resume and init_from:
                raise SqueezeError(
                    f"--init-from is one start, {redacted(resume)} (the script's own) another; give one of them"
                )
            if dense:
                return _dense_start(resume)
            return _start(resume or init_from, request, Path(folder), say, trust=bool(resume) or trust)

        with host_code(script.name):  # its package may want more than its script
            known = any(family.hook_training(module, prepare) for family in families())
        if not known:
            raise SqueezeError(
                f"{script.name}: no adapter knows how this script builds its generator. "
                "NVIDIA's other scripts are run as they are, since its squeezed files need nothing. "
                "Where its files hold state dicts, try squeeze-patch run; "
                "or call squeeze_patch.apply(G, init='random') in it, right after G is built"
            )
        sys.argv = words
        sys.modules["__main__"].__package__ = None  # click would call the script python -m squeeze_patch.train
        with host_code(script.name):
            module.main()


def find_script(name: str) -> Path:
    """The host's script: a file, or an installed command.

    Raises:
        SqueezeError: there is none.
    """
    command = name if Path(name).is_file() else shutil.which(name)
    if command is None:
        raise SqueezeError(
            f"{name}: there is no such script or command; name the host's train.py, or its command, stylegan2_pytorch"
        )
    return Path(command).resolve()


def _start(source: Optional[str], request: Request, folder: Path, say: Say, trust: bool) -> RunStart:
    """Decide what a run begins with; a dense file is converted into ``folder``. It is read without running it where
    that is possible, and else only with ``trust``. Without it the host, which is about to load what it gets as its own
    file, is given the tensors alone."""
    if not source:
        _need_no_labels("a run without a file")
        return RunStart(request, None)
    path = fetch(source) if is_url(source) else Path(source)
    source = redacted(source)
    data, needs_trust = _read(path, trust)
    found = generators(data)
    if not found:
        raise no_generator(source, data)
    G = found[reference_name(found)]
    now = status_of_part(G)
    if now.state == "squeezed":
        assert now.plan is not None
        _need_no_labels(f"{source}, which is squeezed,")
        if not request.is_default and not is_meant(request, G, now.plan):
            raise PlanError(
                f"{source} is squeezed in another way than asked for ({now.plan}); leave --ratio, --reduction, "
                "--budget and --method out to go on with it, or start from a dense file"
            )
        say(f"squeeze_patch: {source} is squeezed already; training goes on with its plan ({now})")
        plans = (status_of_part(part).plan for part in found.values())
        is_true = all(plan is not None and plan.same_channels(now.plan) for plan in plans)  # of G and of G_ema
        plan, begin = now.plan if is_true else now.plan.with_kept({}), path
    else:
        begin = folder / f"squeezed-{path.name}"
        say(f"squeeze_patch: {source} is dense; squeezing its generators (about a minute at the official sizes)")
        plan = convert_file(path, begin, request, trust=needs_trust, host=_host(data), force=True).plan
        say(f"squeeze_patch: squeezed from the trained weights ({plan})")
    if not trust:
        begin = bare_copy(begin, folder / f"weights-{path.name}", say)
    return RunStart(Request(plan=plan), str(begin), source)


def _need_no_labels(start: str) -> None:
    """Raise `LabelsError` where labels were given for nothing."""
    if are_given():
        raise LabelsError(f"--labels is about dense files, from whose weights a start is made; {start} needs none")


def _dense_start(resume: Optional[str]) -> RunStart:
    """What a run of dense generators begins with, as far as a look at a local file without running it can tell."""
    if resume and not is_url(resume):
        found: Mapping[str, Located] = {}
        with contextlib.suppress(SqueezeError):  # a name that the host knows, or a file that only the host can read
            found = generators(read(resume, trust=False))
        for G in found.values():
            if status_of_part(G).state == "squeezed":
                raise PlanError(
                    f"{resume} is squeezed, and --dense trains dense generators, which cannot take its weights; leave "
                    "--dense out to go on with it, or name a dense file"
                )
    return RunStart(None, resume)


def _host(data: Any) -> Optional[Path]:
    """The script's folder, where the file has to be made anew of the classes in there."""
    folder = Path(os.environ[SCRIPT_VARIABLE]).parent
    foreign = isinstance(data, StoredFile) and data.foreign is not None
    return folder if foreign and is_checkout(folder) else None


def _read(path: Path, trust: bool) -> Tuple[Any, bool]:
    """What a file holds, and whether that took trust."""
    try:
        return read(path, trust=False), False
    except SqueezeError as error:
        if trust:
            return read(path, trust=True), True
        if not path.is_file():  # no trust would help
            raise
        words = str(error).replace(TRUST_CURE, "say so with --trust")  # the host is where the script is
        raise CheckpointError(
            f"{words}. train runs nothing of the file that --init-from names, unless it is given --trust"
        ) from error
