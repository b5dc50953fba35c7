"""Carry a checkpoint's generators from one family of hosts to another that has the same network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters import adapters, entry_roles, locate, reference_name, role_of
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.interchange import CommonState
from squeeze_patch.adapters.located import Located
from squeeze_patch.adapters.roles import Interchange
from squeeze_patch.checkpoints.bodies import PLAN_ENTRY, Site, attach_plan_of_shapes
from squeeze_patch.checkpoints.generators import generators, refuse_diverged
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.checkpoints.pickles import PathLike, host_path
from squeeze_patch.checkpoints.safe_tensors import check_name
from squeeze_patch.checkpoints.same_images import difference_of_images
from squeeze_patch.checkpoints.state_dicts import Archive
from squeeze_patch.checkpoints.stored import HostedFile
from squeeze_patch.checkpoints.targets import check_target
from squeeze_patch.errors import CheckpointError, PlanError, UnsupportedModelError
from squeeze_patch.process_settings import random_kept
from squeeze_patch.surgery.status import status, status_of_part

#: latents behind the mean style of files that store none, as many as stylegan2-pytorch by rosinality takes
LATENTS = 4096
#: entries that are carried over in another form
_CARRIED = ("latent_avg", PLAN_ENTRY)


@dataclass(frozen=True)
class Transfer:
    """What `transfer` did.

    Attributes:
        source, target: the files.
        origin, family: names of the families, from and to.
        generators: names of the source's generators that were carried over.
        left: names of its other entries, which were not.
        state: what the generators are, in words: dense, or squeezed how.
        mean_style: whether the mean style (w_avg) had to be computed, from `LATENTS` latents.
        constructor_hint: how a host builds the generator that the file is loaded into; "" = the file brings it.
    """

    source: Path
    target: Path
    origin: str
    family: str
    generators: Tuple[str, ...]
    left: Tuple[str, ...]
    state: str
    mean_style: bool
    constructor_hint: str


def transfer(
    source: PathLike,
    target: PathLike,
    to: str,
    *,
    trust: bool = False,
    host: Optional[PathLike] = None,
    force: bool = False,
) -> Transfer:
    """Write the generators of ``source``, dense or squeezed, as a checkpoint of another family; images stay the same.

    Discriminators and optimisers are left behind (a pickle gets an untrained discriminator, which its hosts demand).
    The target appears whole or not at all.

    Args:
        source: a host's pickle, or a file of torch.save with state dicts of a known family.
        target: the file to write.
        to: name of the family to carry them to.
        trust: as for `squeeze_patch.convert`.
        host: folder of the host's checkout, where the source needs its modules or the target is made of its classes.
        force: overwrite ``target`` where it exists.

    Raises:
        CheckpointError: the file cannot be read or written, or holds no generator, or one that has diverged.
        PlanError: there is no family of that name.
        UnsupportedModelError: the other family does not have this network, or makes other images of its tensors;
            nothing is written.
    """
    source, target = Path(source), Path(target)
    family, role = _family(to)
    check_target(source, target, force)
    check_name(target, None)
    with host_path(host):
        data = read(source, trust=trust)
        found = generators(data)
        known = {name: role_of(name) for name in found}
        if len(found) == 1:
            known = {name: role or "G_ema" for name, role in known.items()}  # the only one is taken for an average
        found = {name: one for name, one in found.items() if known[name]}
        if not found:
            raise CheckpointError(f"{source}: no generator in this file (looked for {', '.join(entry_roles())})")
        _refuse_rivals(source, found, known)
        refuse_diverged(source, found)
        if _is_there(data, found, family):
            done = _Done(data, found[reference_name(found)].root)
        else:
            done = _carried(source, family, role, {known[name]: one for name, one in found.items()}, data)
        save(done.contents, target, force=force)
    names = data if isinstance(data, dict) and data is not done.contents else {}
    return Transfer(
        source=source,
        target=target,
        origin=found[reference_name(found)].adapter.name,
        family=family.name,
        generators=tuple(found),
        left=tuple(str(name) for name in names if name not in {*found, *_CARRIED} and data[name] is not None),
        state=str(status(done.example)),
        mean_style=done.mean_style,
        constructor_hint=done.constructor_hint,
    )


@dataclass(frozen=True)
class _Done:
    """What is written, one of the generators in it, and what `Transfer` says of it."""

    contents: Any
    example: torch.nn.Module
    mean_style: bool = False
    constructor_hint: str = ""


def _refuse_rivals(source: Path, found: Mapping[str, Located], roles: Mapping[str, str]) -> None:
    """Raise `CheckpointError` where two generators have one role: a file of another family has one of each."""
    first: Dict[str, str] = {}
    for name, one in found.items():
        other = first.setdefault(roles[name], name)
        if found[other].root is not one.root:
            raise CheckpointError(
                f"{source}: {other} and {name} would both be the {roles[name]} of the new file; put the one that is "
                "meant into a file of its own, and carry that over"
            )


def _is_there(data: Any, found: Mapping[str, Located], family: Adapter) -> bool:
    """Whether reading has made the family's own file already, classes, discriminator and all."""
    return isinstance(data, HostedFile) and all(one.adapter.name == family.name for one in found.values())


