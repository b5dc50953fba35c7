"""Distances between two sets of images, on features that the caller brings: nothing is downloaded."""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np
import torch

from squeeze_patch.errors import MeasurementError

#: random directions of `sliced_wasserstein`
PROJECTIONS = 256
#: neighbours that span the manifold in `precision_recall` (Kynkäänniemi et al. 2019, section 3)
NEIGHBOURS = 3
#: points whose distances to all others are held at a time
CHUNK = 512


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, equation 6).

    ``|mean_a - mean_b|^2 + trace(S_a + S_b - 2 (S_a S_b)^(1/2))``. The trace of the root is the sum of the singular
    values of ``S_a^(1/2) S_b^(1/2)``, which stays real and accurate where covariances are singular.

    Args:
        a, b: features [n, d], n >= 2.

    Returns:
        The distance, 0 or more, in squared units of the features.
    """
    _check(a, b)
    mean_a, root_a = _mean_and_root(a)
    mean_b, root_b = _mean_and_root(b)
    cross = torch.linalg.svdvals(root_a @ root_b).sum()  # of [d, d]
    total = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross
    return max(float(total), 0.0)


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, seed: int = 0, projections: int = PROJECTIONS) -> float:
    """Sliced Wasserstein-1 distance (Rabin et al. 2011; for generators Karras et al. 2018, section 5).

    The mean over random unit directions of the distance between the two projected samples.

    Args:
        a, b: features [n, d] and [m, d].
        seed: of the directions.
        projections: number of directions.
    """
    _check(a, b)
    random = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn([a.shape[1], projections], generator=random), dim=0)
    # Rows are sorted, not columns, and by numpy: on a CPU that takes a fraction of the time
    projected_a, projected_b = (
        (directions.t() @ x.float().t()).numpy() for x in (a, b)
    )  # [projections, n], [projections, m]
    if len(a) == len(b):
        quantiles_a, quantiles_b = np.sort(projected_a, axis=1), np.sort(projected_b, axis=1)
    else:
        levels = (np.arange(min(len(a), len(b))) + 0.5) / min(len(a), len(b))
        quantiles_a, quantiles_b = (np.quantile(x, levels, axis=1) for x in (projected_a, projected_b))
    return float(np.abs(quantiles_a - quantiles_b).mean(dtype=np.float64))


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3``, on Inception's features: KID.

    Bińkowski et al. 2018, "Demystifying MMD GANs", sections 3 and 4. Unlike the Fréchet distance its expectation does
    not depend on how many points there are, so few do.

    Args:
        a, b: features [n, d] and [m, d], n and m >= 2.

    Returns:
        The distance; around 0, and below it half of the time, for two samples of one distribution.

    Example:
        >>> a = torch.tensor([[0.0], [1.0]])
        >>> kernel_distance(a, a)  # k is 1 across and 1, 8 within: 1 + 1 - 2 * (1 + 1 + 1 + 8) / 4
        -3.5
    """
    _check(a, b)
    a, b = a.double(), b.double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.t() / x.shape[1] + 1) ** 3

    def within(x: torch.Tensor) -> torch.Tensor:
        k, n = kernel(x, x), len(x)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_recall(real: torch.Tensor, generated: torch.Tensor, neighbours: int = NEIGHBOURS) -> Tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 to 3), each 0 to 1.

    Precision: share of generated features that lie within the distance of some real feature to its k-th neighbour.
    Recall: the same with the roles exchanged.

    Args:
        real, generated: features [n, d] and [m, d], more than ``neighbours`` each.
    """
    _check(real, generated)
    return _covered(generated, real, neighbours), _covered(real, generated, neighbours)


def _covered(points: torch.Tensor, manifold: torch.Tensor, neighbours: int) -> float:
    """Share of ``points`` that lie in some ball around a point of ``manifold`` up to its k-th neighbour.

    By brute force: kd-trees overflow the stack on features with many equal coordinates, such as ReLU's zeros.
    """
    points, manifold = points.double(), manifold.double()
    chunks = torch.split(manifold, CHUNK)  # the nearest neighbour of all is the point itself
    radii = torch.cat([torch.cdist(chunk, manifold).kthvalue(neighbours + 1, dim=1).values for chunk in chunks])
    inside = [(torch.cdist(chunk, manifold) <= radii).any(dim=1) for chunk in torch.split(points, CHUNK)]
    return float(torch.cat(inside).double().mean())


def _mean_and_root(x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    x = x.double()
    mean = x.mean(dim=0)
    centred = x - mean
    values, vectors = torch.linalg.eigh(centred.t() @ centred / (len(x) - 1))
    return mean, (vectors * values.clamp_min(0).sqrt()) @ vectors.t()


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features have to be [n, d] and [m, d] with n, m >= 2, not {[*a.shape]} and {[*b.shape]}")
    if not (math.isfinite(float(a.sum())) and math.isfinite(float(b.sum()))):
        raise MeasurementError("features hold values that are not finite")
