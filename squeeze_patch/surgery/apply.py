"""apply, remove, squeezed: from a Plan to replaced blocks, all or nothing."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, TypeVar

import torch

from squeeze_patch.adapters import EmaPair, locate, together
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.content import SqueezedStart
from squeeze_patch.errors import PlanError, SqueezeError, StateError
from squeeze_patch.initialization.from_weights import Progress, one_thread
from squeeze_patch.initialization.registry import check_init, trained_starts
from squeeze_patch.planning.planner import TOLERANCE, Plan
from squeeze_patch.planning.planner import plan as make_plan
from squeeze_patch.surgery.fingerprint import Fingerprint
from squeeze_patch.surgery.status import status

Module = TypeVar("Module", bound=torch.nn.Module)


@dataclass(frozen=True)
class _Originals:
    """What `remove` needs: the dense blocks, and a fingerprint of every parameter that dense and squeezed share."""

    blocks: Dict[str, torch.nn.Module]
    shared: Dict[str, Fingerprint]


# Beside the generators, not on them: deepcopy and pickle of a squeezed generator shall not carry the dense blocks.
_originals: weakref.WeakKeyDictionary[torch.nn.Module, _Originals] = weakref.WeakKeyDictionary()


def apply(
    G: Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    plan: Optional[Plan] = None,
    allocate: str = "uniform",
    init: str = "calibrated",
    keep_original: bool = True,
    progress: Optional[Progress] = None,
) -> Module:
    """Replace the image skip connection of a generator by the image squeeze connection, in place.

    Do it before building optimisers and before wrapping for parallel training: both record parameters. A second call
    with the same wish does nothing, whatever its ``init``.

    Args:
        G: a generator (G, G_ema), or a module that holds exactly one; or a training wrapper that its adapter knows,
            whose generator and moving average get the same channels, chosen on the average.
        reduction: share of G's parameters to save, 0 to 1; default 0.121, the paper's figure.
        ratio: c / q for every block instead, 1 or more.
        widths: {resolution: q} instead; blocks that are not named stay dense.
        plan: a Plan instead, from `squeeze_patch.plan` or from a file.
        allocate: "spectral" spends the same number of parameters where G's images need them; see `plan`.
        init: "calibrated" = start from G's trained weights, fitted block by block to what they make of random latents
            (at the official sizes about a minute on two cores); "weights" = simpler statistics of the same weights, in
            seconds; "random" = fresh conv1, torgb and excite, to train from scratch.
        keep_original: keep the dense blocks beside G, so that `remove` can put them back (G's memory grows by them;
            they are neither pickled nor copied with G). False saves that memory, for training.
        progress: called with (block name, blocks done, blocks in all).

    Returns:
        G itself.

    Raises:
        UnsupportedModelError: no adapter knows the generator.
        PlanError: the wish is impossible or contradictory.
        StateError: G is squeezed in another way already. G is as it was after any error.
    """
    pair = together(G)
    adapter, _ = locate(G if pair is None else pair.average)
    wanted = _wanted(G, adapter.name, reduction, ratio, widths, plan, allocate)
    now = status(G)
    if now.state == "irregular":
        raise StateError(f"the generator is half squeezed ({now.detail}); load it anew")
    if now.state == "squeezed":
        assert now.plan is not None
        if now.plan.same_widths(wanted):
            return G
        raise StateError(
            f"the generator is squeezed already, in another way ({now.plan}). "
            "Call squeeze_patch.remove(G) first, or start from the dense checkpoint"
        )
    if pair is None:
        squeeze(G, wanted, init, keep_original=keep_original, progress=progress)
    else:
        _squeeze_pair(G, pair, wanted, init, keep_original, progress)
    return G


def squeeze(
    G: torch.nn.Module,
    plan: Plan,
    init: str = "calibrated",
    *,
    kept: Optional[Mapping[str, torch.Tensor]] = None,
    keep_original: bool = False,
    progress: Optional[Progress] = None,
) -> Dict[str, torch.Tensor]:
    """Squeeze a dense generator as ``plan`` says, keeping the channels ``kept`` where given.

    Returns:
        {block name: kept channels [q]}, empty with ``init="random"``.
    """
    adapter, network = locate(G)
    check_init(init)
    _check_fits(plan, adapter, network)
    starts = {} if init == "random" else trained_starts(G, adapter, network, plan, init, kept, progress)
    with one_thread():
        new_blocks = _build(adapter, network, plan, starts)

    old_blocks = {name: adapter.block(network, name) for name in new_blocks}
    try:
        for name, new in new_blocks.items():
            adapter.put(network, name, new)
        adapter.mark(G, network, plan.to_dict())
    except BaseException:
        for name, old in old_blocks.items():
            adapter.put(network, name, old)
        raise
    if keep_original:
        _originals[network] = _Originals(old_blocks, _shared(G, old_blocks, new_blocks))
    return {name: start.kept for name, start in starts.items()}


def _squeeze_pair(
    root: torch.nn.Module, pair: EmaPair, plan: Plan, init: str, keep_original: bool, progress: Optional[Progress]
) -> None:
    """Both generators of a training wrapper, or neither."""
    kept = squeeze(pair.average, plan, init, keep_original=True, progress=progress)
    try:
        squeeze(pair.trained, plan, init, kept=kept or None, keep_original=True, progress=progress)
        if init == "random":
            _copy_new_layers(pair)
        pair.adapter.refresh(root)
    except BaseException:
        for G in (pair.trained, pair.average):
            _put_back(G)
        raise
    if not keep_original:
        forget_original(root)


def _copy_new_layers(pair: EmaPair) -> None:
    """A moving average of random layers begins where they do."""
    (adapter, network), (_, average) = locate(pair.trained), locate(pair.average)
    with torch.no_grad():
        for name, dense in _originals[network].blocks.items():
            shared = {id(parameter) for parameter in dense.parameters()}
            targets = dict(adapter.block(average, name).named_parameters())
            for path, parameter in adapter.block(network, name).named_parameters():
                if id(parameter) not in shared:
                    targets[path].copy_(parameter)


def _build(
    adapter: Adapter, network: torch.nn.Module, plan: Plan, starts: Mapping[str, SqueezedStart]
) -> Dict[str, torch.nn.Module]:
    """The plan's squeezed blocks, started but not yet in their places."""
    new_blocks = {}
    # New layers draw random weights that a trained start overwrites: leave the user's random stream as it was. Their
    # parameters are to be trained, also when this is called in inference mode.
    with torch.random.fork_rng(devices=[], enabled=bool(starts)), torch.inference_mode(False):
        for block in plan.blocks:
            new_blocks[block.name] = adapter.build(network, block.name, block.width)
        for name, start in starts.items():
            adapter.fill(new_blocks[name], adapter.block(network, name), start)
    return new_blocks


