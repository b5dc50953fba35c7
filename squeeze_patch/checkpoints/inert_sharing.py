"""Whether what a file holds has an end: a list of one list twice, which holds one list twice, and so on, takes a
hundred bytes, and for ever to be gone through, compared or named in a message."""

from __future__ import annotations

import pickle
from argparse import Namespace
from typing import Any, Dict, List, Sequence, Tuple

from squeeze_patch.adapters.records import Inert

#: values of which a file may be told whatever it is, and times what it holds; networks share a few options
GENEROUS, TIMES = 1 << 20, 64
_CONTAINERS = (dict, list, tuple, Inert, Namespace)


def check_sharing(data: Any) -> Any:
    """``data``, as it came out of a file, with every container that it shares.

    Raises:
        pickle.UnpicklingError: some container is many times as long, written out, as all that the file holds.
    """
    written: Dict[int, int] = {}  # values in a container, written out; 0 while it is being counted: it holds itself
    held = 0
    waiting: List[Tuple[Any, bool]] = [(data, False)]
    while waiting:
        value, counted = waiting.pop()
        parts = _parts(value)
        if counted:
            held += len(parts)
            # what is shown or compared of an object is its class alone
            inner = 0 if isinstance(value, Inert) else sum(written.get(id(part), 1) for part in parts)
            written[id(value)] = 1 + inner
        elif id(value) not in written:
            written[id(value)] = 0
            waiting.append((value, True))
            waiting.extend((part, False) for part in parts if isinstance(part, _CONTAINERS))
    if max(written.values(), default=0) > GENEROUS + TIMES * held:
        raise pickle.UnpicklingError("its lists hold one another so often that they have no end")
    return data


def _parts(value: Any) -> Sequence[Any]:
    """What a container holds; keys are single values."""
    if isinstance(value, dict):
        return [*value.values(), *getattr(value, "__dict__", {}).values()]
    if isinstance(value, (list, tuple)):
        return value
    return [vars(value)] if isinstance(value, (Inert, Namespace)) else []
