"""Run a host's own script with every generator that it builds squeezed, as the file that it loads says."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import List, Optional, Sequence

import torch

from squeeze_patch.checkpoints.bodies import find_bodies
from squeeze_patch.checkpoints.safe_tensors import is_tensor_file, read_tensors
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.checkpoints.tensor_files import is_archive
from squeeze_patch.errors import CheckpointError, PlanError, SqueezeError
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.apply import apply_request
from squeeze_patch.surgery.status import status
from squeeze_patch.training.common import Say
from squeeze_patch.training.families import families


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
        arguments: the script and its own options.
        reduction, ratio, multiply_adds, method: as for `squeeze_patch.apply`.
        say: prints one line.

    Raises:
        SqueezeError: no adapter knows how the script builds its generator, or a file does not fit the request.
    """
    script = Path(arguments[0]).resolve()
    if not script.is_file():
        raise SqueezeError(f"{arguments[0]}: there is no such script")
    request = Request(
        reduction, ratio, method=method, multiply_adds=multiply_adds
    )  # a wrong one stops here, before the script begins its work
    plan = _plan_of_files(arguments[1:])
    if plan is not None and not request.is_default:
        raise PlanError(
            "the script's own file says how its generator is squeezed; leave --ratio, --reduction, --budget and "
            "--method out"
        )

    def squeeze(G: torch.nn.Module) -> None:
        apply_request(G, Request(plan=plan) if plan else request, "random", keep_original=False)
        say(f"squeeze_patch: {status(G)}")

    sys.path.insert(0, str(script.parent))
    if not any(family.hook_generators(script.parent, squeeze) for family in families()):
        raise SqueezeError(
            f"{script.name}: no adapter knows how this script builds its generator. "
            "Call squeeze_patch.load(G, file) in it, right after G is built"
        )
    if hasattr(torch.serialization, "add_safe_globals"):  # hosts call torch.load on files that hold their options
        torch.serialization.add_safe_globals([argparse.Namespace])
    sys.argv = [str(arguments[0]), *arguments[1:]]
    runpy.run_path(str(script), run_name="__main__")


def _plan_of_files(arguments: Sequence[str]) -> Optional[Plan]:
    """The Plan of the squeezed files among a script's arguments, None where there is no such file."""
    plans: List[Plan] = []
    for argument in arguments:
        path = Path(argument.split("=", 1)[-1])
        if not path.is_file() or not (is_archive(path) or is_tensor_file(path)):
            continue
        try:
            data = (
                read_tensors(path) if is_tensor_file(path) else read_entries(path, trust=False)
            )  # only the script itself may run what is in its files
        except CheckpointError:
            continue  # a data set, or a checkpoint of another kind: squeezed files hold tensors and plain values
        bodies = [found.body for found in find_bodies(data, f"{path}: ").values()]
        found = [plan for body in bodies for plan in [status(body).plan] if plan is not None]
        if bodies and not found:
            raise CheckpointError(
                f"{path}: its generators are dense; squeeze-patch convert makes a squeezed file of it"
            )
        plans += found
    if any(not plan.same_widths(plans[0]) for plan in plans):
        raise PlanError("the script's files hold generators that are squeezed in different ways")
    return plans[0] if plans else None