def _carried(source: Path, family: Adapter, role: Interchange, found: Mapping[str, Located], data: Any) -> _Done:
    """``found``: {role: generator of the source}."""
    states, computed = _common(found, data)
    made = {entry: _made(role, state, found[entry]) for entry, state in states.items()}
    for entry, G in found.items():
        _prove(f"{source}: {entry}", G, locate(made[entry]), states[entry])
    example, state = next(iter(made.values())), next(iter(states.values()))
    w_avg = states.get("G_ema", state)["w_avg"]
    contents = _file(family, role.make_checkpoint(made, w_avg))
    return _Done(contents, example, computed, role.constructor_hint(state))


def _prove(where: str, G: Located, made: Located, state: CommonState) -> None:
    """Raise `UnsupportedModelError` where ``made``, of the tensors ``state``, makes other images than ``G``."""
    stored = {name.rpartition(".")[0] for name in state if name.endswith(".noise")}
    noisy = {name.rpartition(".")[0] for name in state if name.endswith(".noise_strength")}
    wrong = difference_of_images(G, made, "const" if noisy <= stored else "none")
    if wrong:
        raise UnsupportedModelError(
            f"{where} computes something else than its tensors make in the family {made.adapter.name}: {wrong}. "
            "Settings that are not StyleGAN2's (gains, clamps, activations, filters) cannot be carried; keep the file"
        )


def _family(name: str) -> Tuple[Adapter, Interchange]:
    known = {adapter.name: adapter for adapter in adapters()}
    if name not in known:
        raise PlanError(f"there is no family {name!r}; there are {', '.join(known)}")
    role = known[name].interchange
    if role is None:
        raise UnsupportedModelError(f"generators of another family cannot be carried to the family {name}")
    return known[name], role


def _common(found: Mapping[str, Located], data: Any) -> Tuple[Dict[str, Dict[str, torch.Tensor]], bool]:
    """{role: tensors under common names, w_avg among them}, and whether w_avg had to be computed."""
    states, computed = {}, False
    stored = data.get("latent_avg") if isinstance(data, dict) else None
    for name, G in found.items():
        state = G.interchange.to_common(G.root, G.network)
        if state["const"].shape[1:] != (4, 4):
            height, width = state["const"].shape[1:]
            raise UnsupportedModelError(
                f"{name} begins with features of {height}x{width}, and other families' generators with 4x4: its images "
                "cannot be made there. Squeeze it within its own family (leave --to out)"
            )
        if "w_avg" not in state and isinstance(stored, torch.Tensor):
            state["w_avg"] = stored.detach().float().reshape(-1)
        if "w_avg" not in state:
            state["w_avg"], computed = G.sample_w(LATENTS, seed=0).mean(dim=0), True
        states[name] = state
    return states, computed


def _made(role: Interchange, state: Mapping[str, torch.Tensor], source: Located) -> torch.nn.Module:
    """A generator of the other family, with the Plan of ``source`` on it where that is squeezed."""
    with random_kept():
        G = role.from_common(state)
    made = locate(G)
    plan, names = status_of_part(source).plan, {a.name: b.name for a, b in zip(source.specs, made.specs)}
    if plan is not None:
        blocks = tuple(replace(block, name=names[block.name]) for block in plan.blocks if block.name in names)
        plan = replace(plan, family=made.adapter.name, blocks=blocks)
    attach_plan_of_shapes(made, stored=plan)
    return G


def _file(family: Adapter, made: Dict[str, Any]) -> Any:
    if family.pickles is not None:
        return made
    archive = Archive(made)
    archive.sites = {name: Site(name, {"": ""}) for name, value in made.items() if isinstance(value, torch.nn.Module)}
    return archive
