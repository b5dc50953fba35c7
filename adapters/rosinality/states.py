"""Which flat generator a state dict is of, and a body for it that is squeezed and run in the host's place."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Set, Tuple, Type

import torch

from squeeze_patch.adapters.content import Kept
from squeeze_patch.adapters.roles import StateDicts
from squeeze_patch.adapters.rosinality.body import Blocks, FlatBody, State
from squeeze_patch.adapters.rosinality.layers import conv_places, kept_places, torgb_places
from squeeze_patch.adapters.rosinality.layout import Layout, find_layer_paths, get, known_layout
from squeeze_patch.adapters.rosinality.standin import Generator
from squeeze_patch.adapters.rosinality.standin_basicsr import StyleGAN2Generator, StyleGAN2GeneratorClean
from squeeze_patch.adapters.rosinality.wellformed import fault
from squeeze_patch.errors import UnsupportedModelError
from squeeze_patch.process_settings import random_kept

BODIES: Tuple[Type[FlatBody], ...] = (Generator, StyleGAN2Generator, StyleGAN2GeneratorClean)
#: what the names in the states of gfpgan's restoration networks begin with, as far as their generator goes
RESTORATION = "stylegan_decoder."
#: the same of the layers that DualStyleGAN has beside its generator
MODRES = "res.0.norm2."
DUAL = (
    "this is DualStyleGAN, whose residual layers (res, ModRes) read all c channels behind conv1 inside the generator's "
    "blocks: squeezed it could not run"
)

#: what can be done with a fork's file
_IN_PYTHON = "Where a fork's own code builds it, load it there and squeeze it in Python: squeeze_patch.apply(G)"


class RosinalityStates(StateDicts):
    """The role of files of state dicts."""

    def from_state(self, state: State, blocks: Blocks = None) -> Optional[torch.nn.Module]:
        return from_state(state, blocks)

    def is_of_family(self, state: State) -> bool:
        return _body(state) is not None or any(name.startswith(RESTORATION) for name in state)

    def may_lack(self, name: str) -> bool:
        """Noise, which hosts load past (rosinality's 550000.pt has none)."""
        return name.startswith("noises.")

    def refuse_part(self, state: State, prefix: str) -> Optional[str]:
        beside = f"{prefix[:-1].rpartition('.')[0]}{'.' if '.' in prefix[:-1] else ''}{MODRES}"
        return DUAL if any(name.startswith(beside) for name in state) else None

    def kept_entries(
        self, network: torch.nn.Module, kept: Mapping[str, Kept]
    ) -> Dict[str, List[Tuple[int, torch.Tensor]]]:
        layout = known_layout(network)
        found: Dict[str, List[Tuple[int, torch.Tensor]]] = {}
        for name, channels in kept.items():
            paths = find_layer_paths(network, name)
            parts = {
                paths.conv1: kept_places(
                    conv_places(get(network, paths.conv1), layout), outputs=channels.outputs, inputs=channels.inner
                ),
                paths.torgb: kept_places(torgb_places(layout), inputs=channels.outputs),
            }
            if paths.up:
                places = conv_places(get(network, paths.up), layout)
                parts[paths.up] = kept_places(places, outputs=channels.inner, inputs=channels.inputs)
            elif channels.inner is not None:
                found[layout.const] = [(1, channels.inner)]
            for layer, changed in parts.items():
                found.update({f"{layer}.{parameter}": list(dims.items()) for parameter, dims in changed.items()})
        return found


def from_state(state: State, blocks: Blocks = None) -> Optional[torch.nn.Module]:
    """A stand-in for the generator of ``state``, dense or squeezed; None where it is of no lineage of this family.

    Args:
        state: of the whole generator.
        blocks: {squeezed or narrowed block: whether it has excite}, where they are known; else told from shapes.

    Raises:
        UnsupportedModelError: it has tensors that the lineage's generator does not have, or lacks some; or it is of a
            restoration network around a generator.
    """
    if any(name.startswith(RESTORATION) for name in state):
        raise UnsupportedModelError(
            "this is the state of a restoration network of gfpgan's, whose generator (stylegan_decoder) wants "
            "conditions from the rest; files of generators alone can be squeezed. Load it into the host's network and "
            "squeeze that in Python: squeeze_patch.apply(network.stylegan_decoder)"
        )
    body = _body(state)
    if body is None:
        return None
    other = f"this looks like the state of {body.layout.host}, but is another network's"
    try:
        with random_kept():
            G = body(state, blocks)
    except KeyError as error:
        raise UnsupportedModelError(f"{other}: it has no {error.args[0]}") from error
    except ValueError as error:  # a weight of fewer dimensions
        raise UnsupportedModelError(f"{other}: its convolutions have other shapes ({error})") from error
    try:
        G.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:300].rstrip(".")
        raise UnsupportedModelError(f"{other}: {words}. {_IN_PYTHON}") from error
    wrong = fault(G)
    if wrong:
        raise UnsupportedModelError(f"{other}: {wrong}")
    return G


def _body(state: State) -> Optional[Type[FlatBody]]:
    """By a generator's most telling names; basicsr's and gfpgan's differ in where a convolution's bias is."""
    found = [body for body in BODIES if _marks(body.layout) <= set(state)]
    exact = [body for body in found if f"{body.layout.first_conv}.{body.layout.bias}" in state]
    return next(iter([*exact, *found]), None)


def _marks(layout: Layout) -> Set[str]:
    first, inner = layout.first_conv, layout.modulated
    convs = {f"{first}.{inner}.weight", f"{first}.{layout.noise}", f"to_rgb1.{inner}.weight"}
    return {layout.const, f"{layout.mapping}.1.weight", *convs}
