"""Regressions to plant in a squeezed generator, each of another kind, and the check that is there for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.catalogue import BY_NAME
from tests import planting as p
from tests.planting import Generators, module_name, spec_at


@dataclass(frozen=True)
class Plant:
    """A regression.

    Attributes:
        name: of it.
        check: the one that has to fall short, with `place` in its message.
        plant: changes the generators of a fresh factory in place.
        place: part of the layer's or block's name where it is, "" = none in particular; a function of the generator.
        pair: whether it is planted in a generator beside its moving average.
        families: where it can be.
        settings: of the check.
        request: how the generators are squeezed, where that is what is wrong.
        dense: whether the check needs the trained dense generator.
    """

    name: str
    check: str
    plant: Callable[[Generators], Any] = lambda generators: None
    place: Callable[[Located], str] = lambda found: ""
    pair: bool = False
    families: Tuple[str, ...] = ("nvidia", "rosinality")
    settings: Any = True
    request: Any = None
    dense: bool = False


def _at(part: str) -> Callable[[Located], str]:
    """Where a part of the block is, as the generator's module is named."""
    return lambda found: module_name(found, getattr(found.get_block(spec_at(found).name), part))


def _block(found: Located) -> str:
    return str(spec_at(found).name)


#: the wall clock, which alone sees a path that waits, needs many pairs on a busy machine
LATENCY = BY_NAME["latency"].settings
PLANTS: List[Plant] = [
    Plant("a block left dense", "state", place=_block, request={"widths": {4: 16, 8: 16, 32: 8}}),
    Plant("another width in one block", "state", place=_block, request={"widths": {4: 16, 8: 16, 16: 15, 32: 8}}),
    Plant("squeezed less", "reduction", request={"ratio": 1.5}),
    Plant("squeezed less, counted", "multiply_adds", request={"ratio": 1.5}),
    Plant("images further from the dense ones", "fidelity", p.drift, dense=True),
    Plant("one number of a weight times 1.01", "weights", p.scale_one_number, _at("conv1")),
    Plant("a weight times 1.01", "weights", p.scale_a_weight, _at("excite")),
    Plant("conv1's output times 1.01", "features", p.scale_noise, _at("conv1")),
    Plant("conv1's output times 1.01, seen in images", "images", p.scale_noise, _at("conv1")),
    Plant("another clamp", "constants", p.clamp_output, _at("conv1"), families=("nvidia",)),
    Plant("excite passed by", "features", p.skip_excite, _at("excite")),
    Plant("excite dropped", "names", p.drop_excite, _at("excite")),
    Plant("torgb reads the wrong style", "images", p.wrong_style, _at("torgb")),
    Plant("a renamed key", "names", p.rename_key, _at("torgb")),
    Plant("a noise buffer lost", "names", p.lose_noise),
    Plant("another order of channels in G", "channel_order", p.another_order, _block, pair=True),
    Plant("a gradient cut", "gradients", p.cut_gradient),
    Plant("no second derivative", "second_derivatives", p.cut_second_derivative),
    Plant("gradients of another function", "step", p.wrong_gradient),
    Plant("a moving average that shares a tensor", "average", p.share_with_the_average, _at("excite"), pair=True),
    Plant("copies that share tensors", "deepcopy", p.copies_share),
    Plant("a tensor that its state dict lacks", "names", p.tie_parameters, _at("excite")),
    Plant("a pickle that needs squeeze_patch", "without_squeeze_patch", p.needs_squeeze_patch, families=("nvidia",)),
    Plant("pickles of rounded weights", "pickle", p.round_when_pickled, families=("nvidia",)),
    Plant("state dicts that leave something out", "state_dict", p.forget_in_state_dicts),
    Plant("a slower path", "latency", p.slower, dense=True, settings={**LATENCY, "pairs": 300}),
    Plant("a path that waits", "latency", p.waiting, dense=True, settings={**LATENCY, "pairs": 300}),
    Plant("a higher peak of memory", "memory", p.more_memory, dense=True),
    Plant("an export that departs", "compile", p.departs_when_exported, settings={"backend": "eager"}),
    Plant("NaN for one latent of a thousand", "finite", p.one_in_a_thousand, settings={"samples": 1000, "styles": 0}),
    Plant("random noise left on", "reproducible", p.random_noise, _at("conv1")),
    Plant("another centre of truncation", "images", p.forget_truncation, families=("nvidia",)),
]
