"""The contract between the method, which knows no host, and an adapter, which knows one family of hosts.

An `Adapter` is a name and an object for each role that the family can play. Only `Surgery` is required: apply, remove,
status and plan need no other. Roles are stateless. In all of them ``root`` is the module that the user passed, and
``network`` the module inside it that holds the blocks (the hosts' SynthesisNetwork). docs/adding-a-family.md walks
through them; `squeeze_patch.testing.AdapterContract` tests them.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional

import torch

from squeeze_patch.adapters.content import BlockShape, BlockSpec, DenseBlock, SqueezedStart
from squeeze_patch.adapters.roles import Fusing, Interchange, Pickles, Running, Scripts, StateDicts, TrainingWrapper
from squeeze_patch.errors import UnsupportedModelError

Module = torch.nn.Module


class Surgery(abc.ABC):
    """Where the blocks are, what they hold, and how one is replaced.

    Attributes:
        bookkeeping: names of attributes by which the host remembers how a module was made; every module has its own.
        takes_labels: whether `sample_w` goes by `squeeze_patch.conditioning.drawn_labels`; else `squeeze_patch.labels`
            are refused.
    """

    bookkeeping: Collection[str] = ()
    takes_labels: bool = False

    @abc.abstractmethod
    def find(self, root: Module) -> List[Module]:
        """All networks of this family inside ``root``, dense or squeezed, by class name and by structure."""

    @abc.abstractmethod
    def refuse(self, root: Module) -> Optional[str]:
        """Why something in ``root`` looks like this family but cannot be squeezed (one sentence), or None."""

    def generator(self, root: Module, network: Module) -> Module:
        """The module in ``root`` that is the generator, mapping and synthesis and no more: its parameters count. Here
        ``root`` itself."""
        return root

    @abc.abstractmethod
    def specs(self, network: Module) -> List[BlockSpec]:
        """The blocks in the order in which they run, of the sizes that they have now: ``in_channels`` and ``channels``
        are what comes in and goes out, ``width`` tells squeezed blocks. Narrowed ones are told by the Plan
        (`located.described`)."""

    @abc.abstractmethod
    def dense_block(self, network: Module, name: str) -> DenseBlock:
        """Trained content of a dense block; `UnsupportedModelError` where a `DenseBlock` cannot describe it."""

    @abc.abstractmethod
    def sample_w(self, root: Module, network: Module, n: int, seed: int) -> torch.Tensor:
        """Style vectors [n, w_dim], float32, on the CPU, of ``n`` random latents; changes nothing in ``root``."""

    @abc.abstractmethod
    def build(self, network: Module, name: str, shape: BlockShape) -> Module:
        """A squeezed or narrowed block with fresh random layers for the dense block ``name``; ``network`` stays as it
        is. `UnsupportedModelError` where the family has no blocks of such a shape."""

    @abc.abstractmethod
    def check_replaceable(self, block: Module, name: str) -> None:
        """Raise `StateError` where something of the user's hangs on layers that go when ``block`` is replaced."""

    @abc.abstractmethod
    def load_start(self, new: Module, dense: Module, start: SqueezedStart) -> None:
        """Write a trained start into a block made by `build` from ``dense``."""

    @abc.abstractmethod
    def get_block(self, network: Module, name: str) -> Module:
        """The block of that name, dense or squeezed."""

    @abc.abstractmethod
    def set_block(self, network: Module, name: str, block: Module) -> None:
        """Put ``block`` in the place of the block of that name, at the same position among its siblings."""

    def attach_plan(self, root: Module, network: Any, plan: Mapping[str, Any]) -> None:
        """Make the Plan travel with the generator through deepcopy and pickle."""
        network.squeeze_plan = dict(plan)

    def detach_plan(self, root: Module, network: Any) -> None:
        """Undo `attach_plan`."""
        del network.squeeze_plan

    def plan_of(self, network: Module) -> Optional[Dict[str, Any]]:
        """What `attach_plan` stored, or None."""
        plan = getattr(network, "squeeze_plan", None)
        return plan if isinstance(plan, dict) else None

    def watch(self, network: Module, name: str, callback: Callable[[torch.Tensor], None]) -> Any:
        """Have ``callback`` called with the features [N, c, R, R] that block ``name`` hands to the next one, dense or
        squeezed, whenever ``network`` runs: a handle whose ``remove()`` ends it, None where nothing can be hooked."""
        block = self.get_block(network, name)
        if all(module is not block for module in network.modules()):
            return None

        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            x = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(x, torch.Tensor):
                callback(x)

        return block.register_forward_hook(hook)

    def dense_like(self, root: Module, network: Module) -> Module:
        """A dense generator with random weights, made by the constructor call that squeezed ``root`` goes back to."""
        raise UnsupportedModelError(
            f"{type(root).__name__} keeps no record of how it was constructed, so no dense generator can be made from "
            "it. Name the dense one: report --against FILE, [dense] in squeeze.toml, against= in Python"
        )


@dataclass(frozen=True)
class Adapter:
    """One family of hosts: its ``name``, stored in every Plan, and the roles that it plays; None = it does not.

    Attributes:
        entries: {name of an entry in the family's files: "G", the generator that is trained, or "G_ema", its moving
            average}.
    """

    name: str
    surgery: Surgery
    running: Optional[Running] = None
    states: Optional[StateDicts] = None
    interchange: Optional[Interchange] = None
    pickles: Optional[Pickles] = None
    wrapper: Optional[TrainingWrapper] = None
    scripts: Optional[Scripts] = None
    fusing: Optional[Fusing] = None
    entries: Mapping[str, str] = field(default_factory=dict)
