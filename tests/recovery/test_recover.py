"""Self-distillation: it helps, never harms, stops where it must, and refuses pairs that do not belong together."""

from __future__ import annotations

import copy
import json
import math
import sys
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import pytest
import torch

import squeeze_patch
from squeeze_patch.evaluation.compare import compare
from squeeze_patch.progress import one_thread
from squeeze_patch.recovery import inputs
from squeeze_patch.recovery.optimiser import Optimiser, orthogonalised
from squeeze_patch.recovery.pair import pair_of
from squeeze_patch.recovery.session import LEAST_GAIN, has_plateaued
from squeeze_patch.recovery.settings import Settings, average_decay, learning_rate
from squeeze_patch.recovery.state_file import Evaluation
from squeeze_patch.testing import trained
from tests.helpers import QUICK, SMALL, same, tensors
from tests.hosts import Host


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On networks as small as these, threads only wait for one another."""
    with one_thread():
        yield


def pair(host: Host, **kwargs: Any) -> Tuple[Any, Any]:
    """(squeezed, dense), the squeezed one started from the dense one's weights."""
    torch.manual_seed(0)
    dense = trained(host.generator(**{**SMALL, **kwargs}))
    return squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False), dense


@pytest.mark.parametrize("c_dim", [0, 3])
def test_images_come_back(host: Host, c_dim: int) -> None:
    """On latents that neither the training nor its evaluations saw; everything but the blocks stays as it was."""
    student, dense = pair(host, c_dim=c_dim)
    student.requires_grad_(False)
    before, teacher = compare(student, dense, samples=64, seed=99, noise_mode="none"), tensors(dense)
    mapping = tensors(student.mapping)
    random = torch.get_rng_state()
    result = squeeze_patch.recover(student, dense, steps=40, batch=8, evaluate_every=10)
    after = compare(student, dense, samples=64, seed=99, noise_mode="none")
    # this generator of random weights gains 2.5 dB in 40 steps; more than half of it is no chance
    assert after.psnr > before.psnr + 1.5
    assert result.improved
    assert result.psnr_after == max(entry.psnr for entry in result.history)
    # squared errors of single images vary by less than their mean, so means of 64 and 128 of them differ by a standard
    # deviation of less than sqrt(1/64 + 1/128) = 0.15; four of these are a factor of 1.6, 2 dB (0.1 dB as measured)
    assert abs(result.psnr_before - before.psnr) < 2
    assert abs(result.psnr_after - after.psnr) < 2
    assert str(result).startswith(f"recovered: {result.psnr_before:.1f} -> {result.psnr_after:.1f} dB")
    assert same(tensors(dense), teacher)
    assert same(tensors(student.mapping), mapping)
    assert torch.equal(torch.get_rng_state(), random)
    assert not student.training
    assert not any(p.requires_grad or p.grad is not None for p in student.parameters())
    for module in [*student.modules(), *dense.modules()]:
        assert not module._forward_hooks
    assert squeeze_patch.status(student).state == "squeezed"


def test_the_features_part_of_the_loss_goes_by_its_weight(draggan: Host) -> None:
    """The first step's loss is that of the images plus, times the weight, that of the features."""
    losses = []
    for weight in (0.0, 1.0, 3.0):
        student, dense = pair(draggan)
        first: List[float] = []
        squeeze_patch.recover(
            student, dense, feature_weight=weight, progress=lambda step, to=first: to.append(step.loss), **QUICK
        )
        losses.append(first[0])
    images, one, three = losses
    assert one > images > 0
    assert three - images == pytest.approx(3 * (one - images), rel=1e-4)  # float32 losses of about 1


def test_it_never_makes_the_start_worse(draggan: Host) -> None:
    student, dense = pair(draggan)
    start = tensors(student)
    result = squeeze_patch.recover(student, dense, learning_rate=3.0, **QUICK)
    assert min(entry.psnr for entry in result.history[1:]) < result.psnr_before  # this rate does harm
    assert not result.improved
    assert str(result).startswith("not improved: the start")
    assert same(tensors(student), start)


