"""The loss that is trained on, against its terms computed by hand."""

from __future__ import annotations

import copy
import sys
import types
from typing import Any, Dict, Tuple

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.demo import trained_generator
from squeeze_patch.recovery.objective import Objective, Targets, feature_power, lpips_distance
from squeeze_patch.recovery.pair import Pair, pair_of
from squeeze_patch.recovery.settings import Settings


def pair(**wish: Any) -> Pair:
    dense = trained_generator()
    return pair_of(squeeze_patch.apply(copy.deepcopy(dense), keep_original=False, **wish), dense)


def styles(pair: Pair, n: int, seed: int) -> torch.Tensor:
    return pair.sample_w(n, seed)[:, None].expand(-1, pair.num_ws, -1)


def seen(G: Any, w: torch.Tensor) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
    """Images, and {block: features}, as hooks of this test's own see them."""
    features: Dict[str, torch.Tensor] = {}
    names = ["b4", "b8", "b16"]  # b32 has no reader
    handles = [
        getattr(G.synthesis, name).register_forward_hook(
            lambda _module, _inputs, outputs, name=name: features.update({name: outputs[0]})
        )
        for name in names
    ]
    with torch.no_grad():
        images = G.synthesis(w, noise_mode="none")
    for handle in handles:
        handle.remove()
    return images, features


def test_the_loss_is_that_of_images_features_and_distance() -> None:
    pair_ = pair(ratio=2)
    probe, w = styles(pair_, 6, 1), styles(pair_, 4, 2)
    targets = Targets(pair_, "none", probe)
    power = feature_power(targets, probe)
    settings = Settings(noise_mode="none", lpips_weight=0.3)
    objective = Objective(pair_, settings, power, lambda a, b: (a - b).abs().mean() + a.mean())
    with torch.no_grad(), objective.taps.on(pair_.student, pair_.tapped):
        loss = objective(w, *targets(w), 0.7)
    (mine, my_features), (theirs, features) = seen(pair_.student.root, w), seen(pair_.teacher.root, w)
    expected = float((mine - theirs).square().mean() + 0.3 * ((mine - theirs).abs().mean() + mine.mean()))
    for name, value in seen(pair_.teacher.root, probe)[1].items():
        assert power[name] == pytest.approx(float(value.square().mean()), rel=1e-5)
        expected += 0.7 * float((my_features[name] - features[name]).square().mean()) / power[name]
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_narrowed_features_are_compared_with_kept_ones_in_the_students_size() -> None:
    """Which is the slope of a straight line through the student's channel over the teacher's."""
    pair_ = pair(ratio=2, method="narrow")
    assert list(pair_.handed) == pair_.tapped == ["b4", "b8", "b16"]
    probe, w = styles(pair_, 6, 1), styles(pair_, 2, 2)
    images, features = Targets(pair_, "none", probe)(w)
    (_, mine), (_, theirs) = seen(pair_.student.root, probe), seen(pair_.teacher.root, probe)
    expected_images, expected = seen(pair_.teacher.root, w)
    assert torch.equal(images, expected_images)
    for name, kept in pair_.handed.items():
        for channel, number in enumerate(kept.tolist()):
            a, b = (x[:, at].double().flatten().numpy() for x, at in ((mine[name], channel), (theirs[name], number)))
            slope = float(np.polyfit(b, a, 1)[0])
            wanted = expected[name][:, number] * slope
            assert (features[name][:, channel] - wanted).abs().max() <= 1e-3 * expected[name].abs().max()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lpips_sees_three_channels(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Measure(torch.nn.Module):
        def __init__(self, **how: Any) -> None:
            super().__init__()
            assert how == {"net": "vgg", "verbose": False}

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == b.shape == (2, 3, 8, 8)
            return (a - b).abs().mean(dim=[1, 2, 3], keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Measure))
    a, b = (torch.rand([2, channels, 8, 8], generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = lpips_distance(torch.device("cpu"))(a, b)
    assert float(found) == pytest.approx(float((a - b)[:, :3].abs().mean()), rel=1e-6)
