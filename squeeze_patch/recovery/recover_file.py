"""A recovery from files to a file."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, Optional

import torch

from squeeze_patch.adapters import entry_roles, reference_name, role_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.checkpoints.convert import convert_file, is_bare
from squeeze_patch.checkpoints.generators import dense_generators, generators
from squeeze_patch.checkpoints.io import read, save
from squeeze_patch.checkpoints.pickles import PathLike, host_path
from squeeze_patch.checkpoints.safe_tensors import check_name
from squeeze_patch.errors import CheckpointError, StateError
from squeeze_patch.planning.planner import timed_plan_for
from squeeze_patch.planning.plans import Plan
from squeeze_patch.planning.request import Request
from squeeze_patch.progress import Progress
from squeeze_patch.recovery import processes as parallel
from squeeze_patch.recovery.distillation import Recovery, run
from squeeze_patch.recovery.paths import check_paths, log_path, state_path
from squeeze_patch.recovery.session import Budget, StepProgress
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.state_file import plan_of_state
from squeeze_patch.surgery.status import status_of_part


@dataclass(frozen=True)
class Source:
    """How hosts' pickles are read: see `squeeze_patch.convert`."""

    trust: bool = False
    host: Optional[PathLike] = None


def recover_file(
    dense: PathLike,
    squeezed: Optional[PathLike],
    target: PathLike,
    settings: Settings,
    *,
    budget: Optional[Budget] = None,
    source: Optional[Source] = None,
    request: Optional[Request] = None,
    force: bool = False,
    log: Optional[PathLike] = None,
    device: Optional[str] = None,
    progress: Optional[StepProgress] = None,
    squeezing: Callable[[], ContextManager[Optional[Progress]]] = contextlib.nullcontext,
    say: Callable[[str], None] = lambda line: None,
) -> Recovery:
    """Write ``squeezed`` with generators that make the dense ones' images again.

    The dense file's moving average is the teacher, the squeezed one's the student; the generator that is
    trained becomes a copy of the recovered one where it is squeezed alike, everything else is carried over, its
    optimiser and other generators, too. A state file beside the target lets a run that was broken off go on; it is
    deleted at the end, unless the time ran out.

    Args:
        dense: a host's pickle, or a file of torch.save with state dicts of a known family.
        squeezed: the same, converted; None = convert ``dense`` first, as ``request`` says.
        target: the file to write, whole or not at all.
        settings, budget, progress: as for `squeeze_patch.recover`.
        source: whether the pickles are trusted, and the host's folder.
        force: overwrite ``target`` where it exists.
        log: file of the evaluations; default ``target`` with .jsonl.
        device: "cpu", "cuda", ...; default a GPU where there is one. torchrun's processes share the work.
        squeezing: makes what is told of the conversion, for its length, as `squeeze_patch.convert`'s
            ``progress`` (in the first process).
        say: told, in the first process, what was measured for a budget in milliseconds.

    Raises:
        CheckpointError: a file cannot be read or written, or holds no generator.
        SqueezeError: as for `squeeze_patch.recover`; ``target`` is not written.
    """
    dense, target = Path(dense), Path(target)
    source, request = source or Source(), request or Request()
    memory, journal = state_path(target), Path(log) if log else log_path(target)
    check_paths(dense, None if squeezed is None else Path(squeezed), target, journal, force)
    if squeezed is not None and not request.is_default:
        raise CheckpointError(
            f"{squeezed} is squeezed already; give it, or a ratio, reduction, plan or allocation for the dense file"
        )
    with parallel.joined(device) as place, host_path(source.host):
        origin = read(dense, trust=source.trust)
        if squeezed is None:
            check_name(target, origin)  # what it is converted to is of its kind
        reference = _reference(_dense_generators(dense, origin))
        teacher = reference.root.to(place)
        told = squeezing if parallel.current().first else contextlib.nullcontext
        wish, plan = None, None
        if squeezed is None:
            plan = _planned(reference, request, not is_bare(origin), memory, told, say)
            wish = request.to_dict() if plan is not None or not memory.exists() else None
        with _squeezed_file(dense, squeezed, source, request, plan, told) as path:
            data = read(path, trust=source.trust)
        check_name(target, data)
        found = _squeezed_generators(path, data)
        student = _reference(found).root.to(place)
        result = run(student, teacher, settings, budget or Budget(), memory, journal, progress, wish)
        student.to("cpu")
        _follow(found, student)
        if parallel.current().first:
            save(data, target, force=True)
            if result.stopped != "minutes":
                memory.unlink()
    return result


