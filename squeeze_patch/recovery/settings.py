"""What a recovery does: its settings, its learning rate, the decay of its average.

How they were chosen, in dB PSNR to the dense images on 256 unseen latents, noise off, ratio 1.5, one seed, so that a
tenth of a dB means little. A: a 16x16 generator of MNIST digits, 120 steps of 32, from 30.2; B: the demo's, 200 steps
of 8, from 21.0.

| | A | B |
|---|---|---|
| Adam, plain squared error of the images | 36.7 | 25.0 |
| the same and features, weight 0.1; 1 | | 25.5; 26.5 |
| Muon, plain | 37.6 | 25.8 |
| Muon and features, weight 0.1; 1 | ; 37.2 | 26.4; 27.2 |
| Muon and features, weight 1 (A), 3 (B), fading to 0 | 37.4 | 27.3 |

Muon at twice the rate: A 37.5. No help: averaged images at lower resolutions in the loss (A 37.5 for 37.6), the images
of inner blocks (Adam, 200 steps: 37.6 for 37.6), training only conv1, torgb and excite (A 37.1 for 37.6), Adam with a
second decay of 0.99 (200 steps: 37.5 for 37.6). Mixed and truncated inputs cost nothing (A 37.2 for 37.2).

How long features should count differs by generator (spectral widths, steps of 32, one seed; three seeds without
features: benchmarks/README.md). A with 25 % fewer parameters is better off with less of them: 100 steps 33.4, without
features 33.7; 1,000 steps 36.4, fading within half of the run 37.2, within a fifth or without 37.5. B with 12.1 % fewer
is not: 300 steps 36.4, within half 36.0, without 35.4.
Features weighed by what the image sees of them (calibrate's Gauss-Newton matrix and a tenth of the plain weight),
uniform widths, 100 steps: A 33.4 for 33.1, B 30.1 for 30.1, which is not worth what it takes to compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        feature_weight: weight of the blocks' features in the loss at the start, beside 1 for the images; it fades to 0.
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
        _demand(0 < self.learning_rate < math.inf, "learning_rate", self, "above 0")
        for name in ("feature_weight", "lpips_weight"):
            _demand(0 <= getattr(self, name) < math.inf, name, self, "0 or more")
        for name in ("mixed", "truncated"):
            _demand(0 <= getattr(self, name) <= 1, name, self, "0 to 1")
        _demand(self.noise_mode in NOISE_MODES, "noise_mode", self, " or ".join(NOISE_MODES))


def _whole(settings: Settings, name: str) -> bool:
    return isinstance(getattr(settings, name), int)


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
    return settings.feature_weight * (1 - step / settings.steps)


def average_decay(step: int) -> float:
    """Of the average after step ``step``, counted from 0; shorter in the beginning, so that the start is forgotten."""
    return min(AVERAGE_DECAY, (1 + step) / (10 + step))
