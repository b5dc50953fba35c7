"""Optimiser states in checkpoint files: the moments of what a squeezed generator keeps.

torch.optim stores moments under numbers, which count the parameters in the generator's order. A parameter of which
squeezing keeps some channels keeps their moments. One that is new has none, so that the optimiser starts it as on the
first day, bias correction included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.located import Located

#: (name, shape) of a generator's parameters, in its order
Parameters = List[Tuple[str, torch.Size]]


@dataclass(frozen=True)
class Followed:
    """An optimiser's state behind the squeeze: how many parameters go on with their moments, how many start anew."""

    state: Dict[str, Any]
    kept: int
    new: int

    def __str__(self) -> str:
        return f"the moments of {self.kept} parameters follow the kept channels, {self.new} parameters start without"


def parameters_of(G: torch.nn.Module) -> Parameters:
    return [(name, parameter.shape) for name, parameter in G.named_parameters()]


def optimises(state: Any, parameters: Parameters) -> bool:
    """Whether ``state`` is the state dict of one optimiser group over exactly these parameters, by number and shape."""
    moments, groups = (state.get(name) for name in ("state", "param_groups")) if isinstance(state, dict) else (0, 0)
    if not (isinstance(moments, dict) and isinstance(groups, list) and len(groups) == 1):
        return False
    numbers = groups[0].get("params") if isinstance(groups[0], dict) else None
    if not (isinstance(numbers, list) and len(numbers) == len(parameters)):
        return False
    if not all(isinstance(number, int) for number in numbers):
        return False
    shapes = dict(zip(numbers, (shape for _, shape in parameters)))
    return all(
        number in shapes and isinstance(entry, dict) and all(_fits(value, shapes[number]) for value in entry.values())
        for number, entry in moments.items()
    )


def follow_all(
    data: Any,
    found: Mapping[str, Located],
    dense: Mapping[str, Parameters],
    kept: Mapping[str, Mapping[str, torch.Tensor]],
) -> Dict[str, str]:
    """Bring the states of the generators' optimisers along, in the entries ``data`` of a checkpoint.

    Args:
        data: entries of a file; anything but a dict holds none.
        found: {generator: what was squeezed}.
        dense: {generator: its parameters while dense}.
        kept: {generator: {block: kept channels [q]}}.

    Returns:
        {entry: what became of it, in words}.
    """
    done = {}
    for name, value in list(data.items()) if isinstance(data, dict) else []:
        owner = next((G for G, parameters in dense.items() if optimises(value, parameters)), None)
        if owner is not None:
            followed = follow(value, dense[owner], found[owner], kept[owner])
            data[name] = followed.state
            done[str(name)] = str(followed)
    return done


def follow(
    state: Mapping[str, Any], dense: Parameters, squeezed: Located, kept: Mapping[str, torch.Tensor]
) -> Followed:
    """The optimiser state for ``squeezed``.

    Args:
        state: of the dense generator; `optimises` holds.
        dense: parameters of the dense generator.
        squeezed: what became of it.
        kept: {block name: kept channels [q]}, empty where its layers were drawn anew.
    """
    states = squeezed.adapter.states
    parts = {} if states is None else states.kept_entries(squeezed.network, kept)
    group = state["param_groups"][0]
    old = {name: state["state"].get(number) for number, (name, _) in zip(group["params"], dense)}
    shapes = dict(dense)
    entries: Dict[int, Any] = {}
    parameters = parameters_of(squeezed.root)
    names = [name for name, _ in parameters]
    for number, (name, shape) in enumerate(parameters):
        entry = _cut(old.get(name), shapes.get(name), shape, parts.get(name))
        if entry is not None:
            entries[number] = entry
    new_group = {**group, "params": list(range(len(names)))}
    if "param_names" in group:
        new_group["param_names"] = names
    return Followed({**state, "state": entries, "param_groups": [new_group]}, len(entries), len(names) - len(entries))


def _cut(
    entry: Optional[Mapping[str, Any]],
    before: Optional[torch.Size],
    after: torch.Size,
    part: Optional[Tuple[int, torch.Tensor]],
) -> Optional[Dict[str, Any]]:
    """What one parameter keeps of its moments, None where it keeps nothing."""
    if entry is None or before is None or (part is None and before != after):
        return None
    return {
        key: value.index_select(*part) if part and isinstance(value, torch.Tensor) and value.shape == before else value
        for key, value in entry.items()
    }


def _fits(value: Any, shape: torch.Size) -> bool:
    return not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == shape
