"""remove: the dense blocks back into a squeezed generator."""

from __future__ import annotations

from typing import Sequence, TypeVar

import torch

from squeeze_patch.adapters import search
from squeeze_patch.adapters.located import Located, Target
from squeeze_patch.errors import StateError
from squeeze_patch.process_settings import ONE_AT_A_TIME
from squeeze_patch.surgery.belongings import belongings_of
from squeeze_patch.surgery.fingerprint import Fingerprint
from squeeze_patch.surgery.fuse import fusing_as_before, unfuse_part
from squeeze_patch.surgery.originals import KEPT, Squeezed, TrainedParameters, put_back
from squeeze_patch.surgery.references import held
from squeeze_patch.surgery.status import status_of_part

Module = TypeVar("Module", bound=torch.nn.Module)


def remove(G: Module) -> Module:
    """Put the dense blocks back that `apply` took out: the same module objects, so the same keys and images. What you
    have set on squeezed layers in between (attributes, frozen or shared, device, dtype) is set on the dense ones, too.

    Returns:
        G itself, dense. A dense generator is returned as it is.

    Raises:
        StateError: the dense blocks were not kept (``keep_original=False``, a copy, or a loaded file), parameters
            that dense and squeezed blocks share were trained in between, or squeezed layers hold something of yours
            that dense ones cannot have (functions changed on them, buffers or layers). G is as it was after any error.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.apply(trained_generator(), init="weights")
        >>> squeeze_patch.status(squeeze_patch.remove(G)).state
        'dense'
    """
    with ONE_AT_A_TIME:
        target = search(G)
        squeezed_now = [part for part in target.parts if status_of_part(part).state != "dense"]
        for part in squeezed_now:
            _check_removable(part)
        with fusing_as_before(squeezed_now):
            for part in squeezed_now:
                unfuse_part(part)
                _hand_back(part)
            if squeezed_now:
                _put_all_back(target, squeezed_now)
    return G


def _put_all_back(target: Target, parts: Sequence[Located]) -> None:
    """The dense blocks into all of ``parts``, or none of them."""
    before, trained = [Squeezed.of(part) for part in parts], TrainedParameters(target)
    try:
        for part in parts:
            put_back(part)
        trained.refresh()
    except BaseException:
        trained = TrainedParameters(target)
        for squeezed in before:
            squeezed.restore()
        trained.refresh()
        raise


def _hand_back(found: Located) -> None:
    """Give the dense blocks what the user has put onto the squeezed ones since they came; `StateError` where they
    cannot have it."""
    originals, bookkeeping = KEPT[found.network], found.surgery.bookkeeping
    more = {
        name: belongings_of(name, found.get_block(name), originals.outlines[name], dense, bookkeeping)
        for name, dense in originals.blocks.items()
    }
    lost = [words for belongings in more.values() for words in belongings.lost]
    if lost:
        raise StateError(
            f"in {type(found.root).__name__} {'; '.join(lost)}, which the dense blocks cannot have: take that off "
            "first. The generator is as it was"
        )
    for name, belongings in more.items():
        belongings.give_to(originals.blocks[name])


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
    own = {id(parameter) for parameter in found.network.parameters()}
    beside = [name for name in moved if id(shared[name]) not in own]
    if beside and originals.generator() is not found.generator:
        cure = "call remove on that one" if originals.generator() is not None else "load the dense checkpoint instead"
        raise StateError(
            f"apply was called on another generator than this {type(found.root).__name__}, which has the same "
            f"synthesis network, and other parameters beside it ({beside[0]}, ...); {cure}"
        )
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
