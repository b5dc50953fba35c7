"""convert: a checkpoint file with every generator squeezed, written atomically."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch

from squeeze_patch.adapters import reference_name
from squeeze_patch.adapters.content import Kept
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.bodies import WHOLE
from squeeze_patch.checkpoints.fused_files import check_holds_whole
from squeeze_patch.checkpoints.generators import dense_generators, plan_in_file, refuse_diverged
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.checkpoints.nested import warn_of_nested
from squeeze_patch.checkpoints.optimizer_state import follow_all, parameters_of
from squeeze_patch.checkpoints.pickles import PathLike, host_path
from squeeze_patch.checkpoints.safe_tensors import TensorFile, alone, check_form, is_named_so
from squeeze_patch.checkpoints.state_dicts import Archive
from squeeze_patch.checkpoints.stored import StoredFile
from squeeze_patch.checkpoints.targets import check_space, check_target, refuse_relative
from squeeze_patch.conditioning import in_words
from squeeze_patch.errors import CheckpointError, SqueezeError, UnsupportedModelError
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.registry import DEFAULT_INIT, SEED, check_init, check_seed
from squeeze_patch.planning.cost import Report, report
from squeeze_patch.planning.kept import kept_of, recorded
from squeeze_patch.planning.milliseconds import Timing
from squeeze_patch.planning.planner import plan_for, timed_plan_for
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.process_settings import ONE_AT_A_TIME
from squeeze_patch.progress import Progress, own_settings
from squeeze_patch.surgery.apply import squeeze
from squeeze_patch.surgery.fuse import fuse_part, nothing_to_fuse
from squeeze_patch.surgery.relatives import kept_like, relative


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        source, target: the files.
        plan: the Plan of the reference generator; it is stored in the target with every generator.
        generators: names of the generators that were squeezed.
        shared_channels: whether all of them keep the same channels, so that averaging them goes on making sense.
        carried: names of everything that was carried over unchanged.
        left: names of what the target does not hold, where it holds one generator alone.
        cost: parameters and multiply-adds before and after.
        bytes_before, bytes_after: file sizes.
        init: the start that was made, "calibrated", "weights" or "random".
        optimisers: what became of the optimiser states of squeezed generators, a line each.
        aliases: {further name of a squeezed generator: its name in ``generators``}, of files that store one object
            under several names.
        timing: what was measured for a budget in milliseconds, on the reference generator.
        labels: which ones a trained start saw, in words; "" where generators take none, and of random starts.
    """

    source: Path
    target: Path
    plan: Plan
    generators: Tuple[str, ...]
    shared_channels: bool
    carried: Tuple[str, ...]
    cost: Report
    bytes_before: int
    bytes_after: int
    init: str
    optimisers: Tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    left: Tuple[str, ...] = ()
    timing: Optional[Timing] = None
    labels: str = ""


def convert(
    source: PathLike,
    target: PathLike,
    *,
    trust: bool = False,
    host: Optional[PathLike] = None,
    reduction: Optional[float] = None,
    ratio: Optional[float] = None,
    widths: Optional[Mapping[int, int]] = None,
    plan: Optional[Plan] = None,
    allocate: Optional[str] = None,
    method: str = "squeeze",
    multiply_adds: Optional[float] = None,
    milliseconds: Optional[float] = None,
    like: Union[PathLike, torch.nn.Module, Plan, None] = None,
    init: str = DEFAULT_INIT,
    seed: int = SEED,
    verify: bool = True,
    force: bool = False,
    form: Optional[str] = None,
    fuse: bool = False,
    progress: Optional[Progress] = None,
) -> Conversion:
    """Squeeze every generator in a checkpoint file and write the result, which the untouched host loads.

    Trained starts of conditional generators go by labels: see `squeeze_patch.labels`.

    All generators of one shape keep the same channels, chosen on the moving average. The state of a generator's
    optimiser, where the file has it, follows the kept channels. Discriminators, w_avg and everything else are carried
    over as they are. The target appears whole or not at all.

    Args:
        source: a host's pickle, or a file of torch.save with state dicts of a known family.
        target: the file to write.
        trust: load the file as its host does, which runs code that is stored in it; True says that you trust it. Needed
            for forks with layers of their own, and for files of torch.save that hold more than tensors and plain
            values; all others are read without running anything.
        host: folder of the host's checkout, which a trusted pickle may need.
        reduction, ratio, widths, plan, allocate, method, multiply_adds, like, init, seed, verify: as for
            `squeeze_patch.apply`; ``like`` may be a squeezed file, too.
        milliseconds: as for `squeeze_patch.apply`, measured on the CPU; of a file that is read without its host, on
            generators of squeeze_patch's own with the same arithmetic.
        force: overwrite ``target`` where it exists.
        form: "safetensors" or "pt" = write the generator alone (the moving average, or the only one) as a state dict in
            a file of that kind; default: the whole file, as it came.
        fuse: let the squeezed generators sample faster wherever the file is loaded, as `squeeze_patch.fuse` does; for
            files that hold whole generators.
        progress: called with (what, steps done, steps in all).

    Raises:
        CheckpointError: the file cannot be read or written, or holds no generator, or one that has diverged.
        PlanError, UnsupportedModelError, StateError: as for `squeeze_patch.apply`; nothing is written.

    Warns:
        LostWarning: an entry holds a generator inside of something else (a list, a dict, another module), or is a
            generator's state dict beside whole networks.

    Example:
        >>> import pickle, tempfile
        >>> from pathlib import Path
        >>> from squeeze_patch.demo import trained_generator
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dense = Path(folder, "dense.pkl")
        ...     _ = dense.write_bytes(pickle.dumps({"G_ema": trained_generator()}))
        ...     done = squeeze_patch.convert(dense, Path(folder, "squeezed.pkl"), trust=True, ratio=2)
        >>> done.generators, done.plan.parameters_after
        (('G_ema',), 202459)
    """
    if isinstance(like, (str, Path)):
        refuse_relative(Path(like), Path(target))
    with host_path(host):
        other = plan_in_file(like, trust=trust) if isinstance(like, (str, Path)) else relative(like)
    request = Request(reduction, ratio, widths, plan, allocate, other, method, multiply_adds, milliseconds)
    how: Dict[str, Any] = {"trust": trust, "host": host, "seed": seed, "verify": verify, "force": force, "form": form}
    return convert_file(source, target, request, init, fuse=fuse, progress=progress, **how)


