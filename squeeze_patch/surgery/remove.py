"""remove: the dense blocks back into a squeezed generator."""

from __future__ import annotations

from typing import TypeVar

import torch

from squeeze_patch.adapters import search
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import StateError
from squeeze_patch.surgery.fingerprint import Fingerprint
from squeeze_patch.surgery.fuse import unfuse_part
from squeeze_patch.surgery.originals import KEPT, put_back
from squeeze_patch.surgery.references import held
from squeeze_patch.surgery.status import status_of_part

Module = TypeVar("Module", bound=torch.nn.Module)


def remove(G: Module) -> Module:
    """Put the dense blocks back that `apply` took out: the same module objects, so the same keys and images.

    Returns:
        G itself, dense. A dense generator is returned as it is.

    Raises:
        StateError: the dense blocks were not kept (``keep_original=False``, a copy, or a loaded file), or parameters
            that dense and squeezed blocks share were trained in between.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.apply(trained_generator(), init="weights")
        >>> squeeze_patch.status(squeeze_patch.remove(G)).state
        'dense'
    """
    target = search(G)
    squeezed_now = [part for part in target.parts if status_of_part(part).state != "dense"]
    for part in squeezed_now:
        _check_removable(part)
    for part in squeezed_now:
        unfuse_part(part)
        put_back(part)
    if target.wrapper is not None and squeezed_now:
        target.wrapper.refresh_optimiser(G)
    return G


def _check_removable(found: Located) -> None:
    originals = KEPT.get(found.network)
    if originals is None:
        raise StateError(
            "the dense blocks of this generator are not at hand: it was squeezed with keep_original=False, or it is a "
            "copy, or it came from a file. Load the dense checkpoint instead"
        )
    shared = dict(found.generator.named_parameters())
    missing = next((name for name in originals.shared if name not in shared), None)
    if missing is not None:
        raise StateError(
            f"apply was called on another module than this {type(found.root).__name__}, one with a parameter "
            f"{missing}; call remove on that one"
        )
    moved = [name for name, then in originals.shared.items() if not then.same(Fingerprint.of(shared[name]))]
    if moved:
        raise StateError(
            f"{len(moved)} parameters were changed since apply ({moved[0]}, ...), so the dense blocks no longer belong "
            "to the rest of the generator. Load the dense checkpoint instead"
        )
    squeezed = {name: found.get_block(name) for name in originals.blocks}
    for name, block in squeezed.items():
        found.surgery.check_replaceable(block, name)
    lost = held(found.root, squeezed, originals.blocks)
    if lost:
        raise StateError(
            f"in {type(found.root).__name__} {'; '.join(lost)}, which the dense blocks do not have: let go of that, "
            "and build it anew afterwards"
        )
