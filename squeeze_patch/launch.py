"""Run a host's own train.py with every generator that it builds squeezed, in this process and in those it spawns.

No patch has to survive a spawn: the options that a host hands to its processes name the function that builds the
generator, and the host's adapter puts a function of ours there.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

import torch

from squeeze_patch.adapters import adapters, reference_name
from squeeze_patch.checkpoints import convert as checkpoint
from squeeze_patch.checkpoints.io import fetch, is_url
from squeeze_patch.errors import CheckpointError, PlanError, SqueezeError
from squeeze_patch.planning.planner import check_wish
from squeeze_patch.planning.planner import plan as make_plan
from squeeze_patch.surgery.status import status

#: names the host's script to spawned processes
SCRIPT_VARIABLE = "SQUEEZE_PATCH_SCRIPT"

Say = Callable[[str], None]
#: arguments of `squeeze_patch.apply` as plain values: a reduction, a ratio, or a "plan" as a dict; {} = the default
Wish = Dict[str, Any]


@dataclass(frozen=True)
class Start:
    """What a training run begins with: the wish for its generators, and the checkpoint to load, None for scratch."""

    wish: Wish
    checkpoint: Optional[str]


def train(
    arguments: Sequence[str],
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    init_from: Optional[str] = None,
    say: Say = print,
) -> None:
    """Do what ``python train.py --outdir=... ...`` does, with squeezed generators.

    A run that goes on from a file (the host's ``--resume``, or ``init_from``) takes the file's plan where the file is
    squeezed already; a dense file is converted first.

    Args:
        arguments: the host's script, or its installed command, and its own options.
        reduction, ratio: as for `squeeze_patch.apply`.
        init_from: checkpoint (path or URL) for the weights of G, D and G_ema, without the changes that some hosts make
            to their settings with ``--resume``.
        say: prints one line.

    Raises:
        SqueezeError: no adapter knows how the script builds its generator, or a file does not fit the wish.
    """
    check_wish(reduction, ratio)  # before the script could delete what an earlier run made
    script = find_script(arguments[0])
    os.environ[SCRIPT_VARIABLE] = str(script)
    wish: Wish = {key: value for key, value in (("reduction", reduction), ("ratio", ratio)) if value is not None}
    module = _host_module()
    with tempfile.TemporaryDirectory(prefix="squeeze_patch_") as folder:

        def prepare(resume: Optional[str]) -> Start:
            if resume and init_from:
                raise SqueezeError(f"--init-from is one start, {resume} (the script's own) another; give one of them")
            return _start(resume or init_from, wish, Path(folder), say)

        if not any(adapter.hook_training(module, prepare) for adapter in adapters()):
            raise SqueezeError(
                f"{script.name}: no adapter knows how this script builds its generator. "
                "Where its files hold state dicts, try squeeze-patch run; "
                "or call squeeze_patch.apply(G, init='random') in it, right after G is built"
            )
        if hasattr(module, "subprocess_fn"):
            module.squeeze_patch_original = module.subprocess_fn
            module.subprocess_fn = run_process
        sys.argv = [str(arguments[0]), *arguments[1:]]
        module.main()


def find_script(name: str) -> Path:
    """The host's script: a file, or an installed command.

    Raises:
        SqueezeError: there is none.
    """
    command = name if Path(name).is_file() else shutil.which(name)
    if command is None:
        raise SqueezeError(f"{name}: there is no such script or command; name the host's train.py")
    return Path(command).resolve()


def run_process(*arguments: Any, **keywords: Any) -> None:
    """One training process: the host's own function, under what a current torch needs for it.

    Spawned processes find this function by its name and the host's script by the environment.
    """
    module = _host_module()
    getattr(module, "squeeze_patch_original", module.subprocess_fn)(*arguments, **keywords)


def _host_module() -> Any:
    script = Path(os.environ[SCRIPT_VARIABLE])
    if str(script.parent) not in sys.path:
        sys.path.insert(0, str(script.parent))
    _accept_data_source()
    _broadcast_buffers()
    try:
        return importlib.import_module(script.stem)
    except ModuleNotFoundError as error:
        raise SqueezeError(f"{script.name} needs the module {error.name}: install what the host asks for") from error


def _start(source: Optional[str], wish: Wish, folder: Path, say: Say) -> Start:
    """Decide what a run begins with; a dense file is converted into ``folder``."""
    if not source:
        return Start(wish, None)
    path = fetch(source) if is_url(source) else Path(source)
    # The user asks the host to load this very file, which runs its code: that is the word of trust.
    found = checkpoint.generators(checkpoint.read(path, trust=True))
    if not found:
        raise CheckpointError(f"{source}: no generator in this file that can be squeezed")
    G = found[reference_name(found)]
    now = status(G)
    if now.state == "squeezed":
        assert now.plan is not None
        if wish and not make_plan(G, **wish).same_widths(now.plan):
            raise PlanError(f"{source} is squeezed in another way than asked for ({now.plan})")
        say(f"squeeze_patch: {source} is squeezed already; training goes on with its plan ({now})")
        return Start({"plan": now.plan.to_dict()}, str(path))
    target = folder / f"squeezed-{path.name}"
    say(f"squeeze_patch: {source} is dense; squeezing its generators (about a minute at the official sizes)")
    done = checkpoint.convert(path, target, trust=True, force=True, **wish)
    say(f"squeeze_patch: squeezed from the trained weights ({done.plan})")
    return Start({"plan": done.plan.to_dict()}, str(target))


def _accept_data_source() -> None:
    """Hosts of 2020 to 2022 pass their data set to Sampler.__init__, which current torch no longer has."""
    sampler: Any = torch.utils.data.Sampler
    if "__init__" not in vars(sampler):
        sampler.__init__ = lambda self, data_source=None: None


def _broadcast_buffers() -> None:
    """Older torch copied rank 0's buffers to all ranks when DistributedDataParallel was made, also with
    ``broadcast_buffers=False``; hosts rely on it (noise_const, w_avg). Do so."""
    wrapper: Any = torch.nn.parallel.DistributedDataParallel
    if getattr(wrapper.__init__, "squeeze_patch", False):
        return
    original = wrapper.__init__

    def with_equal_buffers(self: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)
        original(self, module, *args, **kwargs)

    with_equal_buffers.squeeze_patch = True  # type: ignore[attr-defined]
    wrapper.__init__ = with_equal_buffers