@own_settings()
def convert_file(
    source: PathLike,
    target: PathLike,
    request: Request,
    init: str = DEFAULT_INIT,
    *,
    trust: bool = False,
    host: Optional[PathLike] = None,
    seed: int = SEED,
    verify: bool = True,
    force: bool = False,
    form: Optional[str] = None,
    fuse: bool = False,
    progress: Optional[Progress] = None,
    first: Optional[Plan] = None,
) -> Conversion:
    """As `convert`; ``first``: what the first generator gets, the moving average, and those of its shape, whatever the
    request says, with the channels that it records."""
    source, target = Path(source), Path(target)
    check_init(init)
    seed = check_seed(seed)
    named = "safetensors" if is_named_so(target) else None
    if named is not None and form not in (None, named):
        raise CheckpointError(f"{target}: a file of this name is one of safetensors, not of {form}; name another one")
    check_form(form or named)
    check_target(source, target, force)
    given = request.plan or request.like
    if fuse and (given.method if given is not None and given.blocks else request.method) == "narrow":
        raise nothing_to_fuse("what is written")  # before the work
    with host_path(host):
        data = read(source, trust=trust)
        form = form or (None if isinstance(data, TensorFile) else named)
        if isinstance(data, StoredFile) and form is None:
            data.check_writable(source)
        check_space(source, target)
        found = dense_generators(source, data)
        if fuse:
            check_holds_whole(source, data, found, form)
        reference = reference_name(found)
        order = [reference, *(name for name in found if name != reference)]
        refuse_diverged(source, found)
        if form is None:
            _refuse_modules(source, data, found)
            warn_of_nested(data, found)
        planning: Dict[str, Any] = {
            "has_inner": not (form is None and is_bare(data)),
            "progress": progress,
        }
        observed = {name: Observation(found[name], seed) for name in order}
        plans, timing = _plans(observed, request, first, init, planning)
        if form is None:
            _refuse_bare(source, data, plans[reference])
        cost = report(found[reference], plans[reference])
        dense = {name: parameters_of(found[name].root) for name in order}
        like = kept_like(request, init) if first is None else kept_of(first)
        how: Dict[str, Any] = {"verify": verify, "is_own": isinstance(data, (Archive, StoredFile))}
        try:
            shared, kept = _squeeze_all(observed, plans, init, like, progress, how)
        except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
            if isinstance(error, SqueezeError) or not how["is_own"]:
                raise
            raise CheckpointError(
                f"{source}: its generator holds values that cannot be computed with ({type(error).__name__}: {error})"
            ) from error
        refuse_diverged(source, {name: G.again() for name, G in found.items()})
        for G in found.values() if fuse else ():
            fuse_part(G.again(), verify, progress)
        optimisers = follow_all(data, found, dense, kept)
        save(data if form is None else alone(found[reference].again(), form), target, force=force)
    names = list(data) if isinstance(data, dict) else []
    one_object = ((name, other) for name in names if str(name) not in found for other in order)
    aliases = {str(name): other for name, other in one_object if data[name] is found[other].root}
    changed = {*found, *optimisers, *aliases}
    others = tuple(_told(name, found) for name in names if str(name) not in changed and _is_something(data[name]))
    left = (*(name for name in order[1:] if form), *(optimisers if form else ()), *(others if form else ()))
    return Conversion(
        source=source,
        target=target,
        plan=plans[reference] if form is None and is_bare(data) else recorded(plans[reference], kept[reference]),
        generators=tuple(order[:1] if form else order),
        shared_channels=shared,
        carried=() if form else others,
        left=left,
        cost=cost,
        bytes_before=source.stat().st_size,
        bytes_after=target.stat().st_size,
        init=init,
        optimisers=() if form else tuple(f"{name}: {line}" for name, line in optimisers.items()),
        aliases={} if form else aliases,
        timing=timing,
        labels=_labels(found[reference]) if init != "random" else "",
    )


