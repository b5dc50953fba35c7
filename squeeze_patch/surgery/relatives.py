"""like=: a generator is squeezed as a relative of it was, with the same channels kept."""

from __future__ import annotations

from typing import Dict, Optional, Union

import torch

from squeeze_patch.adapters.content import Kept
from squeeze_patch.errors import PlanError
from squeeze_patch.initialization.registry import INITS
from squeeze_patch.planning.kept import kept_of
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.surgery.status import status


def relative(like: Union[torch.nn.Module, Plan, None]) -> Optional[Plan]:
    """The Plan of ``like=``.

    Raises:
        PlanError: it is a generator that is not squeezed.
    """
    if not isinstance(like, torch.nn.Module):
        return like
    found = status(like).plan
    if found is None:
        raise PlanError(f"like is a dense {type(like).__name__}; squeeze it first, then this generator like it")
    return found


def kept_like(request: Request, init: str) -> Optional[Dict[str, Kept]]:
    """{block name: channels to keep} of a relative, None where none is asked for."""
    if request.like is None:
        return None
    if INITS[init].make is None:
        raise PlanError(f"like says which trained channels stay, and init='{init}' keeps none; use a trained start")
    return kept_of(request.like)
