"""The roles that an adapter can play beside surgery; see `adapters.base`."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, Callable, Collection, Dict, FrozenSet, List, Mapping, Optional, Protocol, Tuple

import torch

from squeeze_patch.adapters.content import Kept, Sampler
from squeeze_patch.adapters.records import Record

Module = torch.nn.Module
StateDict = Mapping[str, torch.Tensor]


class Running(abc.ABC):
    """How generators are run: for compare, report and recover."""

    @abc.abstractmethod
    def num_ws(self, network: Module) -> int:
        """Style vectors that `synthesis` takes for one image; `UnsupportedModelError` where it wants more."""

    @abc.abstractmethod
    def synthesis(self, network: Module, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """Images [N, C, R, R] of style vectors [N, num_ws, w_dim], float32, also where the host would compute in
        float16; differentiable. ``noise_mode`` is "const" (the stored noise) or "none"."""

    def synthesis_at(self, network: Module, ws: torch.Tensor, noise_mode: str, first: int) -> torch.Tensor:
        """As `synthesis`, of the images at the places first, first + 1, ... of a batch that is run part by part; other
        than that where "const" is noise of its own for every place."""
        return self.synthesis(network, ws, noise_mode)

    @abc.abstractmethod
    def sampler(self, root: Module, network: Module) -> Sampler:
        """How the generator that ``root`` is is run on latents; `UnsupportedModelError` where it cannot be."""

    def whole(self, root: Module, network: Module, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Images of latents by the call of ``root`` that users make, without noise, in float32 as `synthesis`."""
        images: torch.Tensor = self.sampler(root, network).images(z, c, "none", 1.0)
        return images

    def sampler_of_unknown(self, root: Module) -> Optional[Sampler]:
        """How a generator that no adapter knows is run, where it is called as this family's are, else None."""
        return None

    def equalised(self, network: Module) -> bool:
        """Whether weights are kept at unit scale, with a gain at run time (equalised learning rate, Karras et al. 2018,
        section 4.1), rather than at the size that they work with: training steps are as large as the weights."""
        return True

    def style_parameters(self, root: Module, network: Module) -> Dict[str, torch.nn.Parameter]:
        """{name: parameter} of what makes style vectors of latents, which neither squeezing nor recovery changes; here
        all that is in ``root`` beside ``network``."""
        within = {id(parameter) for parameter in network.parameters()}
        return {name: parameter for name, parameter in root.named_parameters() if id(parameter) not in within}


class Fusing(abc.ABC):
    """How squeezed blocks run where nothing is trained: by `squeeze_patch.fused_convolution`, which squeeze_patch.fuse
    switches on. Parameters, their names and modules stay what they are."""

    @abc.abstractmethod
    def fused(self, network: Module, name: str) -> bool:
        """Whether the squeezed block ``name`` is set to run fused."""

    @abc.abstractmethod
    def defers(self, network: Module, name: str) -> bool:
        """Whether the fused block ``name`` leaves its excite to what reads its features."""

    @abc.abstractmethod
    def set_fused(self, network: Module, name: str, fused: bool, defers: bool) -> None:
        """Set whether the squeezed block ``name`` runs fused, and whether its features are handed on as
        `handing_on.Deferred`, for what reads them to fold excite into itself."""


class StateDicts(abc.ABC):
    """For families whose files hold state dicts (torch.save) rather than whole generators."""

    @abc.abstractmethod
    def from_state(self, state: StateDict, blocks: Optional[Mapping[str, bool]] = None) -> Optional[Module]:
        """A stand-in for the generator whose state dict is ``state``: it plays every role as the host's generator
        would, and its parameters have the same names and order. ``blocks`` is {squeezed or narrowed block: whether it
        has excite} where the file says so; the Plan is put onto the stand-in afterwards. None where ``state`` is not of
        this family, `UnsupportedModelError` where it nearly is."""

    def is_of_family(self, state: StateDict) -> bool:
        """Whether ``state`` has the names that tell a generator of this family; `from_state` then reads or refuses
        it."""
        return self.from_state(state) is not None

    def may_lack(self, name: str) -> bool:
        """Whether files of this family may lack the tensor ``name`` of a generator, which then keeps its own."""
        return False

    def refuse_part(self, state: StateDict, prefix: str) -> Optional[str]:
        """Why the generator whose names in ``state`` begin with ``prefix`` cannot be squeezed: something beside it in
        there reads its layers; else None."""
        return None

    def parts_of_state(self, state: StateDict) -> Dict[str, Dict[str, str]]:
        """Of a training wrapper's state dict: {generator: {prefix of names that `from_state` reads: prefix in
        ``state``}}, the moving average first; else nothing."""
        return {}

    def kept_entries(self, network: Module, kept: Mapping[str, Kept]) -> Dict[str, List[Tuple[int, torch.Tensor]]]:
        """{parameter of the squeezed ``network``: [(dimension, indices along it in the dense parameter), ...]}, for
        parameters of which squeezing keeps a part; ``kept`` is {block name: channels that stay}."""
        return {}


