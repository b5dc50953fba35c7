"""Which channels should stay? The calibrated start with channels chosen by algorithms of the literature, side by side.

    python -m experiments selection [--weights FILE.pt] [--reductions 0.121,0.25] [--seeds 3]

PSNR in dB to the dense images on 256 unseen latents, noise off, before any training; everything but the choice is the
calibrated start. Without --weights the demo's generator is used, else a small one from a state dict in the NVIDIA
family's names. "scaled": every channel times the root of what an error in it does to the image, before the algorithm
sees it. Written from the papers; the interpolative decomposition is scipy's.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

import click
import numpy as np
import scipy.linalg
import scipy.linalg.interpolative
import torch

import squeeze_patch
from benchmarks.fidelity import generator_from, images_of
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import Kept
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.selection import rank_channels
from squeeze_patch.surgery.apply import squeeze

#: interchanges of strong RRQR go on while one of them raises the volume by more than this (Gu and Eisenstat's f)
GROWTH = 1.05

#: (covariance [c, c], importance [c, c], q) -> q channels
Selection = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def greedy(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """Greedy least squares on the image's error: the library's."""
    return rank_channels(torch.from_numpy(covariance), torch.from_numpy(importance), width)[0].numpy()


def exchanged(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """The greedy choice, then exchanges of a kept for another channel for as long as one lowers the image's error."""
    kept = list(greedy(covariance, importance, width))
    error, improved = error_of(covariance, importance, kept), True
    while improved:
        improved = False
        for place, other in itertools.product(range(width), range(len(covariance))):
            trial = [*kept[:place], other, *kept[place + 1 :]]
            if other not in kept and error_of(covariance, importance, trial) < error * (1 - 1e-6):
                kept, error, improved = trial, error_of(covariance, importance, trial), True
    return np.array(kept)


def error_of(covariance: np.ndarray, importance: np.ndarray, kept: Sequence[int]) -> float:
    """trace(importance @ residual), where all channels are regressed on the kept ones."""
    ridge = 1e-9 * np.trace(covariance) / len(covariance) * np.eye(len(kept))
    residual = covariance - covariance[:, kept] @ np.linalg.solve(
        covariance[np.ix_(kept, kept)] + ridge, covariance[kept]
    )
    return float((importance * residual).sum())


def pivoted_qr(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """QR with column pivoting (Businger and Golub 1965) of the centred activations."""
    return np.asarray(scipy.linalg.qr(root(covariance), mode="r", pivoting=True)[1][:width])


def strong_rrqr(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """Pivoted QR, then the interchanges of Gu and Eisenstat (1996, algorithm 4): the volume of the kept columns grows.

    Swapping the kept i for the other j multiplies the volume by sqrt((A^-1 B)_ij^2 + (omega_i gamma_j)^2), their lemma
    3.1; A, B and C are the blocks of the triangular factor.
    """
    columns = root(covariance)
    order = scipy.linalg.qr(columns, mode="r", pivoting=True)[1]
    for _ in range(10 * len(order)):
        r = np.linalg.qr(columns[:, order], mode="r")
        inverse = np.linalg.pinv(r[:width, :width])
        growth = np.square(inverse @ r[:width, width:])
        growth += np.outer(np.square(inverse).sum(axis=1), np.square(r[width:, width:]).sum(axis=0))
        if growth.size == 0 or growth.max() <= GROWTH**2:
            break
        i, j = np.unravel_index(growth.argmax(), growth.shape)
        order[i], order[width + j] = order[width + j], order[i]
    return np.asarray(order[:width])


def interpolative(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """The interpolative decomposition of rank q, randomised (Liberty et al. 2007), by scipy."""
    decompose = scipy.linalg.interpolative.interp_decomp
    seeded = {"rng": np.random.default_rng(0)} if "rng" in inspect.signature(decompose).parameters else {}
    if not seeded:  # SciPy before 1.15, the newest on Python 3.9, has one source of random numbers
        scipy.linalg.interpolative.seed("default")
    columns = np.ascontiguousarray(root(covariance))
    return np.asarray(decompose(columns, width, rand=True, **seeded)[0][:width])


def leverage(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """Largest leverage scores in the best subspace of rank q (Mahoney and Drineas 2009; the deterministic form of
    Papailiopoulos et al. 2014)."""
    _, vectors = np.linalg.eigh(covariance)
    return np.argsort(-np.square(vectors[:, -width:]).sum(axis=1), kind="stable")[:width]


def energy(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
    """Largest variance of a channel's activations."""
    return np.argsort(-np.diag(covariance), kind="stable")[:width]


def scaled(selection: Selection) -> Selection:
    """Channels in units of what an error in them does to the image, before ``selection`` sees them."""

    def select(covariance: np.ndarray, importance: np.ndarray, width: int) -> np.ndarray:
        gain = np.sqrt(np.diag(importance))
        return selection(covariance * np.outer(gain, gain), importance, width)

    return select


def root(covariance: np.ndarray) -> np.ndarray:
    """[c, c] whose columns have the inner products of the activations."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(np.sqrt(values.clip(min=0))[:, None] * vectors.T)


SELECTIONS: Dict[str, Selection] = {
    "greedy least squares (the library's)": greedy,
    "the same, then exchanges": exchanged,
    "pivoted QR": pivoted_qr,
    "pivoted QR, scaled": scaled(pivoted_qr),
    "strong RRQR": strong_rrqr,
    "strong RRQR, scaled": scaled(strong_rrqr),
    "interpolative decomposition": interpolative,
    "leverage scores": leverage,
    "leverage scores, scaled": scaled(leverage),
    "activation energy": energy,
    "activation energy, scaled": scaled(energy),
}


def chosen(G: Any, plan: squeeze_patch.Plan, selection: Selection, seed: int) -> Dict[str, Kept]:
    """{block name: kept channels}, on the statistics of the calibrated start."""
    seen = Observation(locate(G), seed)
    covariances, gradients = seen.covariances.outer, seen.gradients.outer
    return {
        block.name: Kept(
            torch.from_numpy(
                np.sort(selection(covariances[block.name].numpy(), gradients[block.name].numpy(), block.width))
            )
        )
        for block in plan.blocks
    }


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="A dense generator's state dict.")
@click.option("--reductions", default="0.121,0.25", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Of the latents behind the statistics.")
def main(weights: Optional[Path], reductions: str, seeds: int) -> None:
    """Measure and print the table: mean (lowest to highest) over the seeds."""
    torch.set_num_threads(1)
    dense = generator_from(weights)
    images = images_of(dense)
    plans = [
        squeeze_patch.plan(dense, reduction=float(reduction), allocate="uniform") for reduction in reductions.split(",")
    ]
    click.echo(f"{weights.name if weights else 'demo generator'}: {squeeze_patch.status(dense)}")
    click.echo(f"{'':<38}" + "".join(f"{f'{plan.reduction:.1%} fewer':>24}" for plan in plans))
    for name, selection in SELECTIONS.items():
        cells = []
        for plan in plans:
            values = []
            for seed in range(seeds):
                G = copy.deepcopy(dense)
                squeeze(locate(G), plan, "calibrated", kept=chosen(G, plan, selection, seed), seed=seed)
                values.append(psnr(images, images_of(G)))
            cells.append(f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        click.echo(f"{name:<38}" + "".join(f"{cell:>24}" for cell in cells))
