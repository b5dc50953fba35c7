"""apply, squeezed: from a Plan to replaced blocks, all or nothing."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, Dict, Iterator, Mapping, Optional, TypeVar, Union

import torch

from squeeze_patch.adapters import search
from squeeze_patch.adapters.content import BlockShape, Kept
from squeeze_patch.adapters.located import Located, Target
from squeeze_patch.errors import LostWarning, ProofError, SqueezeError, StateError
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.registry import (
    DEFAULT_INIT,
    INITS,
    SEED,
    check_finite,
    check_init,
    check_seed,
    trained_starts,
)
from squeeze_patch.planning.kept import recorded
from squeeze_patch.planning.planner import is_meant, plan_for
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import check_fits, shapes_of
from squeeze_patch.process_settings import ONE_AT_A_TIME
from squeeze_patch.progress import Progress, one_thread, own_settings
from squeeze_patch.surgery.belongings import belongings_of
from squeeze_patch.surgery.originals import KEPT, TrainedParameters, forget, hooks_of, keep, put_back, same_modes, undo
from squeeze_patch.surgery.proof import UNCHANGED, build_twins, prove
from squeeze_patch.surgery.references import held, redirect, shared
from squeeze_patch.surgery.relatives import kept_like, relative
from squeeze_patch.surgery.remove import remove
from squeeze_patch.surgery.status import Status, status, status_of

Module = TypeVar("Module", bound=torch.nn.Module)


def apply(
    G: Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    plan: Optional[Plan] = None,
    allocate: Optional[str] = None,
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    milliseconds: Optional[float] = None,
    like: Union[torch.nn.Module, Plan, None] = None,
    init: str = DEFAULT_INIT,
    keep_original: bool = True,
    progress: Optional[Progress] = None,
    seed: int = SEED,
    verify: bool = True,
) -> Module:
    """Replace the image skip connection of a generator by the image squeeze connection, in place.

    Trained starts of conditional generators go by labels: see `squeeze_patch.labels`.

    Do it before building optimisers and before wrapping for parallel training: both record parameters. A second call
    with the same request does nothing, whatever its ``init``.

    Args:
        G: a generator (G, G_ema), or a module that holds exactly one; or a training wrapper that its adapter knows,
            whose generator and moving average get the same channels, chosen on the average.
        reduction: share of G's parameters to save, 0 to 1; default 0.121, the paper's figure.
        ratio: c / q for every block instead, 1 or more.
        widths: {resolution: q} instead; blocks that are not named stay dense.
        plan: a Plan instead, from `squeeze_patch.plan` or from a file.
        allocate: "spectral" spends the budget where G's images need it, "uniform" squeezes all blocks by one ratio; see
            `plan`. Default: "spectral" for a ``reduction`` or ``multiply_adds``, named or not, with a calibrated start;
            else "uniform".
        method: "squeeze" = the image squeeze connection; "narrow" = fewer channels behind both convolutions of a block
            and no excite, so that the next block reads fewer as well: a plain StyleGAN2 of unequal widths, of the
            host's own classes. What reads c channels between blocks beside them (GGDR's discriminator) cannot.
        multiply_adds: share of G's multiply-adds that an image may take, 0 to 1, instead of ``reduction``.
        milliseconds: that a call ``G(z, c)`` for one image may take here, instead; see `plan`.
        like: a squeezed relative of G (the parent that it was fine-tuned from, another snapshot), or its Plan, instead:
            the same widths, and the same channels kept, so that weights of the two can be averaged and swapped.
        init: "calibrated" = start from G's trained weights, fitted block by block to what they make of random latents
            (at the official sizes about a minute on two cores); "weights" = simpler statistics of the same weights, in
            seconds; "random" = fresh conv1, torgb and excite, to train from scratch.
        keep_original: keep the dense blocks beside G, so that `remove` can put them back (G's memory grows by them;
            they are neither pickled nor copied with G). False saves that memory, for training.
        progress: called with (block name, blocks done, blocks in all), before that with ("allocating", ...) and, for a
            budget in milliseconds, ("timing", ...).
        seed: of the latents that a trained start, or "spectral", looks at.
        verify: run G a few times first, with an equal block in the place of each that is to be squeezed: its images
            have to stay the same. It costs some images' time and finds forks that only look like a known host.

    Returns:
        G itself.

    Warns:
        UnprovedWarning: G could not be run so (it wants more than a latent, it is on the meta device, ...).
        LostWarning: with ``verify=False``, something of yours on the layers that go has no place on those that come.

    Raises:
        UnsupportedModelError: no adapter knows the generator.
        PlanError: the request is impossible or contradictory.
        ProofError: G does not compute what a StyleGAN2 generator does, or its layers have something beyond their class
            that would be lost (layers or buffers of yours, functions changed on them, parameters held elsewhere).
        StateError: G is squeezed in another way already. G is as it was after any error.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.apply(trained_generator(), ratio=2)
        >>> print(squeeze_patch.status(G))
        squeezed: 4 of 4 blocks, 263,531 -> 202,459 parameters (23.17 % fewer)
    """
    request = Request(reduction, ratio, widths, plan, allocate, relative(like), method, multiply_adds, milliseconds)
    apply_request(G, request, init, keep_original=keep_original, progress=progress, seed=seed, verify=verify)
    return G


@own_settings(eager=True)
def apply_request(
    G: torch.nn.Module,
    request: Request,
    init: str = DEFAULT_INIT,
    *,
    keep_original: bool = True,
    progress: Optional[Progress] = None,
    seed: int = SEED,
    verify: bool = True,
    record: bool = False,
) -> None:
    """As `apply`. ``record``: what the request's Plan says of channels kept is true, since weights follow that have
    them."""
    check_init(init)
    seed = check_seed(seed)
    with ONE_AT_A_TIME:
        target = search(G)
        now = status_of(target)
        if now.state == "irregular":
            raise StateError(f"the generator is half squeezed ({now.detail}); load it anew")
        observed = Observation(target.reference, seed)
        wanted = _wanted(observed, request, now, init, progress)
        if now.state == "dense":
            how: Dict[str, Any] = {"progress": progress, "seed": seed, "verify": verify, "record": record}
            _squeeze_target(target, observed, wanted, init, keep_original, kept_like(request, init), how)
        elif request.like is not None and now.plan is not None and not now.plan.same_channels(request.like):
            raise StateError(
                "the generator is squeezed already, with other channels than the one that it should be like. Call "
                "squeeze_patch.remove(G) first, or start from the dense checkpoint"
            )
        elif now.plan is None or not now.plan.same_widths(wanted):
            raise StateError(
                f"the generator is squeezed already, in another way ({now.plan}). "
                "Call squeeze_patch.remove(G) first, or start from the dense checkpoint"
            )


def squeeze(
    found: Located,
    plan: Plan,
    init: str = DEFAULT_INIT,
    *,
    kept: Optional[Mapping[str, Kept]] = None,
    keep_original: bool = False,
    progress: Optional[Progress] = None,
    seed: int = SEED,
    verify: bool = False,
    record: bool = False,
    is_own: bool = False,
    observed: Optional[Observation] = None,
) -> Dict[str, Kept]:
    """Squeeze a dense generator as ``plan`` says, keeping the channels ``kept`` where given; ``record`` as for
    `apply_request`. ``is_own``: its layers are an adapter's own, about which running them would prove nothing.
    ``observed`` as for `trained_starts`.

    Returns:
        {block name: channels kept}, empty with ``init="random"``.
    """
    check_fits(plan, found.specs)
    shapes = shapes_of(found.specs, plan.blocks)
    old_blocks = {name: found.get_block(name) for name in shapes}
    random, hooks = torch.get_rng_state(), hooks_of(found.root)
    check_init(init)
    trained = INITS[init].make is not None
    new_blocks: Dict[str, torch.nn.Module] = {}
    try:
        if trained:
            check_finite(found)
        with one_thread():
            twins = build_twins(found, shapes)
            new_blocks = _build(found, shapes, begun=trained)
        for name, block in new_blocks.items():
            same_modes(old_blocks[name], block)
        _keep_belongings(found, old_blocks, twins, new_blocks, verify)
        trial = prove(found, twins) if verify and not is_own else None
        starts = trained_starts(found, shapes, init, kept=kept, progress=progress, seed=seed, observed=observed)
        for name, start in starts.items():
            found.surgery.load_start(new_blocks[name], old_blocks[name], start)
        for name, new in new_blocks.items():
            found.set_block(name, new)
        redirect(found.root, old_blocks, new_blocks)
        if trial is not None:
            trial.check_squeezed()
        chosen = plan if record else recorded(plan, {name: start.kept for name, start in starts.items()})
        found.surgery.attach_plan(found.root, found.network, chosen.to_dict())
        if keep_original:
            keep(found, old_blocks, new_blocks)
    except BaseException:
        undo(found, old_blocks, new_blocks, hooks)
        torch.set_rng_state(random)
        raise
    return {name: start.kept for name, start in starts.items()}


def _squeeze_target(
    target: Target,
    observed: Observation,
    plan: Plan,
    init: str,
    keep_original: bool,
    kept: Optional[Mapping[str, Kept]],
    how: Mapping[str, Any],
) -> None:
    """Every generator of the target with the channels of the first one, which is ``observed``, or none of them; ``how``
    as for `squeeze`."""
    dense = TrainedParameters(target)
    try:
        for part in target.parts:
            seen = observed if part is observed.found else None
            found = squeeze(part, plan, init, kept=kept, keep_original=True, observed=seen, **how)
            kept = found or None
        if target.wrapper is not None and init == "random":
            _copy_new_layers(target)
        dense.refresh()
    except BaseException:
        squeezed_now = TrainedParameters(target)
        for part in target.parts:
            put_back(part)
        squeezed_now.refresh()  # the wrapper may have been told of the new layers already
        raise
    if not keep_original:
        forget(target)


def _copy_new_layers(target: Target) -> None:
    """A moving average of random layers begins where they do."""
    average, trained = target.parts
    with torch.no_grad():
        for name, dense in KEPT[trained.network].blocks.items():
            shared = {id(parameter) for parameter in dense.parameters()}
            targets = dict(average.get_block(name).named_parameters())
            for path, parameter in trained.get_block(name).named_parameters():
                if id(parameter) not in shared:
                    targets[path].copy_(parameter)


def _build(found: Located, shapes: Mapping[str, BlockShape], begun: bool) -> Dict[str, torch.nn.Module]:
    """The plan's squeezed blocks, of random layers, not yet in their places; ``begun``: a trained start follows."""
    # A trained start overwrites what new layers draw: leave the user's random stream as it was. Their parameters are to
    # be trained, also when this is called in inference mode.
    with torch.random.fork_rng(devices=[], enabled=begun), torch.inference_mode(False):
        return {name: found.surgery.build(found.network, name, shape) for name, shape in shapes.items()}


