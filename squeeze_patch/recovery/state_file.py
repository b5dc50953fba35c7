"""The state file: everything that a recovery needs to go on at the very step, and the log beside it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import load_tensors, save_tensors
from squeeze_patch.conditioning import digest as labels_digest
from squeeze_patch.errors import RecoveryError, listed, shortened
from squeeze_patch.planning.plans import Plan
from squeeze_patch.recovery.pair import Pair
from squeeze_patch.recovery.settings import Settings

SCHEMA = 1
#: what of a state is a list of tensors, one for each parameter
_TENSORS = ("weights", "average", "best")


@dataclass(frozen=True)
class Evaluation:
    """One line of the log.

    Attributes:
        step: steps done.
        psnr: dB of the averaged student's images to the teacher's, on the held-out latents, noise off.
        loss, learning_rate: of the last step; None before the first.
        seconds: since the start, breaks left out.
    """

    step: int
    psnr: float
    loss: Optional[float]
    learning_rate: Optional[float]
    seconds: float

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers for JSON, which knows no infinity: the PSNR of equal images is None."""
        return {name: value if value != math.inf else None for name, value in asdict(self).items()}


@dataclass
class State:
    """A recovery between two steps. Tensors are those of the student's trained parameters, in their order.

    There is no random state: every input follows from the seed, the step and its place in the batch.

    Attributes:
        step: steps done.
        weights, average: the student's parameters and their running average.
        best: the weights of the highest PSNR so far.
        best_psnr: their PSNR in dB.
        optimiser: the ``state_dict`` of `optimiser.Optimiser`.
        history: the evaluations so far; the first one is of the start.
        seconds: spent so far.
    """

    step: int
    weights: List[torch.Tensor]
    average: List[torch.Tensor]
    best: List[torch.Tensor]
    best_psnr: float
    optimiser: List[Dict[str, Any]]
    history: List[Evaluation] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Origin:
    """Which generators a run began with: `fingerprint` of both, and without the student's trained parameters, which
    are others once it has ended."""

    whole: str
    rest: str


def save(
    path: Path,
    state: State,
    settings: Settings,
    origin: Origin,
    plan: Optional[Plan],
    wish: Optional[Mapping[str, Any]] = None,
) -> None:
    """Write a state file, whole or not at all; ``plan``: of the student; ``wish``: how it was made from
    the dense one, as `Request.to_dict` has it; None: it came in a file of its own."""
    content = {**vars(state), "history": [asdict(entry) for entry in state.history]}
    content.update(schema=SCHEMA, settings=_settled(settings), origin=origin.whole, rest=origin.rest)
    content.update({} if plan is None else {"plan": plan.to_dict()})
    content.update({} if wish is None else {"wish": dict(wish)})
    with atomic_write(path) as stream:
        save_tensors(content, stream)


def load(path: Path, settings: Settings, origin: Origin, parameters: Sequence[torch.Tensor]) -> Tuple[State, Origin]:
    """Read a state file, without running code from it, tensors on the CPU, and what its run began with.

    Args:
        origin: of the generators at hand. They are the run's where they are what it began with; or where the student
            is what it left: with the best weights, or the average at the step at which the time was up.
        parameters: the student's trained ones.

    Raises:
        RecoveryError: it cannot be read, is damaged, or belongs to a run with other settings or other generators.
    """
    cure = _cure(path)
    content = _content(path)
    for name in ("plan", "wish"):
        content.pop(name, None)
    rest = content.pop("rest", "")
    wrong = _fault(content)
    if wrong:
        raise damaged(path, wrong)
    then, now = content.pop("settings"), _settled(settings)
    different = [f"{name} {then.get(name)!r}, now {now.get(name)!r}" for name in now if then.get(name) != now[name]]
    if different:
        raise RecoveryError(f"{path} is of a run with other settings: {'; '.join(different)}. {cure}")
    whole = content.pop("origin")
    was_left = rest == origin.rest != "" and any(_equal(content[name], parameters) for name in ("best", "average"))
    if whole != origin.whole and not was_left:
        raise RecoveryError(f"{path} is of a run with other generators. {cure}")
    shapes = [parameter.shape for parameter in parameters]
    for name in _TENSORS:
        if [tensor.shape for tensor in content[name]] != shapes:
            raise damaged(path, f"{name} are not those of this student")
    history = [Evaluation(**entry) for entry in content.pop("history")]
    return State(**content, history=history), Origin(whole, rest)


