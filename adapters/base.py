"""The contract between the method, which knows no host, and an adapter, which knows one family of hosts."""

from __future__ import annotations

import abc
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Protocol, Tuple

import torch

from squeeze_patch.adapters.content import BlockSpec, DenseBlock, Sampler, SqueezedStart
from squeeze_patch.errors import UnsupportedModelError


class TrainingStart(Protocol):
    """What a training run begins with (`squeeze_patch.launch.Start`)."""

    @property
    def wish(self) -> Dict[str, Any]:
        """Arguments of `squeeze_patch.apply`."""

    @property
    def checkpoint(self) -> Optional[str]:
        """File to load, None for scratch."""


#: checkpoint that the user's own options name, or None -> what the run begins with
PrepareStart = Callable[[Optional[str]], TrainingStart]
_CANNOT_RUN = "squeeze_patch does not know how to run generators of the family "


class Adapter(abc.ABC):
    """One family of generators. Stateless; register an instance through `squeeze_patch.adapters.register` or the
    entry-point group ``squeeze_patch.adapters``.

    ``network`` below is the module that holds the blocks (the hosts' SynthesisNetwork); ``root`` is the module that the
    user passed, which is or holds the generator.
    """

    #: short name of the family, stored in every Plan
    name: str
    #: whether the family's files hold state dicts (torch.save), rather than whole generators (pickle)
    saves_states: bool = False
    #: {name of an entry in the family's files: "G", the generator that is trained, or "G_ema", its moving average}
    roles: Mapping[str, str] = MappingProxyType({})

    @abc.abstractmethod
    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        """All networks of this family inside ``root``, dense or squeezed, by class name and by structure."""

    @abc.abstractmethod
    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        """Why something in ``root`` looks like this family but cannot be squeezed (one sentence), or None."""

    @abc.abstractmethod
    def specs(self, network: torch.nn.Module) -> List[BlockSpec]:
        """The blocks in the order in which they run."""

    @abc.abstractmethod
    def dense_block(self, network: torch.nn.Module, name: str) -> DenseBlock:
        """Trained content of one dense block.

        Raises:
            UnsupportedModelError: the block computes something that a `DenseBlock` cannot describe.
        """

    @abc.abstractmethod
    def sample_w(self, root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
        """Style vectors [n, w_dim], float32, on the CPU, of ``n`` random latents; changes nothing in ``root``."""

    def num_ws(self, network: torch.nn.Module) -> int:
        """Style vectors that `synthesis` takes for one image.

        Raises:
            UnsupportedModelError: the network cannot be run on style vectors alone; the message says what to do.
        """
        raise UnsupportedModelError(_CANNOT_RUN + self.name)

    def synthesis(self, network: torch.nn.Module, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """Images [N, C, R, R] of style vectors [N, num_ws, w_dim], float32, also where the host would compute in
        float16; differentiable. ``noise_mode`` is "const" (the stored noise) or "none"."""
        raise UnsupportedModelError(_CANNOT_RUN + self.name)

    def equalised(self, network: torch.nn.Module) -> bool:
        """Whether weights are kept at unit scale, with a gain at run time (equalised learning rate, Karras et al. 2018,
        section 4.1), rather than at the size that they work with: training steps are as large as the weights."""
        return True

    def style_parameters(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.nn.Parameter]:
        """{name: parameter} of what makes style vectors of latents, which neither squeezing nor recovery changes; here
        all that is in ``root`` beside ``network``."""
        within = {id(parameter) for parameter in network.parameters()}
        return {name: parameter for name, parameter in root.named_parameters() if id(parameter) not in within}

    def watch(self, network: torch.nn.Module, name: str, see: Callable[[torch.Tensor], None]) -> Any:
        """Have ``see`` called with the features [N, c, R, R] that block ``name``, which has a reader, hands on to it,
        dense or squeezed, whenever ``network`` runs.

        Returns:
            a handle whose ``remove()`` ends it; None where the block is no module that could be hooked.
        """
        block = self.block(network, name)
        if all(module is not block for module in network.modules()):
            return None

        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            x = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(x, torch.Tensor):
                see(x)

        return block.register_forward_hook(hook)

    def sampler(self, root: torch.nn.Module, network: torch.nn.Module) -> Sampler:
        """How the generator that ``root`` is is run on latents.

        Raises:
            UnsupportedModelError: it cannot be; the message says what to do.
        """
        raise UnsupportedModelError(_CANNOT_RUN + self.name)

    @abc.abstractmethod
    def build(self, network: torch.nn.Module, name: str, width: int) -> torch.nn.Module:
        """A squeezed block with fresh random layers for the dense block ``name``; ``network`` stays as it is."""

    @abc.abstractmethod
    def check_replaceable(self, block: torch.nn.Module, name: str) -> None:
        """Raise `StateError` where something of the user's hangs on layers that go when ``block`` is replaced."""

    @abc.abstractmethod
    def fill(self, new: torch.nn.Module, dense: torch.nn.Module, start: SqueezedStart) -> None:
        """Write a trained start into a block made by `build` from ``dense``."""

    @abc.abstractmethod
    def block(self, network: torch.nn.Module, name: str) -> torch.nn.Module:
        """The block object of that name, dense or squeezed."""

    @abc.abstractmethod
    def put(self, network: torch.nn.Module, name: str, block: torch.nn.Module) -> None:
        """Put ``block`` in the place of the block of that name, at the same position among its siblings."""

    def mark(self, root: torch.nn.Module, network: Any, plan: Mapping[str, Any]) -> None:
        """Make the Plan travel with the generator through deepcopy and pickle."""
        network.squeeze_plan = dict(plan)

    def unmark(self, root: torch.nn.Module, network: Any) -> None:
        """Undo `mark`."""
        del network.squeeze_plan

    def plan_of(self, network: torch.nn.Module) -> Optional[Dict[str, Any]]:
        """What `mark` stored, or None."""
        plan = getattr(network, "squeeze_plan", None)
        return plan if isinstance(plan, dict) else None

    def from_state(
        self, state: Mapping[str, torch.Tensor], squeezed: Optional[Collection[str]] = None
    ) -> Optional[torch.nn.Module]:
        """A stand-in for the generator whose state dict is ``state``, for families whose files hold state dicts.

        It answers everything in this contract as the host's generator would, images included, and its parameters have
        the same names and order. ``squeezed`` names the squeezed blocks where the file says so.

        Returns:
            None where ``state`` is not of this family.

        Raises:
            UnsupportedModelError: it is nearly.
        """
        return None

    def to_common(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.Tensor]:
        """The generator's tensors, dense or squeezed, under the names of `common_names`, float32, on the CPU.

        Raises:
            UnsupportedModelError: other families do not have this network.
        """
        raise UnsupportedModelError(f"generators of the family {self.name} cannot be carried to another family")

    def from_common(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """A generator of this family with the tensors ``state`` (`to_common`), dense or squeezed as they are, not
        marked; a stand-in as of `from_state` where ``saves_states``.

        Raises:
            UnsupportedModelError: this family does not have such a network, or its host is not at hand.
        """
        raise UnsupportedModelError(f"generators of another family cannot be carried to the family {self.name}")

    def pack(self, generators: Mapping[str, torch.nn.Module], w_avg: torch.Tensor) -> Dict[str, Any]:
        """The entries of a file as the family's scripts read it, around {"G" and/or "G_ema": generator}."""
        raise UnsupportedModelError(f"the family {self.name} says nothing of its files")

    def built_by(self, state: Mapping[str, torch.Tensor]) -> str:
        """How a host builds the generator that ``state`` (`to_common`) is loaded into, "" where the file brings it."""
        return ""

    def parts_of_state(self, state: Mapping[str, torch.Tensor]) -> Dict[str, Dict[str, str]]:
        """Of the state dict of a training wrapper that holds several generators: {generator: {beginning of a name in
        the state that `from_state` reads: beginning of that name in ``state``}}, the moving average first; else
        nothing."""
        return {}

    def together(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        """Of a training wrapper that holds a generator and its moving average: each of them with its mapping network,
        the average first. They are squeezed alike. Empty where ``root`` is no such wrapper."""
        return []

    def refresh(self, root: torch.nn.Module) -> None:
        """Bring the optimiser inside such a wrapper up to date with parameters that came and went."""
        return

    def kept_entries(
        self, network: torch.nn.Module, kept: Mapping[str, torch.Tensor]
    ) -> Dict[str, Tuple[int, torch.Tensor]]:
        """{parameter of the squeezed ``network``: (dimension, indices along it in the dense parameter)}, for parameters
        of which squeezing keeps a part; ``kept`` is {block name: kept channels [q]}."""
        return {}

    def hook_generators(self, folder: Path, squeeze: Callable[[torch.nn.Module], Any]) -> bool:
        """Have ``squeeze`` called on every generator that scripts in ``folder`` build, before they use it; False = not
        this family's. ``folder`` can be imported from."""
        return False

    def dense_like(self, root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
        """A dense generator with random weights, made by the constructor call that squeezed ``root`` goes back to.

        Raises:
            UnsupportedModelError: the family keeps no record of that call.
        """
        raise UnsupportedModelError(
            f"{type(root).__name__} (family {self.name}) keeps no record of how it was constructed, so no dense "
            "generator can be made from it. Name the dense file with --against"
        )

    def hook_training(self, module: Any, prepare: PrepareStart) -> bool:
        """Make a host's training script, imported as ``module``, build squeezed generators; False = not this family's.

        ``prepare`` is to be called once, with the checkpoint that the script's own options name.
        """
        return False
