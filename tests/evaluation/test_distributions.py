"""Distances between sets of features: against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from squeeze_patch.evaluation.distributions import (
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn([n, d], generator=torch.Generator().manual_seed(seed))


def test_frechet_distance_of_moved_and_scaled_features() -> None:
    """Exact on the samples themselves: moving adds the squared distance, scaling by s adds (s - 1)^2 trace(S)."""
    x = normal(500, 6, 0)
    shift = torch.arange(6.0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-5)
    trace = float(torch.cov(x.t().double()).diagonal().sum())
    about_zero = x - x.mean(dim=0)
    assert frechet_distance(about_zero, 3 * about_zero) == pytest.approx(4 * trace, rel=1e-5)


def test_frechet_distance_stays_exact_on_singular_covariances() -> None:
    """Features of rank 1 on orthogonal axes: the root's trace vanishes, the traces remain."""
    x = torch.zeros([100, 4])
    y = x.clone()
    x[:, 0], y[:, 1] = normal(100, 1, 0)[:, 0], normal(100, 1, 1)[:, 0]
    expected = float(torch.var(x[:, 0].double()) + torch.var(y[:, 1].double()))
    expected += float((x.double().mean(dim=0) - y.double().mean(dim=0)).square().sum())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_sliced_wasserstein_of_a_shift_is_the_mean_projection() -> None:
    """Along a unit direction v the distance of x and x + t is |t . v|; its mean over directions in 2 d is 2 |t| / pi.

    256 directions: the standard error is |t| sqrt(1/2 - 4/pi^2) / 16 < 0.02 |t|; four of them are allowed.
    """
    x = normal(400, 2, 0)
    distance = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]))
    assert distance == pytest.approx(10 / math.pi, abs=4 * 0.02 * 5)
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x[:, :1], x[:300, :1], projections=1) < 0.1  # sets of different sizes


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    """In one dimension E k(x, y) = 1 + 3 E x E y + 3 E x^2 E y^2 + E x^3 E y^3 for independent x and y: for N(0, 1) and
    N(t, 1) the squared discrepancy is 3 t^2 + 3 t^4 + (3 t + t^3)^2. Means over 200 pairs of samples, within four
    standard errors of them.
    """
    for shift in (0.0, 0.5):
        expected = 3 * shift**2 + 3 * shift**4 + (3 * shift + shift**3) ** 2
        found = torch.tensor(
            [kernel_distance(normal(50, 1, 2 * i), normal(40, 1, 2 * i + 1) + shift) for i in range(200)]
        )
        assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / math.sqrt(len(found))


def test_precision_and_recall_tell_missing_modes_from_wrong_samples() -> None:
    left, right = normal(300, 4, 0) - 20, normal(300, 4, 1) + 20
    real = torch.cat([left, right])
    assert precision_recall(real, real) == (1, 1)
    precision, recall = precision_recall(real, normal(300, 4, 2) - 20)  # one of two modes
    assert precision > 0.8
    assert recall < 0.5
    assert precision_recall(real, normal(300, 4, 2)) == (0, 0)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), "features have to be"),
        (torch.zeros(1, 2), torch.zeros(3, 2), "n, m >= 2"),
        (torch.zeros(3, 2, 1), torch.zeros(3, 2), "features have to be"),
        (torch.full((3, 2), math.nan), torch.zeros(3, 2), "not finite"),
    ],
)
def test_wrong_features_are_named(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    for distance in (frechet_distance, sliced_wasserstein, kernel_distance, precision_recall):
        for pair in ((a, b), (b, a)):
            with pytest.raises(ValueError, match=message):
                distance(*pair)  # type: ignore[operator]