def test_a_loss_that_is_not_finite_stops_it(draggan: Host, tmp_path: Path) -> None:
    student, dense = pair(draggan)
    states: List[Dict[str, torch.Tensor]] = []

    def spoil(step: Any) -> None:
        if step.step == 4:
            states.append(tensors(student))
            with torch.no_grad():
                student.synthesis.b8.conv0.bias[0] = math.nan

    with pytest.raises(squeeze_patch.SqueezeError, match="step 5 has the loss nan.*lower learning rate"):
        squeeze_patch.recover(student, dense, state=tmp_path / "state", progress=spoil, **QUICK)
    assert all(value.isfinite().all() for value in tensors(student).values())
    again, _ = pair(draggan)  # the state file is from before the accident
    result = squeeze_patch.recover(again, dense, state=tmp_path / "state", **QUICK)
    whole, _ = pair(draggan)
    squeeze_patch.recover(whole, dense, **QUICK)
    assert result.resumed_at == 4
    assert same(tensors(again), tensors(whole))


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_broken_run_goes_on_to_the_bit(draggan: Host, tmp_path: Path, stop_at: int) -> None:
    whole, dense = pair(draggan)
    expected = squeeze_patch.recover(whole, dense, log=tmp_path / "whole.jsonl", **QUICK)

    def stop(step: Any) -> None:
        if step.step == stop_at:
            raise KeyboardInterrupt

    broken, _ = pair(draggan)
    files: Dict[str, Any] = {"state": tmp_path / "state", "log": tmp_path / "broken.jsonl"}
    with pytest.raises(KeyboardInterrupt):
        squeeze_patch.recover(broken, dense, progress=stop, **files, **QUICK)
    start, _ = pair(draggan)
    result = squeeze_patch.recover(start, dense, **files, **QUICK)
    assert result.resumed_at == stop_at // 2 * 2  # the last evaluation
    assert (f"taken up at step {result.resumed_at}" in str(result)) == (result.resumed_at > 0)
    assert same(tensors(start), tensors(whole))
    assert [entry.psnr for entry in result.history] == [entry.psnr for entry in expected.history]
    logs = [[json.loads(line) for line in path.read_text().splitlines()] for path in tmp_path.glob("*.jsonl")]
    assert [[(line["step"], line["psnr"]) for line in log] for log in logs] == [
        [(entry.step, entry.psnr) for entry in expected.history]
    ] * 2


def test_a_state_of_another_run_is_refused(draggan: Host, tmp_path: Path) -> None:
    student, dense = pair(draggan)
    state = tmp_path / "state"
    squeeze_patch.recover(student, dense, state=state, **QUICK)
    start, _ = pair(draggan)
    before = tensors(start)
    with pytest.raises(squeeze_patch.RecoveryError, match="steps 6, now 7; seed 0, now 5.*delete"):
        squeeze_patch.recover(start, dense, state=state, **{**QUICK, "steps": 7, "seed": 5})
    other, other_dense = pair(draggan)
    with torch.no_grad():
        other.synthesis.b8.conv1.weight[0, 0, 0, 0] += 1
    with pytest.raises(squeeze_patch.RecoveryError, match="other generators.*delete"):
        squeeze_patch.recover(other, other_dense, state=state, **QUICK)
    for content in (b"", b"PK\x03\x04 nonsense", state.read_bytes()[:1000]):
        state.write_bytes(content)
        with pytest.raises(squeeze_patch.RecoveryError, match="no readable state.*Delete"):
            squeeze_patch.recover(start, dense, state=state, **QUICK)
    assert same(tensors(start), before)