def _labels(G: Located) -> str:
    try:
        return in_words(G.sampler().c_dim)
    except UnsupportedModelError:  # no whole generator, which does not say
        return ""


def _told(name: Any, found: Mapping[str, Located]) -> str:
    """An entry that is carried over: of one that holds generators, what else is in it."""
    holds = any(generator.startswith(f"{name}.") for generator in found)
    return f"the rest of {name}" if holds else str(name) or "other tensors"


def _is_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, dict) and not value)


def is_bare(data: Any) -> bool:
    """Whether a file is one state dict and no more, with no place for a Plan."""
    return isinstance(data, Archive) and WHOLE in data.sites


def _refuse_bare(source: Path, data: Any, plan: Plan) -> None:
    """Plans that have to travel with their generators, in files that have no place for one."""
    if is_bare(data) and not plan.is_told_by_shapes:
        raise CheckpointError(
            f"{source}: this file is a bare state dict, which has no place for the Plan, and sizes of layers alone do "
            "not say what was narrowed; convert --format pt or --format safetensors (in Python: form=) writes the Plan "
            "beside the weights"
        )


def _refuse_modules(source: Path, data: Any, found: Mapping[str, Located]) -> None:
    """Whole modules in files of torch.save, of families whose classes do not travel in their pickles."""
    for name, G in found.items():
        if isinstance(data, Archive) and name not in data.sites and G.adapter.pickles is None:
            raise CheckpointError(
                f"{source}: {name or 'the file'} holds a whole {type(G.root).__name__}, not its state dict; squeezed, "
                "it could only be loaded where squeeze_patch is installed. Save its state_dict(), and convert that file"
            )


def _plans(
    observed: Mapping[str, Observation], request: Request, first: Optional[Plan], init: str, how: Mapping[str, Any]
) -> Tuple[Dict[str, Plan], Optional[Timing]]:
    """Of every generator; those of one shape get one plan, the first one's, whose timing is returned, too. ``first`` as
    for `convert_file`, ``how`` as for `timed_plan_for`."""
    plans: Dict[str, Plan] = {}
    given = request.plan is not None or request.like is not None
    # whatever the wish, any ratio tells whether two generators are of one shape
    shape = request if given else Request(ratio=2)
    uniform = {name: plan_for(seen.found, shape) for name, seen in observed.items()}
    timings: List[Optional[Timing]] = []
    for name, seen in observed.items():
        twin = next((other for other in plans if uniform[other].same_widths(uniform[name])), None)
        if twin is not None:
            plans[name] = plans[twin]
        else:
            wish = request if first is None or plans else Request(plan=first)
            plans[name], timing = timed_plan_for(seen.found, wish, init, observed=seen, **how)
            timings.append(timing)
    return plans, timings[0]


def _squeeze_all(
    observed: Mapping[str, Observation],
    plans: Mapping[str, Plan],
    init: str,
    like: Optional[Mapping[str, Kept]],
    progress: Optional[Progress],
    how: Mapping[str, Any],
) -> Tuple[bool, Dict[str, Dict[str, Kept]]]:
    """Squeeze the generators in the order of ``plans``, all with the first one's channels where their shapes agree; the
    first with the channels ``like`` where given; ``how`` as for `squeeze`.

    Returns:
        whether all agree, {generator: {block: kept channels}}.
    """
    kept: Dict[str, Dict[str, Kept]] = {}
    shared = True
    order = list(plans)
    for name in order:

        def step(block: str, done: int, total: int, name: str = name) -> None:
            if progress is not None:
                progress(f"{name}.{block}", order.index(name) * total + done, len(order) * total)

        fits = plans[name].same_widths(plans[order[0]])
        shared = shared and fits
        given = (kept.get(order[0]) or like) if fits else None
        seen = observed[name]
        with ONE_AT_A_TIME:
            kept[name] = squeeze(seen.found, plans[name], init, kept=given or None, progress=step, observed=seen, **how)
    return shared, kept
