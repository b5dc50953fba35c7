"""What a generator costs, against its dense one in the same run."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import torch

from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.checks.answers import RECORD, Answer, Context, holds, not_recorded, short, skipped
from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.subjects import Subject
from squeeze_patch.errors import UnsupportedModelError
from squeeze_patch.evaluation.latency import timed_pairs
from squeeze_patch.evaluation.memory import memory as memory_of
from squeeze_patch.planning.cost import amount, report
from squeeze_patch.progress import Progress
from squeeze_patch.timing import Quartiles

#: chance of an alarm where nothing is wrong, for all looks together: a noisy runner is no regression
FALSE_ALARM = 1e-4
#: pairs of calls after which it is looked
LOOKS = (10, 20, 30, 40, 60, 80, 100)
#: chance at which it is clear enough that nothing is wrong, and no more pairs are run
CLEARLY_LESS = 0.01
#: pairs that a record is made of
RECORDED_PAIRS = 30


def multiply_adds(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """By the widths of its blocks; what is computed beside them shows in `latency`."""
    now = report(subject.found)
    words = f"{amount(now.multiply_adds_before)} -> {amount(now.multiply_adds_after)} multiply-adds"
    words += f" ({now.multiply_adds_after / now.multiply_adds_before:.2f})"
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    most = recorded.multiply_adds * (1 + settings["tolerance"])
    figures = {"multiply_adds": now.multiply_adds_after, "recorded": recorded.multiply_adds}
    if now.multiply_adds_after > most:
        return short(words, wanted=f"{amount(most)} at most", figures=figures)
    return holds(words, figures=figures)


def latency(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Time of a call over that of the dense generator, pair by pair; short only where it is beyond doubt."""
    measured = _limit_and_dense("latency", subject, context, settings)
    if isinstance(measured, Answer):
        return measured
    limit, dense = measured
    verdict = judge(dense, subject.root, limit, settings["batch"], settings["pairs"], context.progress)
    words = (
        f"{verdict.ratio} of the dense generator's {verdict.clock} time, median (quartiles) of {verdict.pairs} pairs"
    )
    figures = {"ratio": verdict.ratio.median, "limit": limit, "pairs": verdict.pairs, "chance": verdict.chance}
    if verdict.slower:
        return short(
            words,
            wanted=f"{limit:.2f} at most; by chance alone in {verdict.chance:.0e} of such runs",
            figures=figures,
            cure=f"where it is meant so, {RECORD}",
        )
    return holds(f"{words}; {limit:.2f} is allowed", figures=figures)


def memory(subject: Subject, context: Context, settings: Mapping[str, Any]) -> Answer:
    """Peak of one call, weights included, over that of the dense generator."""
    measured = _limit_and_dense("memory", subject, context, settings)
    if isinstance(measured, Answer):
        return measured
    limit, dense = measured
    before, after = memory_of(dense, settings["batch"]), memory_of(subject.root, settings["batch"])
    ratio = after.peak / before.peak
    words = f"{before.peak / 1e6:.4g} -> {after.peak / 1e6:.4g} MB ({ratio:.3f})"
    figures = {"ratio": ratio, "limit": limit, "before": before.peak, "after": after.peak}
    if ratio > limit:
        return short(words, wanted=f"{limit:.3f} at most", figures=figures)
    return holds(f"{words}; {limit:.3f} is allowed", figures=figures)


@dataclass(frozen=True)
class Verdict:
    """Of a comparison of times: whether it is slower than allowed, the ratios, how many pairs, the chance that so many
    of them are beyond the limit where the median is not, and by which clock ("processor" or "wall")."""

    slower: bool
    ratio: Quartiles
    pairs: int
    chance: float
    clock: str