def remove(G: Module) -> Module:
    """Put the dense blocks back that `apply` took out: the same module objects, so the same keys and images.

    Returns:
        G itself, dense. A dense generator is returned as it is.

    Raises:
        StateError: the dense blocks were not kept (``keep_original=False``, a copy, or a loaded file), or parameters
            that dense and squeezed blocks share were trained in between.
    """
    pair = together(G)
    squeezed_now = [part for part in _parts(G, pair) if status(part).state != "dense"]
    for part in squeezed_now:
        _check_removable(part)
    for part in squeezed_now:
        _put_back(part)
    if pair is not None and squeezed_now:
        pair.adapter.refresh(G)
    return G


def _check_removable(G: torch.nn.Module) -> None:
    adapter, network = locate(G)
    originals = _originals.get(network)
    if originals is None:
        raise StateError(
            "the dense blocks of this generator are not at hand: it was squeezed with keep_original=False, or it is a "
            "copy, or it came from a file. Load the dense checkpoint instead"
        )
    shared = dict(G.named_parameters())
    missing = next((name for name in originals.shared if name not in shared), None)
    if missing is not None:
        raise StateError(
            f"apply was called on another module than this {type(G).__name__}, one with a parameter {missing}; call "
            "remove on that one"
        )
    moved = [name for name, then in originals.shared.items() if not then.same(Fingerprint.of(shared[name]))]
    if moved:
        raise StateError(
            f"{len(moved)} parameters were changed since apply ({moved[0]}, ...), so the dense blocks no longer belong "
            "to the rest of the generator. Load the dense checkpoint instead"
        )
    for name in originals.blocks:
        adapter.check_replaceable(adapter.block(network, name), name)


