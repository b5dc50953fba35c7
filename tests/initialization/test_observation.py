"""What plans and starts know of a dense generator is computed once for both, and is the same for each alone."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.demo import trained_generator
from squeeze_patch.initialization import observation
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.selection import select_channels
from squeeze_patch.testing import trained
from tests.hosts import Host

WISH = {"reduction": 0.2, "allocate": "spectral"}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """A number for every time that gradients are taken."""
    found: List[int] = []
    take = observation.gauss_newton

    def counted(*arguments: Any) -> Any:
        found.append(len(found))
        return take(*arguments)

    monkeypatch.setattr(observation, "gauss_newton", counted)
    return found


def test_a_plan_and_its_start_look_once(draggan: Host, looks: List[int]) -> None:
    together = trained(draggan.generator(resolution=16))
    apart = copy.deepcopy(together)
    squeeze_patch.apply(together, **WISH)
    assert len(looks) == 1
    squeeze_patch.apply(apart, plan=squeeze_patch.plan(apart, **WISH))
    assert len(looks) == 3
    assert squeeze_patch.status(together).plan == squeeze_patch.status(apart).plan
    ones, others = together.state_dict(), apart.state_dict()
    assert list(ones) == list(others)
    assert all(torch.equal(ones[name], others[name]) for name in ones)


def test_a_conversion_looks_once(tmp_path: Path, looks: List[int]) -> None:
    """At the first generator; the other one gets its plan and its channels."""
    G = trained_generator()
    (tmp_path / "dense.pkl").write_bytes(pickle.dumps({"G": G, "G_ema": copy.deepcopy(G)}))
    done = squeeze_patch.convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True, **WISH)
    assert done.shared_channels
    assert len(looks) == 1


def test_nothing_is_looked_at_in_vain(draggan: Host, looks: List[int]) -> None:
    """By a start whose channels are given, or that needs no gradients."""
    G = trained(draggan.generator(resolution=8))
    other = copy.deepcopy(G)
    squeeze_patch.apply(G, ratio=2, init="weights")
    assert looks == []
    squeeze_patch.apply(other, like=G)
    assert looks == []


def test_rankings_are_of_the_covariances(draggan: Host) -> None:
    """And what the first q of a ranking are, is what is chosen for q channels."""
    observed = Observation(locate(trained(draggan.generator(resolution=8))), seed=3)
    for name, seen in observed.covariances.outer.items():
        importance = observation.weighed(seen, observed.gradients.outer[name])
        ranking = observed.rankings.outer[name]
        assert sorted(ranking.order.tolist()) == list(range(len(seen)))
        assert bool((ranking.left.diff() <= 0).all())
        for width in (1, len(seen) // 2, len(seen)):
            assert torch.equal(ranking.best(width), select_channels(seen, importance, width))