class Interchange(abc.ABC):
    """To and from the names of `adapters.interchange`, by which generators go from one family to another."""

    @abc.abstractmethod
    def to_common(self, root: Module, network: Module) -> Dict[str, torch.Tensor]:
        """The generator's tensors, dense or squeezed, float32, on the CPU; `UnsupportedModelError` where other families
        do not have this network."""

    @abc.abstractmethod
    def from_common(self, state: StateDict) -> Module:
        """A generator with these tensors, dense or squeezed as they are, without a Plan; `UnsupportedModelError` where
        this family does not have such a network, or its host is not at hand."""

    @abc.abstractmethod
    def make_checkpoint(self, generators: Mapping[str, Module], w_avg: torch.Tensor) -> Dict[str, Any]:
        """The entries of a file as the family's scripts read it, around {"G" and/or "G_ema": generator}."""

    def constructor_hint(self, state: StateDict) -> str:
        """How a host builds the generator that ``state`` is loaded into, "" where the file brings it."""
        return ""


class Foreign(Protocol):
    """A file of a form that no host of the family writes any more.

    Attributes:
        entries: {name as the hosts have it: generator of our own, or inert value}.
    """

    entries: Dict[str, Any]

    @property
    def words(self) -> str:
        """What it is, and what can be made of it."""

    def hosted(self) -> Dict[str, Any]:
        """The entries of a checkpoint of today with networks of the host's own classes, whose modules can be imported;
        `UnsupportedModelError` where they cannot, or have no such network."""


class Pickles(Protocol):
    """For families whose files are pickles that need modules of the host's checkout.

    Attributes:
        marker: module at the top of every checkout of the family.
        source_entries: all that `source_entry` may say.
    """

    marker: str
    source_entries: FrozenSet[str]

    def cure(self, module: str) -> Optional[str]:
        """What to do where unpickling misses ``module`` (a dotted name), None where it is not this family's."""

    def known(self, module: str, name: str) -> Optional[Any]:
        """What takes the place of a class or function that the family's pickles name, where they are read without
        running anything (`adapters.records`), None where it is not the family's."""

    def is_generator(self, value: Any) -> bool:
        """Whether an inert value is a generator of this family."""

    def body_of(self, record: Record) -> Module:
        """A generator of our own for a stored one, which plays every role as the host's would; `UnsupportedModelError`
        where it has layers that only its host knows."""

    def stored_of(self, body: Module, record: Record) -> Record:
        """What the host would have stored of ``body``, which was made of ``record`` and changed since."""

    def foreign(self, data: Any) -> Optional[Foreign]:
        """The file whose inert contents are ``data``, where it is of an older form of the family's; else None.
        `UnsupportedModelError` where its generators are no StyleGAN2."""

    def refuse(self, module: str) -> Optional[str]:
        """Why a pickle that names ``module`` is not run even where it is trusted, or None."""

    def judge(self, module: str, name: str) -> Optional[bool]:
        """Of a name in a pickle: True where files of this family need it, False where a call of it runs what its
        arguments say, None where it is not the family's."""

    def source_entry(self, module: str, name: str) -> Optional[str]:
        """Which entry of what a call of this name is given, or of the state of its instances, is source text that
        loading runs; None where there is none."""

    def imports_usually(self, module: str) -> bool:
        """Whether source in files of this family imports ``module``, which is the host's own."""

    def own_source(self) -> str:
        """Source that squeeze_patch adds to files of this family."""

    def known_definitions(self, source: str) -> Tuple[List[str], List[str]]:
        """Classes and functions in source text: (those whose text is a known one, the others)."""


class TrainingWrapper(Protocol):
    """For hosts whose training wrapper holds a generator and its moving average, which are squeezed alike."""

    def find_ema_pair(self, root: Module) -> List[Module]:
        """[moving average, generator], each with its mapping network; empty where ``root`` is no such wrapper."""

    def refresh_optimiser(self, root: Module, gone: Collection[torch.nn.Parameter]) -> None:
        """Have the optimiser inside the wrapper train what the generator has by now, in the places of ``gone``, which
        it had; what is in there beside the generator stays."""


class Scripts(Protocol):
    """For hosts whose scripts `squeeze_patch.training` can run with squeezed generators."""

    def hook_training(self, module: Any, prepare: Callable[[Optional[str]], Any]) -> bool:
        """Make a training script, imported as ``module``, build squeezed generators; False = not this family's.
        ``prepare``: the checkpoint that the script's options name, or None -> `training.common.RunStart`, once. Where
        that has no request, generators stay dense; only what else the script needs on a current torch is done."""

    def hook_generators(self, folder: Path, squeeze: Callable[[Module], Any]) -> bool:
        """Have ``squeeze`` called on every generator that scripts in ``folder`` (importable) build, before they use it;
        False = not this family's."""
