"""The Plan in what hosts' scripts save: how many channels a narrowed block had is in no shape."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

import torch

from squeeze_patch.checkpoints.bodies import PLAN_ENTRY
from squeeze_patch.surgery.status import status


@contextlib.contextmanager
def torch_with(name: str, function: Callable[..., Any]) -> Iterator[None]:
    """``function`` as torch's one of that name, for the length of a ``with`` block."""
    original = getattr(torch, name)
    setattr(torch, name, function)
    try:
        yield
    finally:
        setattr(torch, name, original)


class SavedPlans:
    """The Plans of squeezed generators, put into the files that hold their states."""

    def __init__(self) -> None:
        #: (shapes of a generator's parameters, its Plan)
        self._known: List[Tuple[Dict[str, torch.Size], Dict[str, Any]]] = []

    def add(self, G: torch.nn.Module) -> None:
        plan = status(G).plan
        shapes = {name: parameter.shape for name, parameter in G.named_parameters()}
        if plan is not None and (shapes, plan.to_dict()) not in self._known:
            self._known.append((shapes, plan.to_dict()))

    @contextlib.contextmanager
    def in_files(self) -> Iterator[None]:
        """For the length of a block, dicts that torch.save is given have the Plan beside the state of a generator."""
        write = torch.save

        def save(obj: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(obj, dict) and PLAN_ENTRY not in obj:
                states = [value for value in obj.values() if isinstance(value, Mapping)]
                found = [known for known in self._known if any(_holds(state, known[0]) for state in states)]
                if found:  # the largest: a smaller generator's are among a larger one's
                    obj = {**obj, PLAN_ENTRY: max(found, key=lambda known: len(known[0]))[1]}
            return write(obj, *args, **kwargs)

        with torch_with("save", save):
            yield


def _holds(state: Mapping[Any, Any], shapes: Mapping[str, torch.Size]) -> bool:
    """Whether parameters of these shapes are in a state dict, under their names or behind a prefix (``module.``)."""
    first = next(iter(shapes))
    prefixes = [name[: -len(first)] for name in state if isinstance(name, str) and name.endswith(first)]
    return any(
        all(getattr(state.get(f"{prefix}{name}"), "shape", None) == shape for name, shape in shapes.items())
        for prefix in prefixes
    )