def _keep_belongings(
    found: Located,
    old_blocks: Mapping[str, torch.nn.Module],
    twins: Mapping[str, torch.nn.Module],
    new_blocks: Mapping[str, torch.nn.Module],
    verify: bool,
) -> None:
    """Give the twins and the new blocks what the user's have beyond their class; `ProofError` where something would be
    lost, a `LostWarning` where nothing is to be verified."""
    lost = []
    for name, old in old_blocks.items():
        more = belongings_of(name, old, twins[name], new_blocks[name], found.surgery.bookkeeping)
        lost += more.lost
        more.give_to(twins[name])
        more.give_to(new_blocks[name])
    lost += [*shared(old_blocks, new_blocks), *held(found.root, old_blocks, new_blocks)]
    if lost and verify:
        raise ProofError(
            f"in {type(found.root).__name__} {'; '.join(lost)}: that would be lost, what takes its place has no such "
            f"thing. Remove it or merge it into the weights, and add it anew afterwards. {UNCHANGED}"
        )
    if lost:
        warnings.warn(f"lost by squeezing {type(found.root).__name__}: {'; '.join(lost)}", LostWarning, stacklevel=2)


@contextlib.contextmanager
def squeezed(
    G: Module,
    *,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    plan: Optional[Plan] = None,
    allocate: Optional[str] = None,
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    milliseconds: Optional[float] = None,
    like: Union[torch.nn.Module, Plan, None] = None,
    init: str = DEFAULT_INIT,
    progress: Optional[Progress] = None,
    seed: int = SEED,
    verify: bool = True,
) -> Iterator[Module]:
    """Squeeze G for the length of a ``with`` block. Arguments as in `apply`.

    Raises:
        StateError: G is squeezed already; others as `apply`.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = trained_generator()
        >>> with squeeze_patch.squeezed(G, init="weights"):
        ...     squeeze_patch.status(G).state
        'squeezed'
        >>> squeeze_patch.status(G).state
        'dense'
    """
    if status(G).state != "dense":
        raise StateError("squeezed() starts from a dense generator; this one is squeezed already")
    request = Request(reduction, ratio, widths, plan, allocate, relative(like), method, multiply_adds, milliseconds)
    apply_request(G, request, init, progress=progress, seed=seed, verify=verify)
    try:
        yield G
    except BaseException:
        with contextlib.suppress(SqueezeError):  # the user's own error goes first
            remove(G)
        raise
    remove(G)


def _wanted(observed: Observation, request: Request, now: Status, init: str, progress: Optional[Progress]) -> Plan:
    if now.state == "squeezed" and now.plan is not None and is_meant(request, observed.found, now.plan):
        return now.plan
    request = request if now.state != "squeezed" else request.uniform()
    return plan_for(observed.found, request, init, progress=progress, observed=observed)
