"""Files of torch.save that hold state dicts: a generator's gets a body that can be squeezed, and is a state dict again
when the file is written.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Dict, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters import adapters, locate
from squeeze_patch.adapters.located import Located
from squeeze_patch.adapters.roles import StateDicts
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.errors import CheckpointError, UnsupportedModelError
from squeeze_patch.planning.plans import BlockPlan, Plan
from squeeze_patch.planning.solver import dense_parameters

#: entry of a file that holds the Plan, as a plain dict
PLAN_ENTRY = "squeeze_plan"
#: name of the one entry of a file that is a bare state dict
WHOLE = ""
#: what a file of torch.save begins with: a zip archive, or since before torch 1.6 a pickled magic number
_MAGIC = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")


class Archive(Dict[str, Any]):
    """The entries of a file, in its order, with a stand-in (torch.nn.Module) for every state dict of a generator.

    Attributes:
        states: names of the entries that were state dicts of generators, or parts of one: the state dict of a training
            wrapper "GAN" becomes "GAN.GE" and "GAN.G", and keeps the rest.
        parts: {name: (the wrapper's, {prefix of names in the generator's state: in the wrapper's})} of those.
    """

    states: Tuple[str, ...] = ()
    parts: Mapping[str, Tuple[str, Mapping[str, str]]] = MappingProxyType({})

    def save(self, stream: IO[bytes]) -> None:
        """Write the file as its host would, with the Plan of its generators as one entry more; a bare state dict has no
        place for it, but its shapes tell."""
        entries: Dict[str, Any] = dict(self)
        for name in self.states:
            found = locate(self[name])
            plan = found.surgery.plan_of(found.network)
            if plan is not None:
                entries.setdefault(PLAN_ENTRY, plan)
            state = self[name].state_dict()
            if name not in self.parts:
                entries[name] = state
                continue
            wrapper, prefixes = self.parts[name]
            del entries[name]
            entries[wrapper] = {**entries[wrapper], **_renamed(state, prefixes)}
        torch.save(entries.get(WHOLE, entries), stream)


def is_archive(source: Path) -> bool:
    """Whether torch.save wrote the file, rather than a host's pickle."""
    with open(source, "rb") as stream:
        return stream.read(32).startswith(_MAGIC)


def read_entries(source: Path, *, trust: bool) -> Dict[str, Any]:
    """The entries of a file of torch.save, all tensors on the CPU; a bare state dict is its only entry, `WHOLE`.

    Tensors, plain values and argparse.Namespace are read without running code from the file; anything else needs
    ``trust``.

    Raises:
        CheckpointError: the file is damaged, holds no dict, or needs trust.
    """
    try:
        data = load_tensors(source)
    except pickle.UnpicklingError as error:
        if not trust:
            raise CheckpointError(
                f"{source}: the file holds more than tensors and plain values, and loading it runs code that is stored "
                "in it. If you trust where it came from, say so with --trust (in Python: trust=True)"
            ) from error
        data = _load(source)
    except Exception as error:
        raise CheckpointError(f"{source}: no readable file of torch.save ({error}); is it complete?") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{source}: this file of torch.save holds a {type(data).__name__}, not a dict")
    return {WHOLE: data} if is_state(data) else data


def read_archive(source: Path, *, trust: bool) -> Archive:
    """`read_entries`, with stand-ins for the generators."""
    data = read_entries(source, trust=trust)
    plan = stored_plan(data)
    archive = Archive()
    states, parts = [], {}
    for name, value in data.items():
        found = {} if name == WHOLE else parts_of_state(value)
        for part, prefixes in found.items():
            body = stand_in(state_of_part(value, prefixes), plan, f"{source}: {name}.{part}: ")
            if body is None:
                raise CheckpointError(f"{source}: {name}.{part} is not the generator that its wrapper should hold")
            archive[f"{name}.{part}"] = body
            parts[f"{name}.{part}"] = (str(name), prefixes)
            states.append(f"{name}.{part}")
        if found:
            taken = tuple(outer for prefixes in found.values() for outer in prefixes.values())
            archive[name] = {key: tensor for key, tensor in value.items() if not key.startswith(taken)}
            continue
        body = stand_in(value, plan, f"{source}: {name}: " if name else f"{source}: ")
        archive[name] = value if body is None else body
        states += [] if body is None else [str(name)]
    archive.states, archive.parts = tuple(states), parts
    return archive


def parts_of_state(value: Any) -> Dict[str, Dict[str, str]]:
    """The generators in ``value``, if it is a training wrapper's state dict; see the adapters' contract."""
    if not is_state(value):
        return {}
    return next((parts for states in _roles() for parts in [states.parts_of_state(value)] if parts), {})


def state_of_part(state: Mapping[str, torch.Tensor], prefixes: Mapping[str, str]) -> Dict[str, torch.Tensor]:
    """A generator's state out of its wrapper's."""
    return _renamed(state, {outer: inner for inner, outer in prefixes.items()})


def _renamed(state: Mapping[str, torch.Tensor], prefixes: Mapping[str, str]) -> Dict[str, torch.Tensor]:
    return {
        new + name[len(old) :]: tensor
        for name, tensor in state.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }


def stored_plan(data: Mapping[Any, Any]) -> Optional[Plan]:
    """The Plan in a file's entries, None where there is none."""
    plan = data.get(PLAN_ENTRY)
    return Plan.from_dict(plan) if isinstance(plan, dict) else None


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
    squeezed = None if plan is None else [block.name for block in plan.blocks]
    for states in _roles():
        try:
            body = states.from_state(value, squeezed)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{where}{error}") from error
        if body is not None:
            attach_plan_of_shapes(locate(body), stored=plan)
            return body
    return None


def attach_plan_of_shapes(found: Located, stored: Optional[Plan] = None) -> None:
    """Put the Plan onto a generator that is squeezed and has none: ``stored`` where that is what its shapes say."""
    plan = plan_from_shapes(found)
    if plan is not None:
        known = stored if stored is not None and stored.same_widths(plan) else plan
        found.surgery.attach_plan(found.root, found.network, known.to_dict())


def is_state(value: Any) -> bool:
    """Whether ``value`` is a state dict."""
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(v, torch.Tensor) for v in value.values())


def plan_from_shapes(found: Located) -> Optional[Plan]:
    """The Plan that made a squeezed generator, as far as its layers tell; None where it is dense."""
    specs = found.specs
    blocks = tuple(BlockPlan(s.name, s.resolution, s.channels, s.width) for s in specs if s.width is not None)
    after = sum(parameter.numel() for parameter in found.generator.parameters())
    return Plan(found.adapter.name, blocks, dense_parameters(found.generator, specs), after) if blocks else None


def _roles() -> List[StateDicts]:
    return [adapter.states for adapter in adapters() if adapter.states is not None]


def _load(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code in the file brings about
        raise CheckpointError(f"{source}: the file cannot be loaded: {type(error).__name__}: {error}") from error
