"""The dense blocks that `apply` keeps for `remove`.

They are kept beside the generators, not on them: deepcopy and pickle of a squeezed generator shall not carry them.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple

import torch

from squeeze_patch.adapters.layers import HOOKS, reference_of
from squeeze_patch.adapters.located import Located, Target
from squeeze_patch.surgery.belongings import outline_of
from squeeze_patch.surgery.fingerprint import Fingerprint
from squeeze_patch.surgery.references import redirect

#: the tables of hooks in a generator's modules, and what was in each
HookTables = List[Tuple[Dict[int, Any], Dict[int, Any]]]


@dataclass(frozen=True)
class Originals:
    """What `remove` needs.

    Attributes:
        blocks: the dense blocks.
        shared: a fingerprint of every parameter that dense and squeezed share.
        outlines: what the squeezed blocks had when they came, to tell what users have put there since.
        generator: that `apply` was called on; others may have the same synthesis network.
    """

    blocks: Dict[str, torch.nn.Module]
    shared: Dict[str, Fingerprint]
    outlines: Dict[str, torch.nn.Module]
    generator: weakref.ref[torch.nn.Module]


#: {synthesis network: its dense blocks}
KEPT: weakref.WeakKeyDictionary[torch.nn.Module, Originals] = weakref.WeakKeyDictionary()


def keep(found: Located, old: Dict[str, torch.nn.Module], new: Mapping[str, torch.nn.Module]) -> None:
    """Keep the blocks ``old`` of a generator that has just got ``new`` in their places."""
    outlines: Dict[str, torch.nn.Module] = {name: outline_of(new[name]) for name in old}
    G = found.generator
    KEPT[found.network] = Originals(old, _shared(G, old, new), outlines, weakref.ref(G))


def forget(target: Target) -> None:
    """Let go of the dense blocks; `remove` can no longer put them back."""
    for part in target.parts:
        KEPT.pop(part.network, None)


def put_back(found: Located) -> None:
    """The dense blocks into their places, where they are at hand."""
    originals = KEPT.get(found.network)
    if originals is None:
        return
    squeezed = {name: found.get_block(name) for name in originals.blocks}
    for name, old in originals.blocks.items():
        _follow(old, squeezed[name])
    for name, old in originals.blocks.items():
        found.set_block(name, old)
    redirect(found.root, squeezed, originals.blocks)
    found.surgery.detach_plan(found.root, found.network)
    del KEPT[found.network]


class TrainedParameters:
    """The parameters of a target's generators as they are now, for `refresh`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.parameters = self._now()

    def refresh(self) -> None:
        """Have the optimiser of a training wrapper know what has come and gone since."""
        if self.target.wrapper is not None:
            now = self._now()
            gone = [parameter for key, parameter in self.parameters.items() if key not in now]
            self.target.wrapper.refresh_optimiser(self.target.root, gone)

    def _now(self) -> Dict[int, torch.nn.Parameter]:
        return {id(parameter): parameter for part in self.target.parts for parameter in part.generator.parameters()}


@dataclass(frozen=True)
class Squeezed:
    """A squeezed generator whose dense blocks are at hand, as it is before `put_back`."""

    found: Located
    originals: Originals
    blocks: Dict[str, torch.nn.Module]
    plan: Dict[str, Any]

    @classmethod
    def of(cls, found: Located) -> Squeezed:
        originals, plan = KEPT[found.network], found.surgery.plan_of(found.network)
        return cls(found, originals, {name: found.get_block(name) for name in originals.blocks}, plan or {})

    def restore(self) -> None:
        """The generator as it was then, however far `put_back` had come."""
        found, surgery = self.found, self.found.surgery
        for name, block in self.blocks.items():
            found.set_block(name, block)
        redirect(found.root, self.originals.blocks, self.blocks)
        if surgery.plan_of(found.network) is not None:  # detached in part, perhaps
            surgery.detach_plan(found.root, found.network)
        surgery.attach_plan(found.root, found.network, self.plan)
        KEPT[found.network] = self.originals


def hooks_of(root: torch.nn.Module) -> HookTables:
    """What is registered in a generator now, for `put_back_hooks`."""
    tables = (vars(module).get(name) for module in root.modules() for name in HOOKS)
    return [(table, dict(table)) for table in tables if isinstance(table, dict)]


def put_back_hooks(hooks: HookTables) -> None:
    """Where a proof or a start was broken off, which take hooks away, or add some, for as long as they run."""
    for table, before in hooks:
        if list(table.items()) != list(before.items()):
            table.clear()
            table.update(before)


def undo(
    found: Located, old: Mapping[str, torch.nn.Module], new: Mapping[str, torch.nn.Module], hooks: HookTables
) -> None:
    """The generator as it was before ``old`` gave way to ``new``, however far that had come; ``hooks`` as of
    `hooks_of`."""
    KEPT.pop(found.network, None)
    for name, block in old.items():
        found.set_block(name, block)
    redirect(found.root, new, {name: old[name] for name in new})
    if found.surgery.plan_of(found.network) is not None:
        found.surgery.detach_plan(found.root, found.network)
    put_back_hooks(hooks)


def _shared(
    G: torch.nn.Module, old_blocks: Mapping[str, torch.nn.Module], new_blocks: Mapping[str, torch.nn.Module]
) -> Dict[str, Fingerprint]:
    """Fingerprints of the parameters of squeezed ``G`` that the dense generator has too, as the same objects."""
    old, new = ({id(p) for block in blocks.values() for p in block.parameters()} for blocks in (old_blocks, new_blocks))
    return {name: Fingerprint.of(p) for name, p in G.named_parameters() if id(p) in old or id(p) not in new}


def same_modes(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Give every layer of ``other`` the mode, training or evaluation, that it has in ``one``, or else that of the
    whole: users set it on single layers, too."""
    modes = {path: module.training for path, module in one.named_modules()}
    for path, module in other.named_modules():
        module.training = modes.get(path, one.training)


def _follow(old: torch.nn.Module, new: torch.nn.Module) -> None:
    """Bring a dense block that was set aside to where the generator is by now: device, dtype, training, frozen."""
    reference = reference_of(new)
    old.to(device=reference.device, dtype=reference.dtype)
    same_modes(new, old)
    if old._backward_hooks is new._backward_hooks:  # hooks of the user's, of whichever kind they are by now
        old._is_full_backward_hook = new._is_full_backward_hook
    flags = {name: parameter.requires_grad for name, parameter in new.named_parameters()}
    for name, parameter in old.named_parameters():
        if flags.get(name, parameter.requires_grad) != parameter.requires_grad:  # torch forbids it to inference tensors
            parameter.requires_grad_(flags[name])
