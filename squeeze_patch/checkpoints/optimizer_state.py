"""Optimiser states in checkpoint files: the moments of what a squeezed generator keeps.

torch.optim stores moments under numbers, which count the parameters in the generator's order, group by group. A
parameter of which squeezing keeps some channels keeps their moments. One that is new has none, so that the optimiser
starts it as on the first day, bias correction included.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import Kept
from squeeze_patch.adapters.located import Located

#: (name, parameter) of a generator's, in its order
Parameters = List[Tuple[str, torch.nn.Parameter]]
#: what is said of an optimiser that stays as it was beside a squeezed generator
NOT_FOLLOWED = (
    "it has moments of the dense generator's parameters in an order that is not the generator's, or lies inside of "
    "something else; they stay dense and do not fit the squeezed one: begin with a new optimiser"
)


@dataclass(frozen=True)
class Followed:
    """An optimiser's state behind the squeeze: how many parameters go on with their moments, how many start anew."""

    state: Dict[str, Any]
    kept: int
    new: int

    def __str__(self) -> str:
        return f"the moments of {self.kept} parameters follow the kept channels, {self.new} parameters start without"


def parameters_of(G: torch.nn.Module) -> Parameters:
    return list(G.named_parameters())


def optimises(state: Any, parameters: Parameters) -> bool:
    """Whether ``state`` is the state dict of an optimiser whose groups, one behind the other, are exactly these
    parameters, by number and shape."""
    if not _is_optimiser(state):
        return False
    numbers = _numbers(state)
    if len(numbers) != len(parameters) or not _named_so(state, parameters):
        return False
    shapes = dict(zip(numbers, (parameter.shape for _, parameter in parameters)))
    return len(shapes) == len(parameters) and all(
        number in shapes and all(_fits(value, shapes[number]) for value in entry.values())
        for number, entry in state["state"].items()
    )


def _is_optimiser(value: Any) -> bool:
    """Whether a value is made as state dicts of torch.optim are."""
    if not (isinstance(value, dict) and {"state", "param_groups"} <= set(value)):
        return False
    entries, groups = value["state"], value["param_groups"]
    good = isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values())
    good = good and isinstance(groups, list) and len(groups) > 0 and all(isinstance(group, dict) for group in groups)
    return good and all(
        isinstance(group.get("params"), list) and all(isinstance(number, int) for number in group["params"])
        for group in groups
    )


def _named_so(state: Mapping[str, Any], parameters: Parameters) -> bool:
    """Whether the names that optimisers of named parameters store, perhaps longer, are in the generator's order."""
    names = [name for group in state["param_groups"] for name in group.get("param_names") or group["params"]]
    return all(not isinstance(name, str) or f".{name}".endswith(f".{own}") for name, (own, _) in zip(names, parameters))


def _numbers(state: Mapping[str, Any]) -> List[int]:
    return [number for group in state["param_groups"] for number in group["params"]]


def _optimisers_in(value: Any, depth: int = 3) -> Iterator[Any]:
    """State dicts of optimisers among a value and what it holds."""
    if _is_optimiser(value):
        yield value
    elif depth and isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _optimisers_in(item, depth - 1)


def _is_of(state: Mapping[str, Any], dense: Parameters, squeezed: Parameters) -> bool:
    """Whether an optimiser has moments of most of the dense generator's parameters, in whatever order, some of shapes
    that squeezing takes away."""
    tensors = (
        [v for v in entry.values() if isinstance(v, torch.Tensor) and v.ndim] for entry in state["state"].values()
    )
    moments = Counter(found[0].shape for found in tensors if found)
    before, after = (Counter(parameter.shape for _, parameter in each) for each in (dense, squeezed))
    return sum(moments.values()) > len(dense) // 2 and not moments - before and bool(moments & (before - after))


def follow_all(
    data: Any,
    found: Mapping[str, Located],
    dense: Mapping[str, Parameters],
    kept: Mapping[str, Mapping[str, Kept]],
) -> Dict[str, str]:
    """Bring the states of the generators' optimisers along, in the entries ``data`` of a checkpoint.

    Args:
        data: entries of a file; anything but a dict holds none.
        found: {generator: what was squeezed}.
        dense: {generator: its parameters while dense}.
        kept: {generator: {block: channels kept}}.

    Returns:
        {entry: what became of it, in words}; also of one that is a generator's and cannot be followed.
    """
    done = {}
    for name, value in list(data.items()) if isinstance(data, dict) else []:
        owner = next((G for G, parameters in dense.items() if optimises(value, parameters)), None)
        if owner is not None:
            followed = follow(value, dense[owner], found[owner], kept[owner])
            data[name] = followed.state
            done[str(name)] = str(followed)
        elif any(
            _is_of(state, parameters, parameters_of(found[G].root))
            for state in _optimisers_in(value)
            for G, parameters in dense.items()
        ):
            done[str(name)] = NOT_FOLLOWED
    return done


def follow(state: Mapping[str, Any], dense: Parameters, squeezed: Located, kept: Mapping[str, Kept]) -> Followed:
    """The optimiser state for ``squeezed``.

    Args:
        state: of the dense generator; `optimises` holds.
        dense: parameters of the dense generator.
        squeezed: what became of it.
        kept: {block name: channels kept}, empty where its layers were drawn anew: moments are then of those parameters
            alone that are the dense generator's own.
    """
    states = squeezed.adapter.states
    parts = {} if states is None else states.kept_entries(squeezed.network, kept)
    old = {name: state["state"].get(number) for number, (name, _) in zip(_numbers(state), dense)}
    before = dict(dense)
    entries: Dict[int, Any] = {}
    parameters = parameters_of(squeezed.root)
    names = [name for name, _ in parameters]
    for number, (name, parameter) in enumerate(parameters):
        was = before.get(name)
        if was is not None and (kept or was is parameter):
            entry = _cut(old.get(name), was.shape, parameter.shape, parts.get(name))
            entries.update({} if entry is None else {number: entry})
    groups = _groups(state["param_groups"], [name for name, _ in dense], names)
    return Followed({**state, "state": entries, "param_groups": groups}, len(entries), len(names) - len(entries))


def _groups(groups: List[Dict[str, Any]], dense: List[str], names: List[str]) -> List[Dict[str, Any]]:
    """The groups over the parameters ``names``, of which new ones go with what stands before them."""
    places = [place for place, group in enumerate(groups) for _ in group["params"]]
    known = dict(zip(dense, places))
    members: List[List[int]] = [[] for _ in groups]
    place = places[0]
    for number, name in enumerate(names):
        place = known.get(name, place)
        members[place].append(number)
    made = [{**group, "params": numbers} for group, numbers in zip(groups, members)]
    return [
        {**group, "param_names": [names[number] for number in group["params"]]} if "param_names" in group else group
        for group in made
    ]


def _cut(
    entry: Optional[Mapping[str, Any]],
    before: torch.Size,
    after: torch.Size,
    parts: Optional[Sequence[Tuple[int, torch.Tensor]]],
) -> Optional[Dict[str, Any]]:
    """What one parameter keeps of its moments, None where it keeps nothing."""
    if entry is None or (not parts and before != after):
        return None
    cut = dict(entry)
    for key, value in entry.items():
        if isinstance(value, torch.Tensor) and value.shape == before:
            for dim, indices in parts or ():
                cut[key] = cut[key].index_select(dim, indices)
    return cut


def _fits(value: Any, shape: torch.Size) -> bool:
    return not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == shape
