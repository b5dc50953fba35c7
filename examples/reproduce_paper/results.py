"""What the hosts wrote: metric-*.jsonl as a table with intervals, stats.jsonl as a cost in GPU hours."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from benchmarks.curves import paired_ratio
from examples.reproduce_paper.plans import EXPERIMENTS, VARIANTS, Experiment

#: {metric: value} of one snapshot
Figures = Dict[str, float]
#: figures of which more is better
RISING = ("precision", "recall", "is50k_mean")
#: by this the snapshot of a run is chosen: the lowest, as the hosts' papers do
CHOSEN_BY = "fid50k_full"
#: of a figure's spread over splits, which is neither good nor bad
SPREAD = "_std"
#: trainings are equally long where one is no longer than so many times the other: ticks end at whole batches
SAME_LENGTH = 1.01
#: seconds a kimg on so many V100 GPUs, the host's README, `--cfg=auto` with FID behind every snapshot
PUBLISHED = {256: (8, 4.4, 5.5), 512: (8, 9.5, 9.7)}


@dataclass(frozen=True)
class Measured:
    """A variant's training by one seed: the figures of its snapshots, in thousands of images (NaN where a name says
    none)."""

    snapshots: Mapping[float, Figures]

    @property
    def kimg(self) -> float:
        """How far it has been measured."""
        return max(self.snapshots)

    def best(self, kimg: float) -> Figures:
        """Of the snapshot with the lowest FID up to there."""
        return min(
            (figures for at, figures in self.snapshots.items() if not at > kimg), key=lambda each: each[CHOSEN_BY]
        )


def objects_of(file: Path) -> Tuple[List[Dict[str, Any]], int]:
    """Its JSON objects, and how many lines are none: a run that was killed leaves half a line."""
    found, damaged = [], 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            damaged += 1
    return found, damaged


def runs_of(folder: Path) -> List[Path]:
    """The hosts' own folders of a variant and seed, in the order in which they were begun."""
    return sorted(each for each in folder.iterdir() if each.is_dir())


def snapshots_of(run: Path, notes: List[str]) -> Dict[float, Figures]:
    """{kimg: figures} of the snapshots of a run that have a FID; of a metric that was measured again, the later one."""
    found: Dict[str, Figures] = {}
    for file in sorted(run.glob("metric-*.jsonl")):
        lines, damaged = objects_of(file)
        for line in lines:
            try:
                found.setdefault(str(line["snapshot_pkl"]), {}).update(line["results"])
            except (KeyError, TypeError, ValueError):
                damaged += 1
        if damaged:
            notes.append(f"{file}: {damaged} lines left out, which are no figures of a snapshot")
    kept = {name: figures for name, figures in found.items() if math.isfinite(figures.get(CHOSEN_BY, math.nan))}
    if len(kept) < len(found):
        notes.append(f"{run}: {len(found) - len(kept)} of {len(found)} snapshots left out: no finite {CHOSEN_BY}")
    numbers = {name: re.search(r"(\d+)\.pkl$", name) for name in kept}
    if all(numbers.values()):
        return {float(number[1]): kept[name] for name, number in numbers.items() if number}
    return {math.nan: min(kept.values(), key=lambda figures: figures[CHOSEN_BY])}


def collect(out: Path, name: str, notes: List[str]) -> Dict[str, Dict[int, Measured]]:
    """{variant: {seed: its last run that was measured}} of an experiment; what is left out is added to ``notes``."""
    found: Dict[str, Dict[int, Measured]] = {variant: {} for variant in VARIANTS}
    for folder in folders_of(out, name):
        variant, _, seed = folder.name.rpartition("-seed")
        runs = runs_of(folder)
        measured = [run for run in runs if any(run.glob("metric-*.jsonl"))]
        if variant not in found or not seed.isdecimal():
            notes.append(f"{folder} left out: the kit calls its folders VARIANT-seedN; {', '.join(VARIANTS)}")
        elif measured:
            if measured[-1] != runs[-1]:
                notes.append(f"{folder}: {runs[-1].name} has no metrics; its figures are those of {measured[-1].name}")
            snapshots = snapshots_of(measured[-1], notes)
            if snapshots:
                found[variant][int(seed)] = Measured(snapshots)
    return found


def folders_of(out: Path, name: str) -> List[Path]:
    return sorted(each for each in (out / name).glob("*-seed*") if each.is_dir())


def table(out: Path, against: str = "dense") -> Tuple[List[str], List[str]]:
    """A line an experiment, variant and metric; the ratio is over the seeds that it and ``against`` have. And what is
    left out, or compared otherwise than at the end of a training."""
    columns = f"{'experiment':<16} {'variant':<9} {'metric':<24} seeds  {against:>9} {'variant':>9}"
    lines, notes = [f"{columns}   / {against} (95 %)"], []
    for name in EXPERIMENTS:
        found = collect(out, name, notes)
        for variant in VARIANTS:
            if variant != against:
                rows = _rows(f"{name} {variant}", found[variant], found[against], against, notes)
                lines += [f"{name:<16} {variant:<9} {row}" for row in rows]
    return lines, notes