def judge(
    dense: torch.nn.Module, G: torch.nn.Module, limit: float, batch: int, most: int, progress: Optional[Progress] = None
) -> Verdict:
    """Whether ``G`` takes more than ``limit`` times the time of ``dense``, beyond doubt, by a sign test over pairs of
    calls one behind the other, which noise of the machine meets alike.

    It is looked after some pairs, and ended as soon as the answer is clear; the chance of a false alarm is shared out
    among the looks and the two clocks (Bonferroni). Processor time is steadier on a busy machine; a path that waits
    shows by the wall clock alone.
    """
    looks = [*(look for look in LOOKS if look < most), most]
    ratios: Dict[str, List[float]] = {"processor": [], "wall": []}
    pairs = timed_pairs(dense, G, batch)
    for look in looks:
        while len(ratios["wall"]) < look:
            pair = next(pairs)
            ratios["processor"].append(pair.processor[1] / pair.processor[0])
            ratios["wall"].append(pair.wall[1] / pair.wall[0])
            if progress is not None:
                progress("latency", len(ratios["wall"]), most)
        chances = {clock: _chance(found, limit, "greater") for clock, found in ratios.items()}
        for clock, chance in chances.items():
            if chance < FALSE_ALARM / (2 * len(looks)):
                return Verdict(True, Quartiles.of(ratios[clock]), look, chance, clock)
        if all(_chance(found, limit, "less") < CLEARLY_LESS for found in ratios.values()):
            break
    return Verdict(False, Quartiles.of(ratios["processor"]), look, chances["processor"], "processor")


def _chance(ratios: List[float], limit: float, side: str) -> float:
    """Of so many pairs, or more, on that side of the limit where the median is the limit."""
    beyond = sum(ratio > limit for ratio in ratios)
    n = len(ratios)
    counts = range(beyond, n + 1) if side == "greater" else range(beyond + 1)
    return sum(math.comb(n, count) for count in counts) / 2**n


def measured_ratios(subject: Subject, context: Context) -> Dict[str, float]:
    """{"latency", "memory": squeezed / dense} for a record, measured as the checks are set to, with `_batch_name`
    beside where that is no call for one image; nothing where there is no dense one to measure against."""
    dense = _dense(subject, context)
    if isinstance(dense, Answer):
        return {}
    checks = context.config.checks
    batches = {name: int(checks.get(name, BY_NAME[name].settings)["batch"]) for name in ("latency", "memory")}
    ratios: List[float] = []
    for pair in itertools.islice(timed_pairs(dense, subject.root, batches["latency"]), RECORDED_PAIRS):
        ratios.append(pair.processor[1] / pair.processor[0])
        context.progress("latency", len(ratios), RECORDED_PAIRS)
    peaks = [memory_of(G, batches["memory"]).peak for G in (dense, subject.root)]
    more = {_batch_name(name): float(batch) for name, batch in batches.items() if batch != 1}
    return {"latency": statistics.median(ratios), "memory": peaks[1] / peaks[0], **more}


def _batch_name(check: str) -> str:
    """What a record of `measured_ratios` calls the images a call; without that entry it was one."""
    return f"{check}_batch"


def _limit_and_dense(
    name: str, subject: Subject, context: Context, settings: Mapping[str, Any]
) -> Union[Answer, Tuple[float, torch.nn.Module]]:
    """What is allowed, and the generator to measure against; or why there is neither."""
    limit = _limit(name, subject, context, settings)
    dense = limit if isinstance(limit, Answer) else _dense(subject, context)
    return dense if isinstance(dense, Answer) else (limit, dense)


def _limit(name: str, subject: Subject, context: Context, settings: Mapping[str, Any]) -> Any:
    """What is allowed: as asked for, or as recorded with the tolerance; a `Answer` where neither is there."""
    if settings["ratio"]:
        return settings["ratio"]
    recorded = context.recorded(subject)
    if recorded is None:
        return not_recorded(context)
    if name not in recorded.ratios:
        return skipped("there was no dense generator to measure against when it was recorded", "name one as [dense]")
    before, now = recorded.ratios.get(_batch_name(name), 1), settings["batch"]
    if before != now:
        words = f"it was recorded at a batch of {before:g}, and is to be measured at {now}: the ratios do not compare"
        return Answer("unknown", words, cure=f"{RECORD} measures it as the configuration says")
    return recorded.ratios[name] * (1 + settings["tolerance"])


def _dense(subject: Subject, context: Context) -> Any:
    """The dense generator, trained or made by the same constructor call; a `Answer` where there is none."""
    trained = context.trained_dense(subject)
    if trained is not None:
        return trained
    key = f"cost:{subject.name}"
    if key not in context.dense:
        try:
            with torch.random.fork_rng(devices=[]):
                made = subject.found.surgery.dense_like(subject.root, subject.found.network)
        except UnsupportedModelError as error:
            return skipped(str(error), "name a dense generator as [dense] in the configuration")
        context.dense[key] = made.to(reference_of(subject.root).device).eval()
    return context.dense[key]
