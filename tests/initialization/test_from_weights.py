"""The trained start: how near to the dense generator it is, and the exact cases."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import Kept
from squeeze_patch.demo import trained_generator
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.initialization.from_weights import starts_from_weights
from squeeze_patch.initialization.observation import Observation
from squeeze_patch.initialization.regression import refit_torgb, regress
from squeeze_patch.initialization.selection import select_channels
from squeeze_patch.planning.plans import BlockPlan
from squeeze_patch.planning.shapes import shapes_of
from squeeze_patch.surgery.apply import squeeze
from tests.helpers import images_of


def test_start_is_near_the_dense_generator(capsys: pytest.CaptureFixture[str]) -> None:
    """Well ahead of what needs no method: the mean image, the channels of largest weight norm, random layers.

    The margins are a third of what `python -m benchmarks fidelity` shows (9 dB and 7 dB at ratio 1.5).
    """
    dense = trained_generator()
    images = images_of(dense)
    near = {}
    for ratio in (1.0, 1.5, 2.0):
        near[ratio] = psnr(images, images_of(squeeze_patch.apply(copy.deepcopy(dense), ratio=ratio)))
    with capsys.disabled():
        print(f"\nPSNR of the start on the demo generator: { ({k: round(v, 1) for k, v in near.items()}) }")
    assert near[1.0] > 100
    assert near[1.0] > near[1.5] > near[2.0]
    plan = squeeze_patch.plan(dense, ratio=1.5)
    weights = {block.name: getattr(dense.synthesis, block.name).conv1.weight for block in plan.blocks}
    loudest = {
        block.name: Kept(weights[block.name].square().sum(dim=[1, 2, 3]).topk(block.width).indices.sort().values)
        for block in plan.blocks
    }
    others = {"mean image": psnr(images, images.mean(dim=0, keepdim=True).expand_as(images))}
    for name, init, kept in (("weight norm", "weights", loudest), ("random", "random", None)):
        other = copy.deepcopy(dense)
        squeeze(locate(other), plan, init, kept=kept)
        others[name] = psnr(images, images_of(other))
    assert near[1.5] > max(others.values()) + 2.5, others


def low_rank_features(rank: int, channels: int) -> torch.Tensor:
    random = np.random.RandomState(0)
    features = random.randn(4000, rank) @ random.randn(rank, channels) + random.randn(channels)
    return torch.from_numpy(features)


def test_features_of_rank_q_are_kept_exactly() -> None:
    features = low_rank_features(rank=6, channels=20)
    mean = features.mean(dim=0)
    covariance = (features - mean).t() @ (features - mean) / len(features)
    kept = select_channels(covariance, torch.eye(20, dtype=torch.float64), 6)
    mix, offset = regress(covariance, mean, kept)
    error = (features[:, kept] @ mix.t() + offset - features).square().mean() / features.var()
    # the ridge of 1e-6 lets this much through: its square, times the covariance's condition number (about 1e3)
    assert error <= 1e-6


def test_selection_serves_the_readers() -> None:
    """Two loud groups of channels and a quiet one that alone is read: its channel is taken first."""
    covariance = torch.diag(torch.tensor([9.0, 9.0, 4.0, 0.01], dtype=torch.float64))
    importance = torch.diag(torch.tensor([0.0, 0.0, 1e-4, 1.0], dtype=torch.float64))
    assert select_channels(covariance, importance, 1).tolist() == [3]
    assert select_channels(covariance, importance, 2).tolist() == [2, 3]
    assert select_channels(covariance, torch.eye(4, dtype=torch.float64), 2).tolist() == [0, 1]


def test_selection_is_greedy_subset_selection() -> None:
    """Against the definition, computed the slow way."""
    random = np.random.RandomState(1)
    a, b = random.randn(50, 12), random.randn(12, 12)
    covariance, importance = torch.from_numpy(a.T @ a), torch.from_numpy(b.T @ b)
    chosen: list[int] = []
    for _ in range(5):

        def error(candidate: int) -> float:
            kept = [*chosen, candidate]
            c = covariance.numpy()
            residual = c - c[:, kept] @ np.linalg.solve(c[np.ix_(kept, kept)], c[kept])
            return float(np.trace(importance.numpy() @ residual))

        chosen.append(min((j for j in range(12) if j not in chosen), key=error))
    assert select_channels(covariance, importance, 5).tolist() == sorted(chosen)


def test_dead_channels_do_no_harm() -> None:
    features = low_rank_features(rank=4, channels=10)
    features[:, :5] = 0
    mean = features.mean(dim=0)
    covariance = (features - mean).t() @ (features - mean) / len(features)
    kept = select_channels(covariance, torch.eye(10, dtype=torch.float64), 7)
    mix, offset = regress(covariance, mean, kept)
    assert len(kept) == 7
    assert torch.isfinite(mix).all()
    assert torch.isfinite(offset).all()


def test_averaging_two_starts_with_the_same_channels_makes_sense() -> None:
    """G and G_ema of a checkpoint are averaged as training goes on: the start of the middle is the middle of starts."""
    a = trained_generator()
    b = copy.deepcopy(a)
    random = torch.Generator().manual_seed(0)
    for parameter in b.parameters():
        parameter.add_(0.02 * parameter.abs().mean() * torch.randn(parameter.shape, generator=random))
    plan = squeeze_patch.plan(a)
    kept = squeeze(locate(a), plan, "weights")
    squeeze(locate(b), plan, "weights", kept=kept)
    middle = copy.deepcopy(a)
    for mine, other in zip(middle.parameters(), b.parameters()):
        mine.lerp_(other, 0.5)
    of_a, of_b, of_middle = images_of(a), images_of(b), images_of(middle)
    apart = psnr(of_a, of_b)
    assert psnr(of_a, of_middle) > apart
    assert psnr(of_b, of_middle) > apart


def test_styles_of_torgb_are_as_large_as_they_were_and_of_their_sign() -> None:
    """Whatever factors the weights take up for it, else weights of two moments of a training do not fit."""
    found = locate(trained_generator())
    ws, random = found.sample_w(200, 1).double(), torch.Generator().manual_seed(0)
    for block in Observation(found, seed=0).blocks:
        c, kept = block.spec.channels, torch.arange(0, block.spec.channels, 2)
        mix = torch.randn([c, len(kept)], generator=random, dtype=torch.float64)
        _, style, _ = refit_torgb(block, mix, torch.zeros(c, dtype=torch.float64), kept, ws)
        new, old = style(ws), block.rgb_style(ws.float())[:, kept].double()
        assert (new.square().mean(dim=0) / old.square().mean(dim=0) - 1).abs().max() < 1e-5
        assert ((new * old).mean(dim=0) > 0).all()


def test_convolutions_that_stay_are_not_refitted() -> None:
    """Behind a narrowed block of all its channels: conv0 reads features that are not the dense ones, but is the dense
    one's own object, which no start changes."""
    found = locate(trained_generator())
    rows = [(0.5, False), (1.0, False), (1.0, True)]
    blocks = [
        BlockPlan(
            s.name, s.resolution, s.channels, s.channels // 2 if excite else int(s.channels * share), excite=excite
        )
        for s, (share, excite) in zip(found.specs, rows)
    ]
    shapes = shapes_of(found.specs, blocks)
    made = starts_from_weights(Observation(found, seed=0), shapes)
    _, second, third = (made[block.name] for block in blocks)
    assert second.conv0 is not None
    assert third.conv0 is None
    assert third.conv1 is not None
