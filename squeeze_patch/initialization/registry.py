"""The starts that a squeezed generator can get, by name."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional

import torch

from squeeze_patch.adapters.content import BlockShape, Kept, SqueezedStart
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import PlanError, SqueezeError
from squeeze_patch.initialization.calibrated import calibrated_starts
from squeeze_patch.initialization.from_weights import starts_from_weights
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.progress import Progress

#: of the latents of a trained start: a number that nobody takes for images, so that these are not what was fitted
SEED = 1_397_836_357

#: (the dense generator, {block name: sizes}, {block name: kept channels} or None, progress) -> {block name: start}
MakeStarts = Callable[
    [Observation, Mapping[str, BlockShape], Optional[Mapping[str, Kept]], Optional[Progress]],
    Dict[str, SqueezedStart],
]


@dataclass(frozen=True)
class Init:
    """One way to start: in words, and how its starts are made; None = the fresh random layers of the host."""

    words: str
    make: Optional[MakeStarts]


DEFAULT_INIT = "calibrated"
#: {name, as ``init=`` and ``--init`` take it: Init}
INITS: Dict[str, Init] = {
    "calibrated": Init("the trained weights, calibrated", calibrated_starts),
    "weights": Init("the trained weights", starts_from_weights),
    "random": Init("random layers, to be trained", None),
}


def check_init(init: str) -> None:
    """Raise `PlanError` where there is no such start."""
    if not (isinstance(init, str) and init in INITS):
        raise PlanError(f"init has to be one of {', '.join(INITS)}, not {init!r}")


def check_seed(seed: int) -> int:
    """The seed as torch wants it, also of a whole number of numpy's.

    Raises:
        PlanError: it is none.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not -(1 << 63) <= seed < 1 << 64:
        raise PlanError(f"seed has to be a whole number of at most 64 bits, not {seed!r}")
    return int(seed)


def check_finite(found: Located) -> None:
    """Raise `SqueezeError` where the generator holds NaN or infinity, in what a start reads or anywhere else, or no
    values at all."""
    empty = next((name for name, tensor in found.generator.named_parameters() if tensor.is_meta), "")
    if empty:
        raise SqueezeError(
            f"{empty} is on the meta device, without values: a trained start has nothing to read there. Load the "
            "weights first, or use init='random'"
        )
    name = found.not_finite()
    if name:
        raise SqueezeError(f"{name} holds values that are not finite: this generator has diverged")


def trained_starts(
    found: Located,
    shapes: Mapping[str, BlockShape],
    init: str,
    *,
    kept: Optional[Mapping[str, Kept]] = None,
    progress: Optional[Progress] = None,
    seed: int = SEED,
    observed: Optional[Observation] = None,
) -> Dict[str, SqueezedStart]:
    """Starts for the blocks to squeeze; the generator stays as it is.

    Args:
        found: the dense generator.
        shapes: {block name: sizes}.
        init: a name of `INITS`.
        kept: {block name: channels to keep}, where they are given.
        progress: called with (block name, blocks done, blocks in all).
        seed: of the latents.
        observed: ``found`` on these latents, where it was looked at before; then ``seed`` does not count.

    Returns:
        {block name: start}; {} where the layers are to be drawn anew.

    Raises:
        PlanError: there is no such start.
        SqueezeError: parameters are not finite.
    """
    check_init(init)
    make = INITS[init].make
    if make is None:
        return {}
    check_finite(found)
    with torch.inference_mode(False):  # gradients can be taken
        return make(observed or Observation(found, seed), shapes, kept, progress)