def _put_back(G: torch.nn.Module) -> None:
    """The dense blocks, where they are at hand."""
    adapter, network = locate(G)
    originals = _originals.get(network)
    if originals is None:
        return
    for name, old in originals.blocks.items():
        _follow(old, adapter.block(network, name))
    for name, old in originals.blocks.items():
        adapter.put(network, name, old)
    adapter.unmark(G, network)
    del _originals[network]


def forget_original(G: torch.nn.Module) -> None:
    """Let go of the dense blocks that `apply` kept beside ``G``; `remove` can no longer put them back."""
    for part in _parts(G, together(G)):
        _originals.pop(locate(part)[1], None)


def _parts(G: torch.nn.Module, pair: Optional[EmaPair]) -> List[torch.nn.Module]:
    return [G] if pair is None else [pair.average, pair.trained]


@contextlib.contextmanager
def squeezed(
    G: Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    plan: Optional[Plan] = None,
    allocate: str = "uniform",
    init: str = "calibrated",
) -> Iterator[Module]:
    """Squeeze G for the length of a ``with`` block: ``with squeezed(G): images = G(z, c)``. Arguments as in `apply`."""
    if status(G).state != "dense":
        raise StateError("squeezed() starts from a dense generator; this one is squeezed already")
    apply(G, reduction=reduction, ratio=ratio, widths=widths, plan=plan, allocate=allocate, init=init)
    try:
        yield G
    except BaseException:
        with contextlib.suppress(SqueezeError):  # the user's own error goes first
            remove(G)
        raise
    remove(G)


def _wanted(
    G: torch.nn.Module,
    family: str,
    reduction: Optional[float],
    ratio: Optional[float],
    widths: Optional[Mapping[int, int]],
    plan: Optional[Plan],
    allocate: str,
) -> Plan:
    if plan is None and allocate != "uniform" and status(G).state == "squeezed":
        # What the dense generator did is no longer to be seen: the same budget counts as the same wish.
        budget, there = make_plan(G, reduction=reduction, ratio=ratio, widths=widths), status(G).plan
        same = there is not None and abs(budget.reduction - there.reduction) <= TOLERANCE
        return there if there is not None and same else budget
    if plan is None:
        return make_plan(G, reduction=reduction, ratio=ratio, widths=widths, allocate=allocate)
    if not (reduction is None and ratio is None and widths is None and allocate == "uniform"):
        raise PlanError("give a plan, or a reduction, ratio, widths or allocate, not both")
    if plan.family != family:
        raise PlanError(f"the plan is for a generator of family {plan.family}, this one is of family {family}")
    return plan


def _check_fits(plan: Plan, adapter: Adapter, network: torch.nn.Module) -> None:
    specs = {spec.name: spec for spec in adapter.specs(network)}
    for block in plan.blocks:
        spec = specs.get(block.name)
        if spec is None or spec.channels != block.channels or not 1 <= block.width <= block.channels:
            has = "no such block" if spec is None else f"{spec.channels} channels"
            raise PlanError(
                f"the plan does not fit this generator: {block.name} should go from {block.channels} to {block.width} "
                f"channels, the generator has {has} there"
            )
    if not plan.blocks:
        raise PlanError("the plan squeezes no block")


def _shared(
    G: torch.nn.Module, old_blocks: Mapping[str, torch.nn.Module], new_blocks: Mapping[str, torch.nn.Module]
) -> Dict[str, Fingerprint]:
    """Fingerprints of the parameters of squeezed ``G`` that the dense generator has too, as the same objects."""
    old, new = ({id(p) for block in blocks.values() for p in block.parameters()} for blocks in (old_blocks, new_blocks))
    return {name: Fingerprint.of(p) for name, p in G.named_parameters() if id(p) in old or id(p) not in new}


def _follow(old: torch.nn.Module, new: torch.nn.Module) -> None:
    """Bring a dense block that was set aside to where the generator is by now: device, dtype, training, frozen."""
    reference = next(new.parameters())
    old.to(device=reference.device, dtype=reference.dtype)
    old.train(new.training)
    flags = {name: parameter.requires_grad for name, parameter in new.named_parameters()}
    for name, parameter in old.named_parameters():
        parameter.requires_grad_(flags.get(name, parameter.requires_grad))
