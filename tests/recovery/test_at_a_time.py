"""Batches that are run part by part."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import squeeze_patch
from squeeze_patch.recovery import inputs, trainer
from squeeze_patch.recovery.pair import Pair, pair_of
from squeeze_patch.recovery.processes import current
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.trainer import Training, features_of, training_mode
from squeeze_patch.testing import trained
from tests.helpers import SMALL
from tests.hosts import Host


@pytest.fixture
def both(host: Host) -> Pair:
    torch.manual_seed(0)
    dense = trained(host.generator(**SMALL))
    return pair_of(squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False), dense)


def test_gradients_of_parts_are_those_of_the_batch(both: Pair) -> None:
    gradients, losses = [], []
    for at_a_time in (None, 3):
        with training_mode(both):
            training = Training(both, Settings(batch=8), current(), at_a_time)
            w = inputs.training_styles(both, training.settings, 0, training.centre)
            losses.append(float(training._backward(w, 0)))
            gradients.append([p.grad.clone() for p in training.parameters if p.grad is not None])
            training.optimiser.zero_grad()
    # a gradient sums the products of 8 images, 64 pixels and 9 taps of up to 32 channels; rounding walks randomly
    walk = torch.finfo(torch.float32).eps * math.sqrt(8 * 64 * 9 * 32)
    assert losses[0] == pytest.approx(losses[1], rel=walk)
    assert len(gradients[0]) == len(gradients[1]) > 0
    whole = torch.cat([gradient.flatten() for gradient in gradients[0]]).norm()
    for one, other in zip(*gradients):
        assert (one - other).norm() <= walk * whole


def test_large_generators_run_few_images_at_a_time(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, images in ((8, 8), (1, 1), (0.5, 1)):
        monkeypatch.setattr(trainer, "FEATURES", int(room * features_of(both)))
        with training_mode(both):
            training = Training(both, Settings(), current())
        assert (training.at_a_time, training.evaluated) == (images, min(4 * images, 16))
