"""Files of torch.save that hold state dicts: a generator's gets a body that can be squeezed, and is a state dict again
when the file is written.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Dict, Mapping, Sequence, TypeVar

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.bodies import PLAN_ENTRY, WHOLE, Site, find_bodies, is_state
from squeeze_patch.checkpoints.inert_values import UnknownName
from squeeze_patch.checkpoints.tensor_files import check_sums, load_tensors, save_tensors, unreadable
from squeeze_patch.errors import TRUST_CURE, CheckpointError


class HoldsMore(CheckpointError):
    """A file of torch.save that is not trusted holds more than tensors and plain values."""


class Archive(Dict[str, Any]):
    """The entries of a file, in its order, with a stand-in (torch.nn.Module) for every state dict of a generator.

    Attributes:
        sites: {name: where its state was} of those stand-ins. A state dict that is a generator gives it its name; one
            that holds generators and more ("GAN" with "GE." and "G.", "state_dict" with "decoder.") becomes "GAN.GE",
            "GAN.G" and "state_dict.decoder", and keeps the rest.
        trusted: whether the user trusts the file that it was read from.
        names: {entry: names of its tensors, in its order} of the state dicts that they were in.
    """

    sites: Mapping[str, Site] = MappingProxyType({})
    trusted: bool = False
    names: Mapping[str, Sequence[str]] = MappingProxyType({})

    def save(self, stream: IO[bytes]) -> None:
        """Write the file as its host would."""
        try:
            save_tensors(self.entries(), stream)
        except RecursionError as error:
            raise CheckpointError("an entry of the file is nested too deep to be written") from error
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise CheckpointError(f"something in the file cannot be written: {error}") from error

    def entries(self) -> Any:
        """What the file holds, with the Plan of its generators as one entry more; a bare state dict has no place for
        it, but its shapes tell."""
        entries: Dict[str, Any] = {name: value for name, value in self.items() if name not in self.sites}
        states: Dict[str, Dict[str, torch.Tensor]] = {}
        for name, site in self.sites.items():
            found = locate(self[name])
            plan = found.surgery.plan_of(found.network)
            if plan is not None:
                entries.setdefault(PLAN_ENTRY, plan)
            rest = self.get(site.entry) if site.entry != name else None
            states.setdefault(site.entry, dict(rest or {})).update(site.within(self[name].state_dict()))
        for entry, state in states.items():
            mixed = entry not in self.sites
            order = [name for name in self.names.get(entry, ()) if name in state] if mixed else []
            entries[entry] = {**{name: state[name] for name in order}, **state}
        in_order = {name: entries[name] for name in self if name in entries}
        return entries.get(WHOLE, {**in_order, **entries})


def read_entries(source: Path, *, trust: bool) -> Dict[str, Any]:
    """The entries of a file of torch.save, all tensors on the CPU; a bare state dict, or a module, is its only entry,
    `WHOLE`.

    Tensors, plain values and argparse.Namespace are read without running code from the file; anything else needs
    ``trust``.

    Raises:
        HoldsMore: the file needs trust.
        CheckpointError: it is damaged, or holds no dict.
    """
    try:
        data = load_tensors(source)
    except UnknownName as error:
        if not trust:
            raise HoldsMore(
                f"{source}: the file holds more than tensors and plain values ({error}), and loading it runs code that "
                f"is stored in it. If you trust where it came from, {TRUST_CURE}"
            ) from error
        data = _load(source)
    except Exception as error:  # whatever a damaged file brings about
        raise unreadable(source, error) from error
    if not isinstance(data, (dict, torch.nn.Module)):
        raise CheckpointError(f"{source}: this file of torch.save holds a {type(data).__name__}, not a dict")
    if is_state(data) or isinstance(data, torch.nn.Module):
        return {WHOLE: data}
    check_names(data, f"{source}: ")
    return data


def check_names(entries: Mapping[Any, Any], where: str) -> None:
    """Raise `CheckpointError` where an entry has the name that here stands for a whole file."""
    if WHOLE in entries:
        raise CheckpointError(f"{where}an entry of the file has no name (''): give it one, and save the file anew")


def read_back(source: Path, archive: Archive) -> Any:
    """What is in a file that was written by `Archive.save`: of one that was trusted, more than tensors."""
    try:
        return load_tensors(source)
    except UnknownName:
        if not archive.trusted:
            raise
        return _load(source)


def read_archive(source: Path, *, trust: bool) -> Archive:
    """`read_entries`, with stand-ins for the generators."""
    archive = archive_of(source, read_entries(source, trust=trust), Archive())
    archive.trusted = trust
    return archive


AnyArchive = TypeVar("AnyArchive", bound=Archive)


def archive_of(source: Path, data: Mapping[str, Any], archive: AnyArchive) -> AnyArchive:
    """``archive`` filled with the entries of a file, and with stand-ins for the generators among them."""
    found = find_bodies(data, f"{source}: ")
    sites, names = {}, {}
    for entry, value in data.items():
        here = {name: body for name, body in found.items() if body.site.entry == entry}
        for name, body in here.items():
            archive[name] = body.body
            sites[name] = body.site
        if here:
            names[str(entry)] = list(value)
            rest = {key: tensor for key, tensor in value.items() if not any(b.site.holds(key) for b in here.values())}
            if entry not in here:
                archive[entry] = rest
            elif rest:
                raise CheckpointError(f"{source}: {entry} holds {next(iter(rest))} beside its generator")
        else:
            archive[entry] = value
    archive.sites, archive.names = sites, names
    return archive


def _load(source: Path) -> Any:
    try:
        check_sums(source)
        return torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code in the file brings about
        raise CheckpointError(f"{source}: the file cannot be loaded: {type(error).__name__}: {error}") from error