def _rows(
    title: str, over: Mapping[int, Measured], under: Mapping[int, Measured], against: str, notes: List[str]
) -> Iterator[str]:
    """One a metric. Within a seed both are looked at as far as both have come: a longer training has a lower FID."""
    pairs: Dict[int, Tuple[Figures, Figures]] = {}
    for seed in sorted(over.keys() & under.keys()):
        ends = over[seed].kimg, under[seed].kimg
        shorter = SAME_LENGTH * min(ends)
        if max(ends) > shorter:
            notes.append(f"{title} seed {seed}: up to {min(ends):g} kimg only, as far as both have been measured")
        pairs[seed] = over[seed].best(shorter), under[seed].best(shorter)
    if pairs and over.keys() != under.keys():
        single = {title.split()[1]: over.keys() - under.keys(), against: under.keys() - over.keys()}
        words = (f"{name} {', '.join(map(str, sorted(seeds)))}" for name, seeds in single.items() if seeds)
        notes.append(f"{title}: left out are the seeds that one of the two lacks: {'; '.join(words)}")
    known = {metric for both in pairs.values() for figures in both for metric in figures}
    for metric in sorted(metric for metric in known if not metric.endswith(SPREAD)):
        both = {s: (a[metric], b[metric]) for s, (a, b) in pairs.items() if metric in a and metric in b}
        if len(both) < len(pairs):
            notes.append(f"{title} {metric}: of {len(both)} of {len(pairs)} seeds; it is not there for the others")
        if both:
            yield _row(metric, {s: b for s, (_, b) in both.items()}, {s: a for s, (a, _) in both.items()})


def _row(metric: str, rival: Mapping[int, float], variant: Mapping[int, float]) -> str:
    better = "more" if any(word in metric for word in RISING) else "less"
    means = " ".join(f"{statistics.fmean(each.values()):>9.4g}" for each in (rival, variant))
    row = f"{metric + ' (' + better + ')':<24} {len(rival):>5}  {means}"
    values = [*rival.values(), *variant.values()]
    if not all(map(math.isfinite, values)):
        return f"{row}   no ratio: a value is not finite"
    if min(values) <= 0:
        return f"{row}   no ratio: a value is 0 or less"
    ratio = paired_ratio(variant, rival)
    interval = f"({ratio.low:.3f} to {ratio.high:.3f})" if math.isfinite(ratio.high) else "(one seed: no interval)"
    return f"{row}   {ratio.middle:.3f} {interval}"


def seconds_per_kimg(run: Path) -> float:
    """Of the host's own clock, the middle of all its ticks; NaN where it says nothing."""
    file = run / "stats.jsonl"
    ticks = [line.get("Timing/sec_per_kimg") or {} for line in (objects_of(file)[0] if file.is_file() else [])]
    seconds = [tick["mean"] for tick in ticks if tick.get("num") and math.isfinite(tick["mean"])]
    return statistics.median(seconds) if seconds else math.nan


def gpus_of(run: Path, experiment: Experiment) -> int:
    """As the run's own options file says; 0 where there is none, or its images are of another size: a trial."""
    try:
        options = json.loads((run / "training_options.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    resolution = options.get("training_set_kwargs", {}).get("resolution", experiment.resolution)
    return int(options.get("num_gpus", 0)) if resolution == experiment.resolution else 0


def gpu_hours(experiment: Experiment, seconds: float, gpus: int) -> float:
    return experiment.kimg * seconds * gpus / 3600


def cost(out: Path) -> List[str]:
    """A line a training that has run a while in ``out``; for the rest what the host's README says of V100 GPUs."""
    lines = [f"{'experiment':<16} {'kimg':>7}  GPU hours a seed"]
    for name, experiment in EXPERIMENTS.items():
        said = []
        for folder in folders_of(out, name):
            costs = [(seconds_per_kimg(run), gpus_of(run, experiment)) for run in runs_of(folder)]
            for seconds, gpus in [each for each in costs if math.isfinite(each[0]) and each[1]][-1:]:
                variant = re.sub(r"-seed\d+$", "", folder.name)
                said.append(f"{variant} {gpu_hours(experiment, seconds, gpus):,.0f} (measured: {seconds:.1f} s/kimg)")
        if not said and experiment.resolution in PUBLISHED:
            gpus, low, high = PUBLISHED[experiment.resolution]
            hours = " to ".join(f"{gpu_hours(experiment, seconds, gpus):,.0f}" for seconds in (low, high))
            said.append(f"dense {hours} on V100s (the host's README; ADA without this experiment's other options)")
        lines.append(f"{name:<16} {experiment.kimg:>7,}  {'; '.join(said) or 'not published: measure it'}")
    return lines
