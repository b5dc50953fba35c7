"""`recover`: from the start to the best weights, with a memory on the disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

import torch

from squeeze_patch.progress import own_settings
from squeeze_patch.recovery import processes as parallel
from squeeze_patch.recovery.pair import pair_of
from squeeze_patch.recovery.session import Budget, Files, Session, StepProgress
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.state_file import Evaluation, Origin, State, origin_of
from squeeze_patch.recovery.state_file import load as load_state
from squeeze_patch.recovery.trainer import Training, training_mode


@dataclass(frozen=True)
class Recovery:
    """What `recover` did; prints as a line.

    Attributes:
        psnr_before, psnr_after: dB to the teacher's images on ``images`` latents that were not trained on, noise off;
            the same latents chose the weights.
        steps: steps done, resumed ones included.
        seconds: spent, earlier sessions included.
        stopped: what ended it: "steps", "minutes" or "patience".
        resumed_at: the step at which an earlier session was taken up, 0 = none.
        images: held-out latents.
        history: the evaluations.
    """

    psnr_before: float
    psnr_after: float
    steps: int
    seconds: float
    stopped: str
    resumed_at: int
    images: int
    history: Tuple[Evaluation, ...] = field(repr=False)

    @property
    def improved(self) -> bool:
        return self.psnr_after > self.psnr_before

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts for JSON; the PSNR of equal images is None."""
        figures = {name: None if value == math.inf else value for name, value in vars(self).items()}
        return {**figures, "history": [entry.to_dict() for entry in self.history]}

    def __str__(self) -> str:
        effort = f"{self.images} unseen latents, {self.steps:,} steps, {self.seconds / 60:.1f} minutes"
        effort += f", taken up at step {self.resumed_at:,}" if self.resumed_at else ""
        effort += f", stopped by {self.stopped}" if self.stopped != "steps" else ""
        if not self.improved:
            return f"not improved: the start, {self.psnr_before:.1f} dB PSNR to the dense generator, is kept ({effort})"
        return f"recovered: {self.psnr_before:.1f} -> {self.psnr_after:.1f} dB PSNR to the dense generator ({effort})"


def recover(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    *,
    steps: int = Settings.steps,
    batch: int = Settings.batch,
    learning_rate: float = Settings.learning_rate,
    seed: int = Settings.seed,
    noise_mode: str = Settings.noise_mode,
    feature_weight: float = Settings.feature_weight,
    lpips_weight: float = Settings.lpips_weight,
    evaluate_every: int = Settings.evaluate_every,
    minutes: Optional[float] = None,
    patience: Optional[int] = None,
    at_a_time: Optional[int] = None,
    state: Optional[Union[str, Path]] = None,
    log: Optional[Union[str, Path]] = None,
    progress: Optional[StepProgress] = None,
) -> Recovery:
    """Bring a squeezed generator's images back to those of the dense one that it came from, in place, without data.

    Both get the same latents, labels (`squeeze_patch.labels`) and noise; the student learns the teacher's images and
    features (distillation, Hinton et al. 2015; features: Romero et al. 2015, FitNets). The mapping network stays as it
    is, so that a latent keeps its style. The student ends with the best weights that an evaluation saw, the start's
    included.

    Every input follows from ``seed``, the step and its place in the batch: on one machine, with the same number of
    threads and processes, a run that was broken off and taken up from its ``state`` ends with the same bits as an
    unbroken one (on a GPU only where torch's operations are deterministic).

    In several processes (torch.distributed initialised, one generator each) every process calls it with the same
    arguments; each takes its share of the batch, and the first one writes.

    Args:
        student: squeezed generator (G, G_ema); trained in place, on the device that it is on.
        teacher: the dense generator; not changed.
        steps: length; the learning rate falls to zero over it.
        batch: latents in a step, over all processes together.
        learning_rate: highest learning rate, for weights at unit scale; see `recovery.settings.Settings`.
        seed: of the latents, 0 or more.
        noise_mode: "const" or "none", of both generators.
        feature_weight: weight of the blocks' features in the loss at the start, beside 1 for the images; fades to 0.
        lpips_weight: weight of LPIPS (package lpips) in the loss; 0 = without.
        evaluate_every: steps between two evaluations.
        minutes: stop after this time.
        patience: stop when so many evaluations in a row bring less than 0.01 dB.
        at_a_time: images that each process runs at a time, where memory is short: gradients of its share of the batch
            are added up. Default: as many as need some gigabytes, at 256x256 four. Weights differ by rounding alone.
        state: file from which to go on where it exists, with the student that the run began with, or that it left;
            written as the run proceeds, and left in place at the end.
        log: file for the evaluations, as JSON lines.
        progress: called after every step, in the first process.

    Returns:
        figures before and after.

    Raises:
        UnsupportedModelError: no adapter knows one of the generators.
        StateError: they do not belong together, or the student was made in inference mode.
        RecoveryError: a setting out of its range, or a state file of another run.
        SqueezeError: the loss is not finite; the student has the best weights so far, and so has the state file.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> squeezed = squeeze_patch.apply(trained_generator())
        >>> done = squeeze_patch.recover(squeezed, trained_generator(), steps=4, batch=8)
        >>> done.steps, done.psnr_after >= done.psnr_before  # never worse: the best weights are kept
        (4, True)
    """
    settings = Settings(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        noise_mode=noise_mode,
        feature_weight=feature_weight,
        lpips_weight=lpips_weight,
        evaluate_every=evaluate_every,
    )
    state, log = (None if path is None else Path(path) for path in (state, log))
    return run(student, teacher, settings, Budget(minutes, patience, at_a_time), state, log, progress)


@own_settings()
def run(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    settings: Settings,
    budget: Budget,
    state_file: Optional[Path] = None,
    log: Optional[Path] = None,
    progress: Optional[StepProgress] = None,
    wish: Optional[Mapping[str, Any]] = None,
) -> Recovery:
    """As `recover`; ``wish``: what the student was made for from the teacher a moment ago; the state file keeps it."""
    pair, processes = pair_of(student, teacher), parallel.current()
    processes.share(torch.empty([settings.batch]))  # raises before any work where the batch cannot be shared
    # The tensors at hand may have been made in inference mode, or be used in it later; the training is outside.
    with torch.inference_mode(False), torch.set_grad_enabled(True), training_mode(pair):
        training = Training(pair, settings, processes, budget.at_a_time)
        found, origin = processes.from_first(lambda: _stored(state_file, training, wish is not None))
        session = Session(training, budget, Files(state_file, log, origin, wish), found)
        try:
            stopped = session.train(progress)
        finally:  # also after Ctrl-C: the student is never worse than it was
            training.put(session.state.best)
    done = session.state
    return Recovery(
        psnr_before=done.history[0].psnr,
        psnr_after=done.best_psnr,
        steps=done.step,
        seconds=done.seconds,
        stopped=stopped,
        resumed_at=session.resumed_at,
        images=settings.held_out,
        history=tuple(done.history),
    )


def _stored(path: Optional[Path], training: Training, is_made: bool) -> Tuple[Optional[State], Origin]:
    """The state of an earlier sitting, if there is one, and the generators that the run began with; ``is_made``: the
    student was, from the teacher and by the state's plan."""
    origin = origin_of(training.pair, training.parameters, is_made)
    if path is None or not path.exists():
        return None, origin
    return load_state(path, training.settings, origin, training.parameters)
