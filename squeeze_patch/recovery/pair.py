"""A squeezed generator and the dense one that it came from: do they belong together, and how are they run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Dict, List

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import StateError
from squeeze_patch.planning.kept import kept_of
from squeeze_patch.planning.shapes import dense_of
from squeeze_patch.surgery.status import status_of_part

#: of parameters in which small steps are lost, and an optimiser's moments leave their range
_COARSE = (torch.float16, torch.bfloat16)
CURE = "Name the dense checkpoint that the squeezed one was converted from"


@dataclass(frozen=True)
class Pair:
    """Two generators that agree in everything but the squeezed blocks; made by `pair_of`.

    Attributes:
        student, teacher: the squeezed and the dense generator.
        tapped: names of the blocks whose features have a reader, and are known to be the teacher's; all but the last.
        handed: {block name: which of the teacher's channels a narrowed block hands on [q]}; of the others all.
    """

    student: Located
    teacher: Located
    tapped: List[str]
    handed: Dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return reference_of(self.student.network).device

    @property
    def num_ws(self) -> int:
        """Styles that a synthesis network takes."""
        return self.teacher.running.num_ws(self.teacher.network)

    def sample_w(self, n: int, seed: int) -> torch.Tensor:
        """Styles [n, w_dim], float32, on the CPU, of latents (and classes) drawn with ``seed``."""
        return self.teacher.sample_w(n, seed)

    def images(self, side: Located, w: torch.Tensor, noise_mode: str, first: int = 0) -> torch.Tensor:
        """Images [N, C, R, R], float32, that one of the two makes of styles [N, num_ws, w_dim], of which the first one
        stands at the place ``first`` of its batch."""
        return side.running.synthesis_at(side.network, w, noise_mode, first)


def pair_of(student: torch.nn.Module, teacher: torch.nn.Module) -> Pair:
    """Check that ``student`` is the squeezed form of ``teacher``.

    Raises:
        UnsupportedModelError: no adapter knows one of them, or they cannot be run on styles alone.
        StateError: they do not belong together; the message says in what they differ.
    """
    sides = locate(student), locate(teacher)
    _check_states(*sides)
    for side in sides:
        side.running.num_ws(side.network)  # raises where it cannot be run
    mine, theirs = ([dense_of(spec) for spec in side.specs] for side in sides)
    if mine != theirs or sides[0].adapter.name != sides[1].adapter.name:
        different = next((_difference(a, b) for a, b in zip(mine, theirs) if a != b), "other blocks")
        raise StateError(f"the generators differ in more than the squeezed blocks: {different}. {CURE}")
    _check_mapping(*(side.running.style_parameters(side.root, side.network) for side in sides))
    devices = {parameter.device for G in (student, teacher) for parameter in G.parameters()}
    if len(devices) > 1:
        raise StateError("the generators are on different devices; move both to the same one")
    plan = status_of_part(sides[0]).plan
    kept = {} if plan is None else kept_of(plan)
    narrowed = [spec.name for spec in sides[0].specs if spec.shape is not None and not spec.shape.excite]
    tapped = [spec.name for spec in theirs if not spec.is_last and (spec.name in kept or spec.name not in narrowed)]
    return Pair(*sides, tapped, {name: kept[name].outputs for name in narrowed if name in tapped})


def _difference(student: BlockSpec, teacher: BlockSpec) -> str:
    """What two blocks differ in, the first thing."""
    pairs = ((each.name, getattr(student, each.name), getattr(teacher, each.name)) for each in fields(student))
    name, mine, theirs = next(entry for entry in pairs if entry[1] != entry[2])
    return f"{name} of block {student.name} is {mine} in the squeezed one, {theirs} in the dense one"


def _check_states(student: Located, teacher: Located) -> None:
    now = status_of_part(teacher)
    if now.state != "dense":
        raise StateError(f"the teacher has to be a dense generator, this one is {now}. {CURE}")
    now = status_of_part(student)
    if now.state != "squeezed":
        raise StateError(f"the student has to be a squeezed generator, this one is {now}. Squeeze it first")
    coarse = next((f"{name} ({p.dtype})" for name, p in student.root.named_parameters() if p.dtype in _COARSE), "")
    if coarse:
        raise StateError(
            f"{coarse} of the student is too coarse to be trained: call float() on both generators first; of a file "
            "of half precision, load it, do so, and save it anew"
        )
    untrainable = next((name for name, p in student.root.named_parameters() if p.is_inference()), "")
    if untrainable:
        raise StateError(
            f"{untrainable} of the student was made in inference mode and cannot be trained. Build or load the student "
            "outside of torch.inference_mode(), or train copy.deepcopy(G), copied outside of it"
        )


def _check_mapping(student: Dict[str, torch.nn.Parameter], teacher: Dict[str, torch.nn.Parameter]) -> None:
    """Raise where latents would not lead to the same styles in both."""
    shapes = [{name: tuple(value.shape) for name, value in side.items()} for side in (student, teacher)]
    if shapes[0] != shapes[1]:
        name = next(iter(sorted(set(shapes[0].items()) ^ set(shapes[1].items()))))[0]
        sizes = " against ".join(str(side.get(name, "nothing")) for side in shapes)
        raise StateError(f"the generators have mapping networks of different sizes ({name}: {sizes}). {CURE}")
    moved = [name for name, value in student.items() if not torch.equal(value.cpu(), teacher[name].cpu())]
    if moved:
        raise StateError(
            f"the same latent has another style in the two generators: {len(moved)} of {len(student)} parameters of "
            f"the mapping network differ ({moved[0]}, ...), so the squeezed one does not come from this dense one, or "
            f"was trained since. {CURE}, or convert it anew"
        )
