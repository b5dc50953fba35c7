"""One sitting of a recovery: it counts, evaluates, remembers the best, writes the state file, and stops."""

from __future__ import annotations

import numbers
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional

import torch

from squeeze_patch.errors import RecoveryError
from squeeze_patch.recovery import state_file
from squeeze_patch.recovery.settings import learning_rate
from squeeze_patch.recovery.state_file import Evaluation, Origin, State
from squeeze_patch.recovery.trainer import Training, copies
from squeeze_patch.surgery.status import status_of_part

#: longest time between two state files, in seconds
SAVE_EVERY = 60.0
#: a smaller rise of the PSNR, in dB, is no gain to `Budget.patience`
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class Step:
    """What a progress callback is told after every step.

    Attributes:
        step, steps: steps done, and in all.
        loss: of this step.
        seconds_per_step: in this sitting, evaluations included.
        evaluation: the last one.
        new: whether this step made it.
        last: whether the training ends here.
        resumed_at: the step at which an earlier sitting was taken up, 0 = none.
    """

    step: int
    steps: int
    loss: float
    seconds_per_step: float
    evaluation: Evaluation
    new: bool
    last: bool
    resumed_at: int


StepProgress = Callable[[Step], None]


@dataclass(frozen=True)
class Budget:
    """What a recovery may take, and how many images at a time: nothing that its weights depend on, but for rounding.

    Attributes:
        minutes: stop before the last step after this time, breaks left out; None = never.
        patience: stop when so many evaluations in a row brought no gain; None = never.
        at_a_time: images that each process runs at a time, whose gradients add up to those of its share of the batch;
            None = as many as take some gigabytes (`trainer.FEATURES`).

    Raises:
        RecoveryError: one of them is not above 0.
    """

    minutes: Optional[float] = None
    patience: Optional[int] = None
    at_a_time: Optional[int] = None

    def __post_init__(self) -> None:
        for name, kind in (("minutes", numbers.Real), ("patience", numbers.Integral), ("at_a_time", numbers.Integral)):
            value = getattr(self, name)
            is_kind = isinstance(value, kind) and not isinstance(value, bool)
            if value is not None and not (is_kind and value > 0):
                whole = "" if kind is numbers.Real else "a whole number "
                raise RecoveryError(f"{name} has to be {whole}above 0, not {value!r}")


@dataclass(frozen=True)
class Files:
    """Where a sitting writes: its state, its log; None = nowhere. ``origin`` tells the generators that the run began
    with, ``wish`` how the student was made."""

    state: Optional[Path]
    log: Optional[Path]
    origin: Origin
    wish: Optional[Mapping[str, Any]] = None


class Session:
    """A training from its start, or from a state of it, to its end."""

    def __init__(self, training: Training, budget: Budget, paths: Files, found: Optional[State]) -> None:
        self.training, self.budget, self.paths = training, budget, paths
        self.settings, self.processes = training.settings, training.processes
        if found is None:
            start = copies(training.parameters)
            psnr = training.psnr(start)
            found = State(0, start, start, start, psnr, [], [Evaluation(0, psnr, None, None, 0.0)])
        else:
            try:
                training.restore(found)
            except (AttributeError, LookupError, TypeError, ValueError) as error:  # no memory is none of its faults
                raise state_file.damaged(paths.state, f"its optimiser: {error}") from error
        self.state = found
        self.resumed_at = found.step
        self.seconds_before = found.seconds
        self.began = self.saved_at = time.monotonic()
        self._write_log()

    def train(self, progress: Optional[StepProgress]) -> str:
        """Go on to the end; returns what the end was: "steps", "minutes" or "patience"."""
        state, settings = self.state, self.settings
        stopped = self._stopped()
        if self._is_between(stopped):
            self._evaluate(None)
        while not stopped:
            loss = self.training.step(state.step)
            state.step += 1
            state.seconds = self.seconds_before + time.monotonic() - self.began
            stopped = self._stopped()
            due = state.step % settings.evaluate_every == 0 or state.step >= settings.steps
            if due:
                self._evaluate(loss)
                stopped = stopped or self._stopped()
            self._save(due or bool(stopped))
            if self._is_between(stopped):  # of this sitting alone: the state file, which goes on, knows nothing of it
                due = True
                self._evaluate(loss)
            if progress is not None and self.processes.first:
                rate = (state.seconds - self.seconds_before) / (state.step - self.resumed_at)
                last = bool(stopped)
                progress(Step(state.step, settings.steps, loss, rate, state.history[-1], due, last, self.resumed_at))
        return stopped

    def _is_between(self, stopped: str) -> bool:
        """Whether the time is up where no evaluation is due. An unbroken run has none there: its best weights, and its
        patience, do not depend on it."""
        return stopped == "minutes" and self.state.history[-1].step != self.state.step

    def _stopped(self) -> str:
        """What ends the training now, "" = nothing; the same in all processes."""
        if self.state.step >= self.settings.steps:
            return "steps"
        if self.budget.patience is not None and has_plateaued(self.state.history, self.budget.patience):
            return "patience"
        if self.budget.minutes is not None:
            late = torch.tensor(float(self.state.seconds >= 60 * self.budget.minutes), device=self.training.pair.device)
            if float(self.processes.total(late)) > 0:
                return "minutes"
        return ""

    def _evaluate(self, loss: Optional[float]) -> None:
        state = self.state
        psnr = self.training.psnr(self.training.average)
        if psnr > state.best_psnr:
            state.best_psnr, state.best = psnr, copies(self.training.average)
        rate = learning_rate(self.settings, state.step - 1)
        state.seconds = self.seconds_before + time.monotonic() - self.began
        state.history.append(Evaluation(state.step, psnr, loss, rate, round(state.seconds, 3)))
        self._write_log()

    def _save(self, due: bool) -> None:
        """Write the state file after every evaluation, and in between where evaluations are rare.

        The weights were evaluated, or trained by a finite loss: what is written here can be gone on with.
        """
        late = time.monotonic() - self.saved_at >= SAVE_EVERY
        if self.paths.state is None or not self.processes.first or not (due or late):
            return
        state, training = self.state, self.training
        state.weights, state.average = copies(training.parameters), training.average
        state.optimiser = training.optimiser.state_dict()
        plan = status_of_part(training.pair.student).plan
        state_file.save(self.paths.state, state, self.settings, self.paths.origin, plan, self.paths.wish)
        self.saved_at = time.monotonic()

    def _write_log(self) -> None:
        if self.paths.log is not None and self.processes.first:
            state_file.write_log(self.paths.log, self.state.history)


def has_plateaued(history: List[Evaluation], patience: int) -> bool:
    """Whether the last ``patience`` evaluations stayed below the best before them, or above by less than LEAST_GAIN."""
    if len(history) <= patience:
        return False
    psnr = [entry.psnr for entry in history]
    return max(psnr[-patience:]) < max(psnr[:-patience]) + LEAST_GAIN
