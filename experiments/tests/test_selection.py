"""The choices of channels in `experiments.selection` are what their papers say."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import selection
from experiments.selection import GROWTH, SELECTIONS, error_of, exchanged, greedy, pivoted_qr, root, strong_rrqr

REVEALING = [name for name in SELECTIONS if "energy" not in name and "leverage" not in name]


def matrices(seed: int, channels: int = 12, rank: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A covariance of that rank, and an importance."""
    random = np.random.RandomState(seed)
    a, b = random.randn(rank, channels), random.randn(channels, channels)
    return a.T @ a, b.T @ b


@pytest.mark.parametrize("name", SELECTIONS)
def test_as_many_channels_as_asked_for(name: str) -> None:
    for width in (1, 5, 11):
        kept = SELECTIONS[name](*matrices(seed=0), width)
        assert len(set(kept.tolist())) == width
        assert set(kept.tolist()) <= set(range(12))


@pytest.mark.parametrize("name", REVEALING)
def test_what_reveals_the_rank_leaves_no_error(name: str) -> None:
    covariance, importance = matrices(seed=1, rank=5)
    kept = SELECTIONS[name](covariance, importance, 5)
    # the ridge of 1e-9 times the condition number of five random channels' covariance, below 1e3
    assert error_of(covariance, importance, kept) < 1e-6 * (covariance * importance).sum()


def test_exchanges_only_help() -> None:
    """Against greedy alone; and better for some of the matrices, of features that are nearly of rank 6."""
    gains = []
    for seed in range(8):
        covariance, importance = matrices(seed, rank=6)
        covariance += 0.01 * np.trace(covariance) / 12 * np.eye(12)
        errors = [error_of(covariance, importance, choose(covariance, importance, 4)) for choose in (greedy, exchanged)]
        gains.append(errors[0] / errors[1])
    assert min(gains) >= 1
    assert max(gains) > 1.01


def test_interchanges_where_pivoting_fails() -> None:
    """Kahan's matrix (1966): pivoted QR leaves its columns where they are and does not see its small singular value."""
    size, cosine = 40, 0.2
    sine = (1 - cosine**2) ** 0.5
    upper = np.eye(size) - cosine * np.triu(np.ones([size, size]), 1)
    kahan = np.diag(sine ** np.arange(size)) @ upper @ np.diag(1 - 1e-6 * np.arange(size))
    covariance = kahan.T @ kahan

    def volume(kept: np.ndarray) -> float:
        return float(np.linalg.slogdet(covariance[np.ix_(kept, kept)])[1] / 2)

    plain, strong = (choose(covariance, np.eye(size), size - 1) for choose in (pivoted_qr, strong_rrqr))
    assert volume(strong) > volume(plain) + np.log(GROWTH)
    assert np.allclose(root(covariance).T @ root(covariance), covariance)


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SELECTIONS", {"leverage scores": selection.leverage})
    done = CliRunner().invoke(selection.main, ["--reductions", "0.121", "--seeds", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    name, value = done.output.splitlines()[-1].rsplit("  ", 1)
    assert name.startswith("leverage scores")
    assert 15 < float(value.split()[0]) < 25  # the mean image has 13 dB, the library's choice 25
