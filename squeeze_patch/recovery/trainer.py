"""The training itself: one step, one evaluation, and the way back to the best weights."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Iterator, List, Optional

import torch

from squeeze_patch.errors import SqueezeError
from squeeze_patch.evaluation.pixels import decibels
from squeeze_patch.recovery import inputs
from squeeze_patch.recovery.objective import Objective, Targets, feature_power, lpips_distance
from squeeze_patch.recovery.optimiser import Optimiser
from squeeze_patch.recovery.pair import Pair
from squeeze_patch.recovery.processes import Processes
from squeeze_patch.recovery.settings import Settings, average_decay, feature_weight, learning_rate
from squeeze_patch.recovery.state_file import State

#: images that are made at a time where no gradient is needed, at most; features in both generators' blocks that one
#: step may hold at a time: with all that a gradient needs beside them, 2 to 4 GB
EVALUATION_BATCH, FEATURES = 16, 1 << 26


class Training:
    """A student in training: its parameters, their average, the optimiser. Use it inside `training_mode`.

    Args:
        pair: student and teacher.
        settings: of the run.
        processes: that share each batch.
        at_a_time: images that this process runs at a time; None = as many as `FEATURES` allows.
    """

    def __init__(self, pair: Pair, settings: Settings, processes: Processes, at_a_time: Optional[int] = None) -> None:
        self.pair, self.settings, self.processes = pair, settings, processes
        fitting = max(FEATURES // features_of(pair), 1)
        self.at_a_time = at_a_time or fitting
        self.evaluated = min(4 * fitting, EVALUATION_BATCH)  # the loss is scaled by some: the same for any at_a_time
        self.centre = inputs.mean_style(pair, settings)
        self.held_out = inputs.held_out_styles(pair, settings)
        probe = self.held_out[: self.evaluated].to(pair.device)
        self.targets = Targets(pair, settings.noise_mode, probe)
        distance = lpips_distance(pair.device) if settings.lpips_weight else None
        self.objective = Objective(pair, settings, feature_power(self.targets, probe), distance)
        self.parameters = self._trained(probe[:2])
        self.average = copies(self.parameters)
        relative = not pair.student.running.equalised(pair.student.network)
        self.optimiser = Optimiser(self.parameters, settings.learning_rate, relative)
        self.parallel = processes.parallel(self.objective)

    def _trained(self, w: torch.Tensor) -> List[torch.nn.Parameter]:
        """The synthesis network's parameters that have a part in the loss (noise strengths have none without noise).

        Whatever has no gradient is frozen: parallel training waits for a gradient of all others.
        """
        parameters = [p for p in self.pair.student.network.parameters() if p.is_floating_point()]
        for parameter in parameters:
            parameter.requires_grad_(True)
        with self.objective.taps.on(self.pair.student, self.pair.tapped):
            loss = self.objective(w, *self.targets(w), feature_weight=1.0)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients):
            parameter.requires_grad_(gradient is not None)
        return [parameter for parameter in parameters if parameter.requires_grad]

    def step(self, step: int) -> float:
        """Train step ``step``, counted from 0; returns the loss.

        Raises:
            SqueezeError: the loss or its gradient is not finite; the weights are as they were before the step.
        """
        w = inputs.training_styles(self.pair, self.settings, step, self.centre)
        w = self.processes.share(w).to(self.pair.device)
        self.optimiser.zero_grad()
        loss = float(self.processes.total(self._backward(w, step))) / self.processes.size
        slope = float(torch.stack([p.grad.norm() for p in self.parameters if p.grad is not None]).norm())
        if not (math.isfinite(loss) and math.isfinite(slope)):
            raise SqueezeError(
                f"step {step + 1} has the loss {loss} and the gradient's norm {slope}, which is not finite: the "
                "training diverged. Try a lower learning rate"
            )
        self.optimiser.step(learning_rate(self.settings, step))
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters):
                average.lerp_(parameter, 1 - average_decay(step))
        return loss

    def _backward(self, w: torch.Tensor, step: int) -> torch.Tensor:
        """The loss of this process's styles [N, num_ws, w_dim], a mean over them; its gradients are added up part by
        part, and shared by the processes with the last one."""
        parts, total = torch.split(w, self.at_a_time), torch.zeros([], device=w.device)
        before = self.processes.rank * len(w)  # of the batch, in the other processes
        for index, part in enumerate(parts):
            is_last, first = index == len(parts) - 1, before + index * self.at_a_time
            with (
                self.objective.taps.on(self.pair.student, self.pair.tapped),
                self.processes.kept(self.parallel, is_last),
            ):
                loss = self.parallel(part, *self.targets(part, first), feature_weight(self.settings, step), first)
                loss = loss * (len(part) / len(w))
                loss.backward()
            total += loss.detach()
        return total

    def psnr(self, weights: List[torch.Tensor]) -> float:
        """Of the student with ``weights``: dB to the teacher's images on the held-out latents, noise off.

        Raises:
            SqueezeError: the images are not finite.
        """
        with self.holding(weights), torch.no_grad():
            total = torch.zeros([2], dtype=torch.float64)
            for index in range(self.processes.rank, len(self._batches()), self.processes.size):
                w = self._batches()[index].to(self.pair.device)
                sides = (self.pair.student, self.pair.teacher)
                mine, theirs = (self.pair.images(side, w, "none").double() for side in sides)
                total += torch.stack([(mine - theirs).square().sum(), torch.tensor(mine.numel()).to(mine)]).cpu()
        error, count = self.processes.total(total.to(self.pair.device)).tolist()
        if not math.isfinite(error):
            raise SqueezeError("the student's images are not finite. Try a lower learning rate")
        return decibels(error / count)

    def _batches(self) -> List[torch.Tensor]:
        return list(torch.split(self.held_out, self.evaluated))

    @contextlib.contextmanager
    def holding(self, weights: List[torch.Tensor]) -> Iterator[None]:
        """Let the student have other weights for the length of a ``with`` block."""
        own = copies(self.parameters)
        self.put(weights)
        try:
            yield
        finally:
            self.put(own)

    @torch.no_grad()
    def put(self, weights: List[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, weights):
            parameter.copy_(value)

    def restore(self, state: State) -> None:
        """Go back to a state, which may lie on another device.

        Raises:
            ValueError, or another Exception: its optimiser is damaged; the student's weights are as they were.
        """
        self.optimiser.load_state_dict(state.optimiser)
        self.put(state.weights)
        self.average = [value.to(self.pair.device, copy=True) for value in state.average]


def features_of(pair: Pair) -> int:
    """Numbers in the features between all blocks of both generators, of one image."""
    return 2 * sum(spec.channels * spec.positions for spec in pair.teacher.specs)


def copies(tensors: Any) -> List[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@contextlib.contextmanager
def training_mode(pair: Pair) -> Iterator[None]:
    """The student ready for training, the teacher for evaluation; modes and frozen parameters come back afterwards."""
    modules = {m: m.training for side in (pair.student, pair.teacher) for m in side.root.modules()}
    frozen = {p: p.requires_grad for p in pair.student.root.parameters()}
    pair.student.root.eval()  # a mapping network in training mode would move w_avg
    pair.student.network.train()
    pair.teacher.root.eval()
    try:
        yield
    finally:
        for module, mode in modules.items():
            module.training = mode
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
            parameter.grad = None