def test_pairs_that_do_not_belong_together(draggan: Host) -> None:
    student, dense = pair(draggan)
    before = tensors(student)
    wider, wider_dense = pair(draggan, w_dim=24)
    larger, _ = pair(draggan, resolution=16)
    stranger = trained(draggan.generator(**SMALL), seed=5)
    cases = [
        ((dense, student), "teacher has to be a dense generator.*Name the dense checkpoint"),
        ((dense, dense), "student has to be a squeezed generator.*Squeeze it first"),
        ((wider, dense), "w_dim of block b4 is 24 .* 16 .*Name the dense checkpoint"),
        ((larger, dense), "differ in more than the squeezed blocks"),
        ((student, wider_dense), "differ in more than the squeezed blocks"),
        ((copy.deepcopy(student).half(), dense), r"b4.const \(torch.float16\) of the student is too coarse"),
        ((student, stranger), "the same latent has another style.*mapping network differ.*convert it anew"),
    ]
    for (one, other), message in cases:
        with pytest.raises(squeeze_patch.StateError, match=message):
            squeeze_patch.recover(one, other, **QUICK)
    with pytest.raises(squeeze_patch.UnsupportedModelError):
        squeeze_patch.recover(torch.nn.Linear(1, 1), dense)
    assert same(tensors(student), before)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("seed", -1),
        ("noise_mode", "random"),
        ("feature_weight", -1.0),
        ("lpips_weight", -1.0),
        ("evaluate_every", 0),
        ("minutes", 0),
        ("patience", 0),
        ("at_a_time", 0),
        ("steps", True),
        ("learning_rate", "0.1"),
        ("minutes", "1"),
        ("patience", 1.5),
        ("at_a_time", 1.5),
    ],
)
def test_settings_out_of_range(draggan: Host, setting: str, value: Any) -> None:
    student, dense = pair(draggan)
    with pytest.raises(squeeze_patch.RecoveryError, match=f"{setting} has to be "):
        squeeze_patch.recover(student, dense, **{setting: value})


def test_numbers_of_numpy_are_numbers() -> None:
    settings = Settings(steps=np.int64(6), seed=np.int32(1), learning_rate=np.float32(0.5))
    assert json.dumps(asdict(settings)) == json.dumps(asdict(Settings(steps=6, seed=1, learning_rate=0.5)))


def test_it_stops_when_time_is_up_or_nothing_is_gained(draggan: Host, tmp_path: Path) -> None:
    student, dense = pair(draggan)
    timed = squeeze_patch.recover(student, dense, minutes=1e-9, state=tmp_path / "state", **QUICK)
    assert (timed.stopped, timed.steps) == ("minutes", 1)
    assert "stopped by minutes" in str(timed)
    student, _ = pair(draggan)
    longer = squeeze_patch.recover(student, dense, minutes=60, state=tmp_path / "state", **QUICK)
    assert (longer.stopped, longer.steps, longer.resumed_at) == ("steps", 6, 1)
    student, _ = pair(draggan)
    tired = squeeze_patch.recover(student, dense, learning_rate=3.0, patience=2, **QUICK)
    assert (tired.stopped, tired.steps) == ("patience", 4)


def test_without_noise(draggan: Host) -> None:
    """Noise strengths have no part in the loss then, and stay as they are."""
    student, dense = pair(draggan)
    before = tensors(student)
    squeeze_patch.recover(student, dense, noise_mode="none", learning_rate=1e-3, **QUICK)
    moved = {name for name, value in tensors(student).items() if not torch.equal(value, before[name])}
    assert moved
    assert not any("noise" in name for name in moved)


def test_has_plateaued() -> None:
    def history(*psnr: float) -> List[Evaluation]:
        return [Evaluation(step, value, None, None, 0.0) for step, value in enumerate(psnr)]

    assert not has_plateaued(history(20, 19), patience=2)
    assert has_plateaued(history(20, 19, 20 + LEAST_GAIN / 2), patience=2)
    assert not has_plateaued(history(20, 19, 21), patience=2)
    assert not has_plateaued(history(20, 21, 19), patience=2)
    assert has_plateaued(history(20, 21, 19, 21), patience=2)


