"""A squeezed generator and the dense one that it came from: do they belong together, and how are they run."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Dict, List

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.errors import StateError
from squeeze_patch.surgery.status import status

CURE = "Name the dense checkpoint that the squeezed one was converted from"


@dataclass(frozen=True)
class Pair:
    """Two generators that agree in everything but the squeezed blocks; made by `pair_of`.

    Attributes:
        adapter: of both.
        student, teacher: the generators.
        student_network, teacher_network: the synthesis networks in them.
        tapped: names of the blocks whose features have a reader; all but the last.
    """

    adapter: Adapter
    student: torch.nn.Module
    teacher: torch.nn.Module
    student_network: torch.nn.Module
    teacher_network: torch.nn.Module
    tapped: List[str]

    @property
    def device(self) -> torch.device:
        return next(self.student_network.parameters()).device

    @property
    def num_ws(self) -> int:
        """Styles that a synthesis network takes."""
        return self.adapter.num_ws(self.teacher_network)

    def sample_w(self, n: int, seed: int) -> torch.Tensor:
        """Styles [n, w_dim], float32, on the CPU, of latents (and classes) drawn with ``seed``."""
        return self.adapter.sample_w(self.teacher, self.teacher_network, n, seed)

    def images(self, network: torch.nn.Module, w: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """Images [N, C, R, R], float32, that one of the networks makes of styles [N, num_ws, w_dim]."""
        return self.adapter.synthesis(network, w, noise_mode)


def pair_of(student: torch.nn.Module, teacher: torch.nn.Module) -> Pair:
    """Check that ``student`` is the squeezed form of ``teacher``.

    Raises:
        UnsupportedModelError: no adapter knows one of them, or they cannot be run on styles alone.
        StateError: they do not belong together; the message says in what they differ.
    """
    _check_states(student, teacher)
    adapter, student_network = locate(student)
    other, teacher_network = locate(teacher)
    for side, network in ((adapter, student_network), (other, teacher_network)):
        side.num_ws(network)  # raises where it cannot be run
    mine = [replace(spec, width=None) for spec in adapter.specs(student_network)]
    theirs = other.specs(teacher_network)
    if mine != theirs or adapter.name != other.name:
        different = next((_difference(a, b) for a, b in zip(mine, theirs) if a != b), "other blocks")
        raise StateError(f"the generators differ in more than the squeezed blocks: {different}. {CURE}")
    _check_mapping(adapter.style_parameters(student, student_network), other.style_parameters(teacher, teacher_network))
    devices = {parameter.device for G in (student, teacher) for parameter in G.parameters()}
    if len(devices) > 1:
        raise StateError("the generators are on different devices; move both to the same one")
    tapped = [spec.name for spec in theirs if not spec.is_last]
    return Pair(adapter, student, teacher, student_network, teacher_network, tapped)


def _difference(student: BlockSpec, teacher: BlockSpec) -> str:
    """What two blocks differ in, the first thing."""
    pairs = ((field.name, getattr(student, field.name), getattr(teacher, field.name)) for field in fields(student))
    name, mine, theirs = next(entry for entry in pairs if entry[1] != entry[2])
    return f"{name} of block {student.name} is {mine} in the squeezed one, {theirs} in the dense one"


def _check_states(student: torch.nn.Module, teacher: torch.nn.Module) -> None:
    now = status(teacher)
    if now.state != "dense":
        raise StateError(f"the teacher has to be a dense generator, this one is {now}. {CURE}")
    now = status(student)
    if now.state != "squeezed":
        raise StateError(f"the student has to be a squeezed generator, this one is {now}. Squeeze it first")


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
