"""Generators whose states are in state dicts: where they are, and bodies that stand in for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters import adapters, locate
from squeeze_patch.adapters.located import Located, described
from squeeze_patch.adapters.roles import StateDicts
from squeeze_patch.errors import CheckpointError, PlanError, UnsupportedModelError
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.shapes import dense_of, dense_parameters, fits, plan_of_blocks, shapes_of

#: entry of a file that holds the Plan, as a plain dict
PLAN_ENTRY = "squeeze_plan"
#: name of the one entry of a file that is a bare state dict, or a whole module
WHOLE = ""
#: how many names deep generators are looked for in a state dict
DEPTH = 4
#: kinds of numbers that a generator may consist of
FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
#: what a state dict may hold: generators, and tensors of one (the largest official one has 230)
MOST_GENERATORS, MOST = 64, 4096


@dataclass(frozen=True)
class Site:
    """Where a generator's state is in a file of torch.save.

    Attributes:
        entry: name of the state dict in the file, `WHOLE` where it is the file.
        prefixes: {prefix of names in the generator's own state: in that state dict}.
    """

    entry: str
    prefixes: Mapping[str, str]

    def state(self, entry: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """The generator's own state, out of its entry."""
        return _renamed(entry, {outer: inner for inner, outer in self.prefixes.items()})

    def within(self, state: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Its own state under the names that it has in its entry."""
        return _renamed(state, self.prefixes)

    def holds(self, name: str) -> bool:
        """Whether a tensor of its entry is the generator's."""
        return name.startswith(tuple(self.prefixes.values()))


@dataclass(frozen=True)
class Body:
    """A stand-in for a generator in a file, and where its state is."""

    body: torch.nn.Module
    site: Site


def find_bodies(data: Mapping[Any, Any], where: str) -> Dict[str, Body]:
    """{name: stand-in} of all generators whose states are among the entries of a file.

    Args:
        data: as of `read_entries`.
        where: in front of errors.

    Raises:
        UnsupportedModelError: an adapter's, behind ``where``.
    """
    plan = stored_plan(data, where)
    found: Dict[str, Body] = {}
    for entry, value in data.items():
        for part, prefixes in _parts(value, f"{where}{entry}{': ' if entry else ''}").items():
            if not isinstance(entry, str):
                raise CheckpointError(f"{where}a generator stands under the key {entry!r}, which is no word")
            site = Site(str(entry), prefixes)
            name = ".".join(filter(None, (str(entry), part)))
            body = stand_in(site.state(value), plan, f"{where}{name}{': ' if name else ''}")
            if body is None:
                raise CheckpointError(f"{where}{name} is not the generator that its wrapper should hold")
            if name in found or (name in data and name != entry):
                raise CheckpointError(f"{where}two entries are called {name}; rename one of them")
            found[name] = Body(body, site)
    return found


def _parts(value: Any, where: str) -> Dict[str, Mapping[str, str]]:
    """{name within it, "" = it is one: prefixes as of `Site`} of the generators in a state dict."""
    if not is_state(value):
        return {}
    for states in _roles():
        parts = states.parts_of_state(value)
        if parts:
            return dict(parts)
    if _is_generator(value):
        return {"": {"": ""}}
    prefixes: List[str] = []
    for prefix, state in _below(value).items():
        if _is_generator(state) and not prefix.startswith(tuple(prefixes)):
            prefixes.append(prefix)
            if len(prefixes) > MOST_GENERATORS:
                raise CheckpointError(f"{where}it holds more generators than any file that is known")
    _refuse_readers(value, prefixes, where)
    if len(prefixes) == 1 and all(name.startswith(prefixes[0]) for name in value):
        return {"": {"": prefixes[0]}}  # as of a parallel wrapper
    return {prefix[:-1]: {"": prefix} for prefix in prefixes}


def _below(state: Mapping[str, torch.Tensor]) -> Dict[str, Dict[str, torch.Tensor]]:
    """{what names begin with, up to and with a dot: what stands behind}, the shortest first."""
    found: Dict[str, Dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        parts = name.split(".", DEPTH)
        for depth in range(1, min(len(parts), DEPTH + 1)):
            found.setdefault(".".join(parts[:depth]) + ".", {})[".".join(parts[depth:])] = tensor
    return dict(sorted(found.items(), key=lambda item: item[0].count(".")))


def _is_generator(state: Mapping[str, torch.Tensor]) -> bool:
    return any(states.is_of_family(state) for states in _roles())


def has_generator(value: Any) -> bool:
    """Whether ``value`` is a state dict that is a generator's, or holds one."""
    if not is_state(value):
        return False
    whole = any(states.parts_of_state(value) for states in _roles()) or _is_generator(value)
    return whole or any(map(_is_generator, _below(value).values()))


def _refuse_readers(state: Mapping[str, torch.Tensor], prefixes: Sequence[str], where: str) -> None:
    """`UnsupportedModelError` where a network beside a generator is known to read what squeezing takes away."""
    for prefix in prefixes:
        reason = next(filter(None, (states.refuse_part(state, prefix) for states in _roles())), None)
        if reason:
            raise UnsupportedModelError(f"{where}{reason}")


def stored_plan(data: Mapping[Any, Any], where: str = "") -> Optional[Plan]:
    """The Plan in a file's entries, None where there is none.

    Raises:
        CheckpointError: there is something else in its place.
    """
    if PLAN_ENTRY not in data:
        return None
    try:
        return Plan.from_dict(data[PLAN_ENTRY])
    except (AttributeError, PlanError) as error:
        raise CheckpointError(f"{where}{PLAN_ENTRY} is no Plan ({error}): the file was changed") from error


def stand_in(value: Any, plan: Optional[Plan] = None, where: str = "") -> Optional[torch.nn.Module]:
    """A body for ``value`` if it is the state dict of a generator of a known family, else None; squeezed with its Plan
    on it where the state is.

    The Plan is ``plan`` where that is what the shapes of ``value`` say, else it is made from them: hosts that go on
    training from a squeezed file store no Plan.

    Raises:
        UnsupportedModelError: an adapter's, behind ``where``.
    """
    if not is_state(value):
        return None
    blocks = None if plan is None else {block.name: block.excite for block in plan.blocks}
    try:
        states = next((states for states in _roles() if states.is_of_family(value)), None)
        if states is None:
            return None
        if len(value) > MOST:
            raise CheckpointError(f"the generator has {len(value):,} tensors: no StyleGAN2 generator has so many")
        body = states.from_state(value, blocks)
        if body is not None:
            _check_tensors(value)
            attach_plan_of_shapes(locate(body), stored=plan)
        return body
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{where}{error}") from error
    except Exception as error:  # shapes and kinds that no generator has
        raise CheckpointError(f"{where}the generator is damaged ({type(error).__name__}: {error})") from error


def _check_tensors(state: Mapping[str, torch.Tensor]) -> None:
    """That a generator's tensors are such as can be computed with."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.dtype not in FLOATING:
            raise CheckpointError(f"the generator is damaged: {name} holds {tensor.dtype}, not floating-point numbers")


def attach_plan_of_shapes(found: Located, stored: Optional[Plan] = None) -> None:
    """Put the Plan onto a generator that is squeezed and has none: ``stored`` where that is what its shapes say."""
    known = plan_from_shapes(found)
    if stored is not None and stored.family == found.adapter.name:
        specs = described(found.surgery.specs(found.network), stored.to_dict())
        known = stored if fits(specs, shapes_of(specs, stored.blocks)) else known
    if known is not None:
        found.surgery.attach_plan(found.root, found.network, known.to_dict())


def is_state(value: Any) -> bool:
    """Whether ``value`` is a state dict."""
    named = isinstance(value, Mapping) and len(value) > 0 and all(isinstance(name, str) for name in value)
    return named and all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def plan_from_shapes(found: Located) -> Optional[Plan]:
    """The Plan that made a squeezed generator, as far as its layers tell; None where it is dense."""
    specs = found.specs
    blocks = tuple(
        BlockPlan(s.name, s.resolution, s.channels, s.width, inner=s.inner, excite=s.excite)
        for s in specs
        if s.width is not None
    )
    after = sum(parameter.numel() for parameter in found.generator.parameters())
    return Plan(found.adapter.name, blocks, dense_parameters(found.generator, specs), after) if blocks else None


def plan_beside(G: Located, body: Located, plan: Plan) -> Plan:
    """The Plan that makes ``G``, dense or squeezed, of the sizes of ``body``: ``plan``, which the body has, as far as
    that is of so many channels. One from shapes alone takes a narrowed block, or a last one with fewer channels inside,
    for a smaller one; beside G's own it shows what it was."""
    dense = [dense_of(spec) for spec in G.specs]
    if [(spec.name, spec.channels) for spec in dense] == [(now.name, now.channels) for now in body.specs]:
        return plan
    blocks: List[BlockPlan] = []
    for spec, now in zip(dense, body.specs):
        width, inner = (now.channels if count is None else count for count in (now.width, now.inner))
        hands_on = spec.channels if now.is_last or not now.is_squeezed else now.channels
        if now.name != spec.name or hands_on != spec.channels or max(width, inner) > spec.channels:
            return plan
        if now.is_squeezed or min(width, inner) < spec.channels:
            blocks.append(
                BlockPlan(spec.name, spec.resolution, spec.channels, width, inner=inner, excite=now.is_squeezed)
            )
    if len(dense) != len(body.specs):
        return plan
    return plan_of_blocks(dense, dense_parameters(G.generator, G.specs), G.adapter.name, blocks)


def _roles() -> List[StateDicts]:
    return [adapter.states for adapter in adapters() if adapter.states is not None]


def _renamed(state: Mapping[str, torch.Tensor], prefixes: Mapping[str, str]) -> Dict[str, torch.Tensor]:
    return {
        new + name[len(old) :]: tensor
        for name, tensor in state.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }
