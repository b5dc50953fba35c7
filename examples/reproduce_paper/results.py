"""What the hosts wrote: metric-*.jsonl as a table with intervals, stats.jsonl as a cost in GPU hours."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

from benchmarks.curves import paired_ratio
from examples.reproduce_paper.plans import EXPERIMENTS, VARIANTS, Experiment

#: {metric: value} of one snapshot
Figures = Dict[str, float]
#: figures of which more is better
RISING = ("precision", "recall", "is50k_mean")
#: by this the snapshot of a run is chosen: the lowest, as the hosts' papers do
CHOSEN_BY = "fid50k_full"
#: seconds a kimg on so many V100 GPUs, the host's README, `--cfg=auto` with FID behind every snapshot
PUBLISHED = {256: (8, 4.4, 5.5), 512: (8, 9.5, 9.7)}


def lines_of(file: Path) -> Iterator[Dict[str, Any]]:
    """Its JSON objects. A line that a killed run left half is passed over."""
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def snapshots(folder: Path) -> List[Figures]:
    """Of a variant and seed: the figures of every snapshot that has a FID, of its last run."""
    found: Dict[str, Figures] = {}
    files = sorted(folder.glob("*/metric-*.jsonl"))
    for file in files:
        if file.parent == files[-1].parent:
            for line in lines_of(file):
                found.setdefault(str(line["snapshot_pkl"]), {}).update(line["results"])
    return [figures for figures in found.values() if CHOSEN_BY in figures]


def collect(out: Path, name: str) -> Dict[str, Dict[int, Figures]]:
    """{variant: {seed: figures of the snapshot with the lowest FID}} of an experiment."""
    found: Dict[str, Dict[int, Figures]] = {variant: {} for variant in VARIANTS}
    for folder in sorted((out / name).glob("*-seed*")):
        variant, _, seed = folder.name.rpartition("-seed")
        measured = snapshots(folder)
        if variant in found and seed.isdigit() and measured:
            found[variant][int(seed)] = min(measured, key=lambda figures: figures[CHOSEN_BY])
    return found


def table(out: Path, against: str = "dense") -> List[str]:
    """A line an experiment, variant and metric; the ratio is over the seeds that it and ``against`` have."""
    columns = f"{'experiment':<16} {'variant':<9} {'metric':<24} seeds  {against:>9} {'variant':>9}"
    lines = [f"{columns}   / {against} (95 %)"]
    for name in EXPERIMENTS:
        found = collect(out, name)
        for variant in VARIANTS:
            both = (found[against], found[variant])
            seeds = sorted(both[0].keys() & both[1].keys()) if variant != against else []
            metrics = (set(each[seed]) for each in both for seed in seeds)
            for metric in sorted(set.intersection(*metrics)) if seeds else ():
                values = ({seed: each[seed][metric] for seed in seeds} for each in both)
                lines.append(f"{name:<16} {variant:<9} {_row(metric, *values)}")
    return lines


def _row(metric: str, rival: Mapping[int, float], variant: Mapping[int, float]) -> str:
    better = "more" if any(word in metric for word in RISING) else "less"
    means = " ".join(f"{statistics.fmean(each.values()):>9.4g}" for each in (rival, variant))
    row = f"{metric + ' (' + better + ')':<24} {len(rival):>5}  {means}"
    if min([*rival.values(), *variant.values()]) <= 0:
        return f"{row}   no ratio: a value is 0 or less"
    ratio = paired_ratio(variant, rival)
    interval = f"({ratio.low:.3f} to {ratio.high:.3f})" if math.isfinite(ratio.high) else "(one seed: no interval)"
    return f"{row}   {ratio.middle:.3f} {interval}"


def seconds_per_kimg(folder: Path) -> float:
    """Of the host's own clock, the middle of all its ticks; NaN where it says nothing."""
    ticks = [
        line["Timing/sec_per_kimg"]["mean"]
        for file in sorted(folder.glob("*/stats.jsonl"))
        for line in lines_of(file)
        if line.get("Timing/sec_per_kimg", {}).get("num")
    ]
    return statistics.median(ticks) if ticks else math.nan


def gpus_of(folder: Path) -> int:
    """As the run's own options file says."""
    for file in sorted(folder.glob("*/training_options.json")):
        return int(json.loads(file.read_text(encoding="utf-8"))["num_gpus"])
    return 0


def gpu_hours(experiment: Experiment, seconds: float, gpus: int) -> float:
    return experiment.kimg * seconds * gpus / 3600


def cost(out: Path) -> List[str]:
    """A line a training that has run a while in ``out``; for the rest what the host's README says of V100 GPUs."""
    lines = [f"{'experiment':<16} {'kimg':>7}  GPU hours a seed"]
    for name, experiment in EXPERIMENTS.items():
        said = []
        for folder in sorted((out / name).glob("*-seed*")):
            seconds, gpus = seconds_per_kimg(folder), gpus_of(folder)
            if math.isfinite(seconds) and gpus:
                variant = re.sub(r"-seed\d+$", "", folder.name)
                said.append(f"{variant} {gpu_hours(experiment, seconds, gpus):,.0f} (measured: {seconds:.1f} s/kimg)")
        if not said and experiment.resolution in PUBLISHED:
            gpus, low, high = PUBLISHED[experiment.resolution]
            hours = " to ".join(f"{gpu_hours(experiment, seconds, gpus):,.0f}" for seconds in (low, high))
            said.append(f"dense {hours} on V100s (the host's README; ADA without this experiment's other options)")
        lines.append(f"{name:<16} {experiment.kimg:>7,}  {'; '.join(said) or 'not published: measure it'}")
    return lines