def test_schedule() -> None:
    settings = Settings(steps=1000, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates.index(max(rates)) == 49
    assert rates[500] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-5
    assert learning_rate(Settings(steps=1), 0) > 0
    assert [average_decay(step) for step in (0, 10, 10**6)] == [0.1, 0.55, 0.99]


def test_styles_follow_from_seed_and_step(draggan: Host) -> None:
    student, dense = pair(draggan, c_dim=3)
    both = pair_of(student, dense)
    settings = Settings(batch=400, mixed=0.25, truncated=0.5)
    centre = inputs.mean_style(both, settings)
    w = inputs.training_styles(both, settings, 3, centre)
    torch.manual_seed(77)
    assert torch.equal(inputs.training_styles(both, settings, 3, centre), w)
    assert not torch.equal(inputs.training_styles(both, settings, 4, centre), w)
    assert not torch.equal(inputs.training_styles(both, Settings(batch=400, seed=1), 3, centre), w)
    plain = inputs.training_styles(both, Settings(batch=400, mixed=0, truncated=0), 3, centre)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))
    mixed = (w != w[:, :1]).flatten(1).any(dim=1)
    truncated = (w[:, 0] != plain[:, 0]).any(dim=1)
    # binomial, 400 draws: five standard deviations are 0.11 and 0.125
    assert abs(mixed.float().mean().item() - 0.25) < 0.11
    assert abs(truncated.float().mean().item() - 0.5) < 0.125
    nearer = (w[:, 0] - centre).norm(dim=1) <= (plain[:, 0] - centre).norm(dim=1) * (1 + 1e-5)
    assert nearer.all()


def test_orthogonalised() -> None:
    """Singular vectors stay, singular values come near 1; small ones (a hundredth of the norm) do so too."""
    for shape in ([5, 9], [9, 5], [4, 4]):
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        values = torch.logspace(0, -2, min(shape))
        result = u.t() @ orthogonalised(u @ torch.diag(values) @ v) @ v.t()
        assert torch.allclose(result, torch.diag(result.diagonal()), atol=1e-4)
        assert result.diagonal().min() > 0.6
        assert result.diagonal().max() < 1.3
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_relative_steps_are_as_large_as_the_weights() -> None:
    """A weight a hundred times smaller moves a hundred times less; at unit scale nothing changes."""
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    start /= start.square().mean().sqrt()
    steps = {}
    for size, relative in ((1.0, False), (1.0, True), (0.01, True), (0.01, False)):
        weight = torch.nn.Parameter(start * size)
        optimiser = Optimiser([weight], lr=0.1, relative=relative)
        weight.square().sum().backward()
        optimiser.step(0.1)
        steps[size, relative] = float((weight.detach() - start * size).norm())
    # all steps go along the same singular vectors; float32 rounds each to a millionth or so
    assert steps[1.0, True] == pytest.approx(steps[1.0, False], rel=1e-5)
    assert steps[0.01, True] == pytest.approx(steps[1.0, True] / 100, rel=1e-4)
    assert steps[0.01, False] == pytest.approx(steps[1.0, False], rel=1e-4)


def test_lpips(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    student, dense = pair(draggan)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(squeeze_patch.SqueezeError, match="pip install lpips"):
        squeeze_patch.recover(student, dense, lpips_weight=1.0, **QUICK)

    class Measure(torch.nn.Module):
        """In the place of the real one, which downloads its weights."""

        calls: List[torch.Size] = []  # noqa: RUF012

        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            self.calls.append(a.shape)
            return (a - b).abs().mean(dim=[1, 2, 3], keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Measure))
    plain, _ = pair(draggan)
    squeeze_patch.recover(plain, dense, **QUICK)
    squeeze_patch.recover(student, dense, lpips_weight=1.0, **QUICK)
    assert set(Measure.calls) == {torch.Size([2, 3, 8, 8]), torch.Size([4, 3, 8, 8])}
    assert not same(tensors(plain), tensors(student))
