"""What checks count with: inputs that stay, samples of tensors, and the verdict over pairs of times."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List

import pytest
import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.checks import cost_checks
from squeeze_patch.checks.baseline import check_target, read_baseline
from squeeze_patch.checks.config import LEAST
from squeeze_patch.checks.cost_checks import CLEARLY_LESS, FALSE_ALARM, LOOKS
from squeeze_patch.checks.fixed_inputs import Sample, fixed_latents, fixed_styles
from squeeze_patch.checks.training_checks import _follow
from squeeze_patch.errors import ConfigError
from squeeze_patch.evaluation.latency import TimedPair

MOST = 50


def test_inputs_of_committed_baselines_stay() -> None:
    """Numbers of numpy's frozen stream of seed 0: with others, every baseline in a repository would fall short."""
    z, c = fixed_latents(Sampler(2, 3, 8, lambda *_: torch.zeros(0)), 4)
    stream = [1.7640524, 0.4001572, 0.9787380, 2.2408931, 1.8675580, -0.9772779, 0.9500884, -0.1513572]
    assert z.flatten().tolist() == pytest.approx(stream, abs=1e-6)
    assert c.argmax(1).tolist() == [0, 1, 2, 0]
    assert fixed_styles(2, 2, 2).flatten().tolist() == pytest.approx(stream, abs=1e-6)


def test_a_moving_average_that_caught_up() -> None:
    """Has the values, and what it follows keeps its own."""
    trained, averaged = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    for value, module in ((1.0, trained), (2.0, averaged)):
        for tensor in module.state_dict().values():
            tensor.fill_(value)
    _follow(trained, averaged)
    for module in (trained, averaged):
        assert all(tensor.eq(1).all() for tensor in module.state_dict().values())


def test_samples_tell_how_far_tensors_are_apart() -> None:
    a, b = Sample.of(torch.tensor([1.0, -2.0, 3.0]), 8), Sample.of(torch.tensor([1.0, -2.5, 4.0]), 8)
    assert (a.peak, b.peak) == (3.0, 4.0)
    assert (a.difference(b), b.difference(a), a.difference(a)) == (1.0, 1.0, 0.0)
    assert a.squared_error(b) == pytest.approx((0.5**2 + 1.0**2) / 3)
    assert a.difference(Sample.of(torch.tensor([[1.0, -2.0, 3.0]]), 8)) == float("inf")
    many = torch.arange(1000.0)
    assert Sample.of(many, 8).values.tolist() == [684, 559, 629, 192, 835, 763, 707, 359]  # of the frozen stream, too


@pytest.mark.parametrize(
    ("processor", "wall", "verdict"),
    [
        ([1.5], [1.5], (True, "processor")),
        ([1.0], [1.5], (True, "wall")),  # a path that waits
        ([1.5], [1.0], (True, "processor")),
        ([1.2, 1.4], [1.2, 1.4], (False, "processor")),  # nothing is beyond doubt
        ([1.0], [1.0], (False, "processor")),
    ],
)
def test_a_verdict_is_given_where_it_is_beyond_doubt(
    processor: List[float], wall: List[float], verdict: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all pairs are on one side of the limit, n of them are so by chance in 1 / 2^n of such runs."""
    times = zip(itertools.cycle(processor), itertools.cycle(wall))
    pairs = (TimedPair(processor=(2.0, 2.0 * p), wall=(3.0, 3.0 * w)) for p, w in times)
    monkeypatch.setattr(cost_checks, "timed_pairs", lambda *_: pairs)
    nothing = torch.nn.Module()
    found = cost_checks.judge(nothing, nothing, limit=1.3, batch=1, most=MOST)
    assert (found.slower, found.clock) == verdict
    looks = [*(look for look in LOOKS if look < MOST), MOST]
    if found.slower:
        assert found.pairs == next(n for n in looks if 0.5**n < FALSE_ALARM / (2 * len(looks)))
        assert (found.chance, found.ratio.median) == (0.5**found.pairs, 1.5)
    elif len(processor) == 1:
        assert found.pairs == next(n for n in looks if 0.5**n < CLEARLY_LESS)
    else:
        assert found.pairs == MOST


def test_a_verdict_of_no_doubt_allows_for_some_pairs_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of ten, or fewer, are beyond by chance in 56 / 2^10 of such runs, four of twenty in 0.0059."""
    pairs = (TimedPair(processor=(1.0, p), wall=(1.0, p)) for p in itertools.cycle([1.0, 1.0, 1.4, 1.0, 1.0]))
    monkeypatch.setattr(cost_checks, "timed_pairs", lambda *_: pairs)
    found = cost_checks.judge(torch.nn.Module(), torch.nn.Module(), limit=1.3, batch=1, most=MOST)
    assert (found.slower, found.pairs) == (False, 20)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_record_is_measured_as_the_checks_are(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all its pairs, not of as few as a verdict needs, and at the batch that the configuration has."""
    times = [1.0] * 14 + [2.0] * 16 + [math.inf]
    asked: List[int] = []

    def timed_pairs(_dense: Any, _G: Any, size: int) -> Iterator[TimedPair]:
        asked.append(size)
        return (TimedPair(processor=(1.0, time), wall=(1.0, 1.0)) for time in times)

    monkeypatch.setattr(cost_checks, "timed_pairs", timed_pairs)
    monkeypatch.setattr(cost_checks, "memory_of", lambda _G, size: SimpleNamespace(peak=size))
    checks = {"latency": {"batch": batch}}
    subject: Any = SimpleNamespace(name="", root=torch.nn.Module())
    context: Any = SimpleNamespace(config=SimpleNamespace(checks=checks), progress=lambda what, done, total: None)
    context.trained_dense = lambda _subject: torch.nn.Module()
    found = cost_checks.measured_ratios(subject, context)
    assert asked == [batch]
    assert found == {"latency": 2.0, "memory": 1.0, **({} if batch == 1 else {"latency_batch": batch})}


def test_the_fewest_pairs_suffice_for_an_alarm() -> None:
    looks = [look for look in LOOKS if look < LEAST["pairs"]] + [LEAST["pairs"]]
    assert 0.5 ** LEAST["pairs"] < FALSE_ALARM / (2 * len(looks)) < 0.5 ** (LEAST["pairs"] - 1)


@pytest.mark.parametrize("text", ["", '{\n "schema": 1,\n<<<<<<< ours', '{"schema": 99}'])
def test_a_damaged_baseline_is_recorded_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    check_target(tmp_path / "b.json")


def test_a_conflicting_merge_is_told_so(tmp_path: Path) -> None:
    """Recorded anew it would be green, whatever the weights are: that is no cure of it."""
    file = tmp_path / "squeeze-baseline.json"
    file.write_text('{\n "schema": 1,\n<<<<<<< HEAD\n "a": 1\n=======\n "a": 2\n>>>>>>> topic\n}\n')
    with pytest.raises(ConfigError, match="marks of a merge that conflicted.*--ours") as error:
        read_baseline(file)
    assert "--record" not in str(error.value)
    check_target(file)  # it may be recorded anew nevertheless
