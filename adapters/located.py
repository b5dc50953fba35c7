"""A generator that was found once, and is passed on as one value instead of being searched for again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import BlockSpec, DenseBlock, Sampler
from squeeze_patch.adapters.roles import Fusing, Interchange, Running, TrainingWrapper
from squeeze_patch.conditioning import refuse_labels
from squeeze_patch.errors import UnsupportedModelError

Module = torch.nn.Module


@dataclass(frozen=True)
class Located:
    """A generator that was found once.

    Attributes:
        root: the module that the user passed.
        adapter: of its family.
        network: its synthesis network.
        specs: its blocks, in the order in which they run, as they were when it was found.
    """

    root: Module
    adapter: Adapter
    network: Module
    specs: Tuple[BlockSpec, ...]

    @classmethod
    def of(cls, root: Module, adapter: Adapter, network: Module) -> Located:
        surgery = adapter.surgery
        return cls(root, adapter, network, described(surgery.specs(network), surgery.plan_of(network)))

    def again(self) -> Located:
        """The same generator, its blocks as they are now."""
        return self.of(self.root, self.adapter, self.network)

    @property
    def generator(self) -> Module:
        """The generator itself, whatever ``root`` holds beside it."""
        return self.surgery.generator(self.root, self.network)

    @property
    def place(self) -> str:
        """Where in ``root`` the generator is, "" = it is ``root``."""
        return next(name for name, module in self.root.named_modules() if module is self.generator)

    def not_finite(self) -> str:
        """Name of a parameter or buffer of the generator that holds NaN or infinity, "" where none does."""
        tensors = itertools.chain(self.generator.named_parameters(), self.generator.named_buffers())
        return next((name for name, tensor in tensors if not (tensor.is_meta or is_finite(tensor))), "")

    @property
    def surgery(self) -> Surgery:
        return self.adapter.surgery

    @property
    def running(self) -> Running:
        """Raises `UnsupportedModelError` where the family does not play this role; so do the others below."""
        if self.adapter.running is None:
            raise UnsupportedModelError(
                f"squeeze_patch does not know how to run generators of the family {self.adapter.name}"
            )
        return self.adapter.running

    @property
    def fusing(self) -> Fusing:
        if self.adapter.fusing is None:
            raise UnsupportedModelError(
                f"squeeze_patch does not know how to fuse generators of the family {self.adapter.name}"
            )
        return self.adapter.fusing

    @property
    def interchange(self) -> Interchange:
        if self.adapter.interchange is None:
            raise UnsupportedModelError(
                f"generators of the family {self.adapter.name} cannot be carried to another family"
            )
        return self.adapter.interchange

    def dense_blocks(self) -> List[DenseBlock]:
        """The trained content of all blocks, in running order.

        Raises:
            UnsupportedModelError: of something in it, no trained start knows what it computes.
        """
        blocks = [self.surgery.dense_block(self.network, spec.name) for spec in self.specs]
        for block in blocks:
            for conv in filter(None, (block.conv0, block.conv1)):
                if tuple(conv.weight.shape[2:]) != (3, 3):
                    size = "x".join(map(str, conv.weight.shape[2:]))
                    raise UnsupportedModelError(
                        f"{block.spec.name} has a convolution of {size}; a trained start knows those of 3x3. "
                        "Use init='random' and train"
                    )
        return blocks

    def get_block(self, name: str) -> Module:
        return self.surgery.get_block(self.network, name)

    def set_block(self, name: str, block: Module) -> None:
        self.surgery.set_block(self.network, name, block)

    def sample_w(self, n: int, seed: int) -> torch.Tensor:
        """As of `Surgery`.

        Raises:
            LabelsError: labels were given that the generator does not take.
        """
        if not self.surgery.takes_labels:
            refuse_labels()
        return self.surgery.sample_w(self.root, self.network, n, seed)

    def sampler(self) -> Sampler:
        return self.running.sampler(self.root, self.network)


def described(specs: Sequence[BlockSpec], plan: Optional[Mapping[str, Any]]) -> Tuple[BlockSpec, ...]:
    """Blocks as dense ones and what became of them, by the Plan that travels with them: of a narrowed block, whose
    class is the host's, nothing else tells the channels that it had.

    Args:
        specs: as the adapter's `Surgery.specs` has them.
        plan: as `Surgery.plan_of` has it; what it says of blocks that are not there, or wrongly, is left aside.
    """
    entries = _entries(plan)
    found: List[BlockSpec] = []
    for spec in specs:
        entry = entries.get(spec.name)
        dense_in = found[-1].channels if found else spec.in_channels
        if entry is None or (entry.excite and not spec.is_squeezed):
            found.append(spec)
            continue
        inner = spec.channels if spec.inner is None else spec.inner
        inputs = spec.in_channels if found and spec.in_channels != dense_in else None
        found.append(
            replace(
                spec,
                in_channels=dense_in,
                inputs=inputs,
                channels=entry.channels,
                inner=None if inner == entry.channels else inner,
                width=spec.width if entry.excite else spec.channels,
                excite=entry.excite,
            )
        )
    return tuple(found)


def narrowed_blocks(plan: Optional[Mapping[str, Any]]) -> Set[str]:
    """Names of the blocks that a Plan, as `Surgery.plan_of` has it, narrows."""
    return {name for name, entry in _entries(plan).items() if not entry.excite}


@dataclass(frozen=True)
class _Entry:
    """What a Plan says of a block: the channels that it had, and whether it is a squeezed one."""

    channels: int
    excite: bool


def _entries(plan: Optional[Mapping[str, Any]]) -> Dict[str, _Entry]:
    try:
        blocks = plan["blocks"] if plan else []
        return {str(b["name"]): _Entry(int(b["channels"]), bool(b.get("excite", True))) for b in blocks}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are, and their squares, which demodulation sums up: a weight of 1e38 makes no
    finite images. Their sum is not where one is not, and is found in a tenth of the time."""
    numbers = tensor.detach()
    return not numbers.is_floating_point() or bool(numbers.float().square().sum().isfinite())


@dataclass(frozen=True)
class Target:
    """What the user passed, searched once.

    Attributes:
        root: the module that was passed.
        parts: the one generator in it; or, of a training wrapper that its adapter knows, the moving average and the
            generator that is trained.
        wrapper: of such a wrapper, else None.
    """

    root: Module
    parts: Tuple[Located, ...]
    wrapper: Optional[TrainingWrapper] = None

    @property
    def reference(self) -> Located:
        """The generator that plans are made for, and on which channels are chosen: the moving average, or the only
        one."""
        return self.parts[0]
