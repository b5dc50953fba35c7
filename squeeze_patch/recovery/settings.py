"""What a recovery does: its settings, its learning rate, the decay of its average.

How the defaults were chosen, with figures: experiments/README.md, "The loss of recovery".
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, fields
from typing import Any

from squeeze_patch.errors import RecoveryError

#: linear rise of the learning rate at the start, in steps; a tenth of the run where that is shorter
WARM_UP = 50
#: decay of the average of the student's weights, for each step
AVERAGE_DECAY = 0.99
#: inputs that are sampled with two styles, and inputs that are truncated, as shares of the batch
MIXED = 0.1
TRUNCATED = 0.1
#: weight of the features' relative squared errors in the first step
FEATURE_WEIGHT = 1.0
#: steps over which that fades, at most
FEATURE_STEPS = 300
#: latents of the figure that decides which weights are kept; never trained on
HELD_OUT = 128
NOISE_MODES = ("const", "none")


@dataclass(frozen=True)
class Settings:
    """Everything that the recovered weights depend on, beside the two generators.

    Attributes:
        steps: length of the run; the learning rate falls to zero over it.
        batch: latents in a step, over all processes together.
        learning_rate: highest learning rate, for weights at unit scale (equalised learning rate); in families that have
            none, in units of each weight's own size.
        seed: of the latents.
        noise_mode: noise inputs of both generators in training: "const" (the same stored noise) or "none".
        feature_weight: weight of the blocks' features in the loss at the start, beside 1 for the images; it fades to 0
            over the run, or over its first 300 steps.
        lpips_weight: weight of the LPIPS distance in the loss, 0 = without.
        evaluate_every: steps between two evaluations.
        mixed, truncated: shares of the batch, 0 to 1.
        held_out: latents of an evaluation.

    Raises:
        RecoveryError: a value is out of its range.
    """

    steps: int = 1000
    batch: int = 32
    learning_rate: float = 1e-2
    seed: int = 0
    noise_mode: str = "const"
    feature_weight: float = FEATURE_WEIGHT
    lpips_weight: float = 0.0
    evaluate_every: int = 50
    mixed: float = MIXED
    truncated: float = TRUNCATED
    held_out: int = HELD_OUT

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "held_out"):
            _demand(_whole(self, name) and getattr(self, name) >= 1, name, self, "a whole number, 1 or more")
        _demand(_whole(self, "seed") and self.seed >= 0, "seed", self, "a whole number, 0 or more")
        rate = self.learning_rate
        _demand(_real(rate) and 0 < rate < math.inf, "learning_rate", self, "above 0")
        for name in ("feature_weight", "lpips_weight"):
            _demand(_real(getattr(self, name)) and 0 <= getattr(self, name) < math.inf, name, self, "0 or more")
        for name in ("mixed", "truncated"):
            _demand(_real(getattr(self, name)) and 0 <= getattr(self, name) <= 1, name, self, "0 to 1")
        _demand(self.noise_mode in NOISE_MODES, "noise_mode", self, " or ".join(NOISE_MODES))
        for each in fields(self):  # logs and state files hold plain numbers, whoever's these are
            plain = {"int": int, "float": float}.get(str(each.type), str)
            object.__setattr__(self, each.name, plain(getattr(self, each.name)))


def _whole(settings: Settings, name: str) -> bool:
    value = getattr(settings, name)
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _demand(fulfilled: bool, name: str, settings: Settings, wanted: str) -> None:
    if not fulfilled:
        raise RecoveryError(f"{name} has to be {wanted}, not {getattr(settings, name)!r}")


def learning_rate(settings: Settings, step: int) -> float:
    """Of step ``step``, counted from 0: a linear rise, then half a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    warm_up = max(1, min(WARM_UP, settings.steps // 10))
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * min(1.0, (step + 1) / warm_up) * fall


def feature_weight(settings: Settings, step: int) -> float:
    """In step ``step``, counted from 0. Features lead the way, images are what counts: the weight fades linearly."""
    return settings.feature_weight * max(0.0, 1 - step / min(settings.steps, FEATURE_STEPS))


def average_decay(step: int) -> float:
    """Of the average after step ``step``, counted from 0; shorter in the beginning, so that the start is forgotten."""
    return min(AVERAGE_DECAY, (1 + step) / (10 + step))