def _settled(settings: Settings) -> Dict[str, Any]:
    """What the weights depend on, beside the generators."""
    return {**asdict(settings), "labels": labels_digest()}


def _equal(stored: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> bool:
    pairs = zip(stored, parameters)
    return len(stored) == len(parameters) and all(torch.equal(one, other.detach().cpu()) for one, other in pairs)


def _fault(content: Mapping[str, Any]) -> str:
    """What is missing in a state, or of another kind than was written; "" where nothing is."""
    wanted = {*(each.name for each in fields(State)), "settings", "origin"}
    if set(content) != wanted:
        return f"it has {listed(map(str, sorted(set(content) ^ wanted, key=str)))} too many or too few"
    for name in _TENSORS:
        if not _is_list(content[name], torch.Tensor):
            return f"{name} are no tensors"
    entries, names = content["history"], {each.name for each in fields(Evaluation)}
    numbered = all(isinstance(content[name], (int, float)) for name in ("step", "best_psnr", "seconds"))
    if not (numbered and isinstance(content["step"], int) and content["step"] >= 0):
        return "its step, best_psnr or seconds is no number"
    if not (_is_list(entries, dict) and entries and all(set(entry) == names for entry in entries)):
        return "its history has no evaluations"
    if not all(value is None or isinstance(value, (int, float)) for entry in entries for value in entry.values()):
        return "its history holds something else than numbers"
    return (
        "" if isinstance(content["settings"], dict) and _is_list(content["optimiser"], dict) else "it has no settings"
    )


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def damaged(path: Optional[Path], what: object) -> RecoveryError:
    """For a state file that was edited, or cut."""
    return RecoveryError(f"{path}: this state of a recovery is damaged ({shortened(what)}). Delete it to start anew")


def _cure(path: Path) -> str:
    return f"Repeat the earlier command, or delete {path} to start anew"


def plan_of_state(path: Path, wish: Mapping[str, Any]) -> Optional[Plan]:
    """The Plan of the student whose state a file holds, which was made for ``wish``; None where the state does not say
    for what: the student came in a file, or the state is one of before it was kept. Then its bits tell.

    Raises:
        RecoveryError: it cannot be read, names no plan, or the student was made for something else.
    """
    content = _content(path)
    found, then = content.get("plan"), content.get("wish")
    if then is None and "milliseconds" not in wish:  # by which no student is made twice alike
        return None
    if found is None:
        raise RecoveryError(f"{path}: this state names no plan. Delete it to start anew")
    if then != dict(wish):
        sides = ("a squeezed file" if one is None else _words(one) for one in (then, wish))
        raise RecoveryError(f"{path} is of a run with other settings: {', now '.join(sides)}. {_cure(path)}")
    return Plan.from_dict(found)


def _words(wish: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shortened(repr(value))}" for name, value in wish.items())


def _content(path: Path) -> Dict[str, Any]:
    try:
        content = load_tensors(path)
    except Exception as error:  # whatever a damaged file brings about
        raise RecoveryError(f"{path}: this is no readable state of a recovery. Delete it to start anew") from error
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise RecoveryError(f"{path}: not a state of this version of squeeze_patch. Delete it to start anew")
    return content


def origin_of(pair: Pair, trained: Sequence[torch.Tensor], is_made: bool) -> Origin:
    """Of a pair of generators, and the student's parameters that are trained. The features of a narrowed student are
    measured before it is trained: it has to be as it was then. One that was made from the teacher (``is_made``) for
    this sitting is what it was but for rounding, and its trained parameters are the state's."""
    if is_made:
        return Origin(fingerprint(pair, trained), "")
    return Origin(fingerprint(pair), "" if pair.handed else fingerprint(pair, trained))


def fingerprint(pair: Pair, without: Sequence[torch.Tensor] = ()) -> str:
    """Of both generators' parameters and buffers, bit by bit, in hexadecimal digits."""
    digest, left_out = hashlib.sha256(), {tensor.data_ptr() for tensor in without}
    for side in (pair.student, pair.teacher):
        for name, value in side.root.state_dict().items():
            if value.data_ptr() in left_out:
                continue
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_log(path: Path, history: List[Evaluation]) -> None:
    """The evaluations as JSON lines, the whole file: after a resume, later lines of the broken run are gone."""
    with atomic_write(path) as stream:
        for entry in history:
            stream.write((json.dumps(entry.to_dict(), allow_nan=False) + "\n").encode())