@contextlib.contextmanager
def _squeezed_file(
    dense: Path,
    squeezed: Optional[PathLike],
    source: Source,
    request: Request,
    plan: Optional[Plan],
    squeezing: Callable[[], ContextManager[Optional[Progress]]],
) -> Iterator[Path]:
    """The squeezed file, or one made from the dense file; ``plan`` as of `_planned`."""
    if squeezed is not None:
        yield Path(squeezed)
        return
    with tempfile.TemporaryDirectory(prefix="squeeze_patch_") as folder:
        path = Path(folder) / f"squeezed{dense.suffix[:20]}"  # a long name would be too long
        with squeezing() as progress:
            convert_file(dense, path, request, trust=source.trust, progress=progress, first=plan)
        yield path


def _planned(
    teacher: Located,
    request: Request,
    has_inner: bool,
    memory: Path,
    squeezing: Callable[[], ContextManager[Optional[Progress]]],
    say: Callable[[str], None],
) -> Optional[Plan]:
    """How the generator that is trained is squeezed, the same in all processes; None = as the request says. A run that
    goes on takes the plan and the channels that it began with: times vary from call to call, and on another processor
    what is fitted does by rounding."""

    def wanted() -> Optional[Plan]:
        if memory.exists():
            return plan_of_state(memory, request.to_dict())
        if request.milliseconds is None:
            return None
        with squeezing() as progress:
            plan, timing = timed_plan_for(teacher, request, has_inner=has_inner, progress=progress)
        say(str(timing))
        return plan

    return parallel.current().from_first(wanted)


def _dense_generators(path: Path, data: Any) -> Dict[str, Located]:
    found = generators(data)
    for name, G in found.items():
        now = status_of_part(G)
        if now.state != "dense":
            raise StateError(
                f"{path}: {name or 'the generator'} is not dense ({now}). The dense file, which is the teacher, "
                "comes first: recover DENSE SQUEEZED"
            )
    return dense_generators(path, data)


def _squeezed_generators(path: Path, data: Any) -> Dict[str, Located]:
    found = generators(data)
    if not found:
        raise CheckpointError(f"{path}: no generator in this file that an adapter knows")
    squeezed = {name: G for name, G in found.items() if status_of_part(G).state == "squeezed"}
    if reference_name(found) not in squeezed:
        name = reference_name(found)
        raise StateError(
            f"{path}: {name or 'the generator'} is not squeezed ({status_of_part(found[name])}). Leave this file out "
            "to squeeze the dense one first, or convert it"
        )
    return squeezed


def _reference(found: Dict[str, Located]) -> Located:
    return found[reference_name(found)]


def _follow(found: Dict[str, Located], student: torch.nn.Module) -> None:
    """Give the generator that is trained, where it is squeezed alike, the recovered weights and buffers: it is named as
    its average is, but for its role. Others may be of something else (a source and a target, say)."""
    state = student.state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    place = _place(reference_name(found))
    for name, other in ((name, part.root) for name, part in found.items()):
        is_trained = role_of(name) == "G" and _place(name) == place
        if is_trained and {n: v.shape for n, v in other.state_dict().items()} == shapes:
            other.load_state_dict(copy.deepcopy(state))


def _place(name: str) -> str:
    """The name of an entry without what says its role."""
    known = entry_roles()
    return "" if name in known else ".".join(part for part in name.split(".") if part not in known)
