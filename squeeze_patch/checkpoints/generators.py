"""The generators in a checkpoint file: all of them, those to squeeze, the one to run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters import entry_roles, locate, reference_name, role_of, unsupported_reason
from squeeze_patch.adapters.located import Located
from squeeze_patch.adapters.records import count_parameters, is_module
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.nested import where_nested
from squeeze_patch.checkpoints.pickles import PathLike, host_path
from squeeze_patch.errors import CheckpointError, SqueezeError, StateError, UnsupportedModelError, listed
from squeeze_patch.planning.plans import Plan
from squeeze_patch.surgery.status import Status, status, status_of_part


def entries(data: Any) -> Iterator[Tuple[str, Any]]:
    """(name, value) of everything in a loaded checkpoint; the name of a file's only value is ''."""
    yield from ((str(name), value) for name, value in data.items()) if isinstance(data, dict) else [("", data)]


def generators(data: Any) -> Dict[str, Located]:
    """{name: what was found} of everything in a loaded checkpoint that is, or holds, a generator."""
    found = {}
    for name, value in entries(data):
        if isinstance(value, torch.nn.Module):
            with contextlib.suppress(UnsupportedModelError):
                found[name] = locate(value)
    return found


@dataclass(frozen=True)
class Entry:
    """One network of a file: its class, its parameters, its `Status` if it is a generator that can be squeezed, else
    the adapter's reason why it cannot ('' = it is no generator); ``same_as``: an earlier name of the same object."""

    class_name: str
    parameters: int
    status: Optional[Status]
    reason: str
    same_as: str = ""


def inspect(source: PathLike, *, trust: bool, host: Optional[PathLike] = None) -> Dict[str, Entry]:
    """{name: Entry} of every network in a file.

    Raises:
        CheckpointError: as for `checkpoints.io.read`.
    """
    with host_path(host):
        data = read(source, trust=trust)
        found = generators(data)
        result = {}
        names: Dict[int, str] = {}
        for name, value in entries(data):
            if isinstance(value, torch.nn.Module):
                first = names.setdefault(id(value), name)
                parameters = sum(parameter.numel() for parameter in value.parameters())
                now = status_of_part(found[name]) if name in found else None
                reason = "" if now else unsupported_reason(value)
                same_as = first if first != name else ""
                result[name] = Entry(type(value).__name__, parameters, now, reason, same_as)
            elif is_module(value):
                result[name] = Entry(value.class_name, count_parameters(value), None, "")
        return result


def dense_generators(source: Path, data: Any) -> Dict[str, Located]:
    """The generators of a loaded checkpoint, each object once.

    Raises:
        CheckpointError, UnsupportedModelError: there is none; the adapter's reason where there is one.
        StateError: one is squeezed already.
    """
    found = generators(data)
    if not found:
        raise no_generator(str(source), data)
    for name, one in found.items():
        now = status_of_part(one)
        if now.state != "dense":
            raise StateError(f"{source}: {name or 'the generator'} is squeezed already ({now}); convert a dense file")
    return {name: one for name, one in found.items() if name == _first_name(found, one)}


def no_generator(source: str, data: Any) -> SqueezeError:
    """The error of a file without a generator that can be squeezed: the adapter's reason where there is one."""
    for _, value in entries(data):
        if isinstance(value, torch.nn.Module) and unsupported_reason(value):
            return UnsupportedModelError(f"{source}: {unsupported_reason(value)}")
    seen = listed(f"{name or 'file'}: {type(value).__name__}" for name, value in entries(data))
    return CheckpointError(
        f"{source}: no generator in this file that can be squeezed (it holds {seen}){where_nested(data)}"
    )


def refuse_diverged(source: Path, found: Mapping[str, Located]) -> None:
    """Raise `CheckpointError` where a generator holds what is not finite: none such is written."""
    for name, G in found.items():
        broken = G.not_finite()
        if broken:
            where = ".".join(filter(None, (name, broken)))
            raise CheckpointError(f"{source}: {where} holds values that are not finite: this generator has diverged")


def _first_name(found: Mapping[str, Located], one: Located) -> str:
    """One object may stand under several names; the reference's name goes first."""
    return reference_name([name for name, other in found.items() if other.root is one.root])


def load_generator(source: PathLike, key: Optional[str] = None, *, trust: bool) -> Any:
    """The network stored under ``key`` in a file, or the file's only one where it is no dict.

    ``key`` names an entry, also but for capitals, or what it is: "G" and "G_ema" are "params" and "params_ema" in
    basicsr's files. None = the moving average, or the only generator. Of a state dict, the network is a stand-in that
    makes the same images.

    Returns:
        The network on the CPU, in evaluation mode, without gradients.

    Raises:
        CheckpointError: as for `checkpoints.io.read`, or no network has that name; the message lists those there are.
    """
    data = read(source, trust=trust)
    found = data
    if isinstance(data, dict):
        networks = {str(name): value for name, value in data.items() if isinstance(value, torch.nn.Module)}
        name = _entry(list(networks), key)
        if name is None:
            what = "generator of a usual name" if key is None else f"network {key}"
            has = f"it has {listed(networks)}; choose one with --key" if networks else "it has no networks"
            raise CheckpointError(f"{source}: there is no {what} in this file; {has}")
        found = networks[name]
    if not isinstance(found, torch.nn.Module):
        raise CheckpointError(f"{source}: there is no network in this file; it holds a {type(found).__name__}")
    return found.eval().requires_grad_(False)


def _entry(names: Sequence[str], key: Optional[str]) -> Optional[str]:
    """The one of a file's networks that ``key`` means, None where it means none."""
    known = entry_roles()
    if key is None:
        usual = [name for name in names if role_of(name)] or (list(names) if len(names) == 1 else [])
        return reference_name(usual) if usual else None
    alike = [name for name in names if name.lower() == key.lower()]
    same_role = [name for name in names if key in known and role_of(name) == known[key]]
    return next((name for name in (key, *alike, *same_role) if name in names), None)


def plan_in_file(source: PathLike, *, trust: bool) -> Plan:
    """The Plan of the squeezed generator in a file; of several, the moving average's.

    Raises:
        CheckpointError: as for `checkpoints.io.read`, or there is no squeezed generator in it.
    """
    found = generators(read(source, trust=trust))
    plans = {name: now.plan for name, one in found.items() for now in [status_of_part(one)] if now.state == "squeezed"}
    if not plans:
        raise CheckpointError(f"{source}: no squeezed generator in this file to be like")
    plan = plans[reference_name(plans)]
    assert plan is not None
    return plan


def describe(G: torch.nn.Module) -> str:
    """One line: dense or squeezed, and parameters; the class where no adapter knows the generator."""
    try:
        return str(status(G))
    except UnsupportedModelError:
        return f"{type(G).__name__}: {sum(parameter.numel() for parameter in G.parameters()):,} parameters"
