"""Inputs of a recovery: styles that depend on the seed, the step and the place in the batch, and on nothing else."""

from __future__ import annotations

import numpy as np
import torch

from squeeze_patch.recovery.pair import Pair
from squeeze_patch.recovery.settings import Settings

#: kinds of inputs; each has random numbers of its own
TRAINING, HELD_OUT, CENTRE = 0, 1, 2
CENTRE_SAMPLES = 1024


def training_styles(pair: Pair, settings: Settings, step: int, centre: torch.Tensor) -> torch.Tensor:
    """Styles [batch, num_ws, w_dim], float32, on the CPU, of one step: the same for every process and after a resume.

    A share of the images is sampled with two latents, the second one from a random layer on (style mixing, Karras et
    al. 2019, section 3.1), another is truncated, w moved towards ``centre`` by a random factor (Karras et al. 2019,
    appendix B), because users sample such images too.

    Args:
        pair: says how the teacher maps latents to styles.
        settings: seed, batch and the two shares.
        step: counted from 0.
        centre: the mean style [w_dim], from `mean_style`.
    """
    n, layers = settings.batch, pair.num_ws
    seed = derived_seed(settings.seed, TRAINING, step)
    first, second = pair.sample_w(2 * n, seed).chunk(2)
    random = torch.Generator().manual_seed(seed)
    crossover = torch.randint(1, max(layers, 2), [n], generator=random)
    mixed = torch.rand([n], generator=random) < settings.mixed
    psi = torch.rand([n], generator=random)
    truncated = torch.rand([n], generator=random) < settings.truncated
    from_second = mixed[:, None] & (torch.arange(layers) >= crossover[:, None])
    w = torch.where(from_second[:, :, None], second[:, None], first[:, None])
    moved = centre + psi[:, None, None] * (w - centre)
    return torch.where(truncated[:, None, None], moved, w)


def held_out_styles(pair: Pair, settings: Settings) -> torch.Tensor:
    """Styles [held_out, num_ws, w_dim], float32, on the CPU, without mixing or truncation."""
    w = pair.sample_w(settings.held_out, derived_seed(settings.seed, HELD_OUT, 0))
    return w[:, None].expand(-1, pair.num_ws, -1)


def mean_style(pair: Pair, settings: Settings) -> torch.Tensor:
    """Mean of w [w_dim] over random latents."""
    return pair.sample_w(CENTRE_SAMPLES, derived_seed(settings.seed, CENTRE, 0)).mean(dim=0)


def derived_seed(seed: int, kind: int, step: int) -> int:
    """A seed of 32 bits, as many as torch's CPU generator uses, that is unrelated to those of other arguments."""
    return int(np.random.SeedSequence([seed, kind, step]).generate_state(1)[0])
