"""Curves of trainings from scratch: what they say late in the training, their table, and their picture."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import click
from scipy import stats

from squeeze_patch.checkpoints.atomic import atomic_write

#: a dict of kimg, seconds and figures for every evaluation
Curve = List[Dict[str, float]]
FIGURES = {
    "frechet": "Fréchet distance (log)",
    "sliced_wasserstein": "sliced Wasserstein distance",
    "precision": "precision",
    "recall": "recall",
}


def slug(name: str) -> str:
    return name.replace(" ", "-")


def late_points(curve: Curve) -> Curve:
    """Of the last quarter of the training."""
    return [point for point in curve if point["kimg"] > 0.75 * curve[-1]["kimg"]]


def late(curve: Curve, figure: str) -> float:
    """The figure over the last quarter of the training (geometric mean): single evaluations are noisy. NaN where one
    is 0 or less, as the KID of two that are alike can be."""
    values = [point[figure] for point in late_points(curve)]
    return statistics.geometric_mean(values) if min(values) > 0 else math.nan


@dataclass(frozen=True)
class Ratio:
    """Of two variants' figures, seed by seed.

    Attributes:
        middle: geometric mean.
        low, high: its 95 % interval (Student's t on the logarithms).
        shown: the smallest effect that so many seeds, as different as these, show in four of five such studies: the
            interval lies below 1 if the true ratio is this or less.
    """

    middle: float
    low: float
    high: float
    shown: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f}); {self.shown:.2f}"


def paired_ratio(over: Mapping[int, float], under: Mapping[int, float]) -> Ratio:
    logs = [math.log(over[seed] / under[seed]) for seed in sorted(over.keys() & under.keys())]
    middle, free = statistics.fmean(logs), len(logs) - 1
    if not free:
        return Ratio(math.exp(middle), 0.0, math.inf, 0.0)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    half, power = (float(stats.t.ppf(share, free)) * error for share in (0.975, 0.8))
    return Ratio(*(math.exp(value) for value in (middle, middle - half, middle + half, -half - power)))


def collect(out: Path, names: Sequence[str], kimg: float) -> Dict[str, Dict[int, Curve]]:
    """{variant: {seed: curve up to kimg}} of the trainings in ``out`` that have come that far.

    Of what they were evaluated at, the kimg that all have: some may have been evaluated more often than others.

    Raises:
        ClickException: they have none in common.
    """
    found: Dict[str, Dict[int, Curve]] = {}
    for name in names:
        for file, curve in curves_of(out, name):
            if curve[-1]["kimg"] >= kimg:
                add_kid(curve, file.with_suffix(".kid.json"))
                found.setdefault(name, {})[seed_of(file)] = [point for point in curve if point["kimg"] <= kimg + 0.1]
    return at_common_kimg(found)


def at_common_kimg(found: Mapping[str, Mapping[int, Curve]]) -> Dict[str, Dict[int, Curve]]:
    curves = [curve for seeds in found.values() for curve in seeds.values()]
    common = set.intersection(*({point["kimg"] for point in curve} for curve in curves)) if curves else set()
    if curves and not common:
        raise click.ClickException("the trainings were evaluated at different kimg: give them folders of their own")
    return {
        name: {seed: [point for point in curve if point["kimg"] in common] for seed, curve in seeds.items()}
        for name, seeds in found.items()
    }


def curves_of(out: Path, name: str) -> Iterator[Tuple[Path, Curve]]:
    """(file, curve) of a variant's trainings in ``out`` that have been evaluated."""
    for file in sorted(out.glob(f"{slug(name)}-seed*.json")):
        if re.fullmatch(r".*-seed-?\d+\.json", file.name):
            curve = read_curve(file)
            if curve:
                yield file, curve


def seed_of(file: Path) -> int:
    """Of a training's file."""
    return int(file.stem.rsplit("seed", 1)[1])


def read_curve(file: Path) -> Curve:
    """Empty where there is none.

    Raises:
        ClickException: the file is damaged.
    """
    return list(read_json(file)) if file.is_file() else []


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{file} is damaged ({error}); move it away, its training writes it anew") from None


def write_curve(file: Path, curve: Curve) -> None:
    with atomic_write(file) as stream:
        stream.write(json.dumps(curve, indent=1).encode())


def reached(out: Path, names: Sequence[str]) -> float:
    """kimg that all trainings in ``out`` have come to that have been evaluated; 0 where none has."""
    return min((curve[-1]["kimg"] for name in names for _, curve in curves_of(out, name)), default=0.0)


def add_kid(curve: Curve, file: Path) -> None:
    """To the points of the curve that it was measured at."""
    found = read_json(file) if file.is_file() else {}
    for point in curve:
        key = f"{point['kimg']:g}"
        if key in found:
            point["kid"] = found[key]


def table(
    found: Mapping[str, Mapping[int, Curve]], kimg: float, sizes: Mapping[str, int], against: str = "dense"
) -> List[str]:
    """One line a variant: parameters, figures over the last quarter (lowest to highest seed), ratio to ``against``."""
    title = f"at {kimg:g} kimg"
    lines = [
        f"{title:<34} parameters  seeds  Frechet distance       1000 KID   / {against} (95 %); smallest effect shown"
    ]
    reference = {figure: late_of(found.get(against, {}), figure) for figure in ("frechet", "kid")}
    for name, curves in found.items():
        values, kid = late_of(curves, "frechet"), late_of(curves, "kid")
        spread = f"{statistics.fmean(values.values()):.2f} ({min(values.values()):.2f} to {max(values.values()):.2f})"
        mean = statistics.fmean(kid.values()) if kid.keys() == values.keys() else math.nan
        mean_kid = "" if math.isnan(mean) else f"{1000 * mean:.2f}"
        line = f"{name:<34} {sizes.get(name, 0):>10,} {len(values):>6}  {spread:<22} {mean_kid:>8}"
        if name != against and values.keys() & reference["frechet"].keys():
            line += f"   {said_ratio(values, reference['frechet'])}"
            if kid.keys() & reference["kid"].keys():
                line += f"   KID {said_ratio(kid, reference['kid'])}"
        lines.append(line.rstrip())
    return lines


def said_ratio(over: Mapping[int, float], under: Mapping[int, float]) -> str:
    ratio = paired_ratio(over, under)
    return "no ratio: one is 0 or less" if math.isnan(ratio.middle) else str(ratio)


def left_out(out: Path, names: Sequence[str], kimg: float, found: Mapping[str, Mapping[int, Curve]]) -> Iterator[str]:
    """What of the trainings in ``out`` the table is not about."""
    for name in names:
        short = {seed_of(file): curve[-1]["kimg"] for file, curve in curves_of(out, name) if curve[-1]["kimg"] < kimg}
        for seed, end in short.items():
            yield f"{name} seed {seed} left out: evaluated up to {end:g} kimg only"
        if not short and name not in found:
            yield f"{name} left out: no training of it here has been evaluated"
    last = max(point["kimg"] for curves in found.values() for curve in curves.values() for point in curve)
    if last < kimg:
        yield f"compared at {last:g} kimg: the last evaluation that all have"


def unpaired(found: Mapping[str, Mapping[int, Curve]], sizes: Mapping[str, int], against: str) -> Iterator[str]:
    """What the table's ratios are not of."""
    if against not in found:
        yield f"no ratio: {against} is not in the table (--against, --variants)"
    for name, curves in found.items():
        if name not in sizes:
            yield f"{name}: its number of parameters is not known here"
        for figure, title in (("frechet", ""), ("kid", " KID")):
            seeds = late_of(curves, figure).keys()
            others = late_of(found.get(against, {}), figure).keys()
            if name != against and others and seeds != others and (seeds or figure == "frechet"):
                both = ", ".join(map(str, sorted(seeds & others))) or "none"
                yield f"{name} / {against}{title}: over the seeds that both have: {both}"


def late_of(curves: Mapping[int, Curve], figure: str) -> Dict[int, float]:
    """{seed: `late`}, of those whose late evaluations all have the figure."""
    return {
        seed: late(curve, figure)
        for seed, curve in curves.items()
        if all(figure in point for point in late_points(curve))
    }


def plot(found: Mapping[str, Mapping[int, Curve]], stream: IO[bytes]) -> None:
    """A panel a figure: each variant's mean over the seeds, and their range shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, label) in zip(figure.subplots(2, 2).flat, FIGURES.items()):
        for name, curves in found.items():
            points = list(zip(*([point[key] for point in curve] for curve in curves.values())))
            kimg = [point["kimg"] for point in min(curves.values(), key=len)]
            axes.plot(kimg, [statistics.fmean(values) for values in points], label=f"{name} ({len(curves)} seeds)")
            axes.fill_between(kimg, [min(v) for v in points], [max(v) for v in points], alpha=0.15)
        axes.set(xlabel="kimg", ylabel=label, yscale="log" if key == "frechet" else "linear")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(stream, format="png", dpi=110)


def report(out: Path, names: Sequence[str], kimg: float, stem: str, against: str, machine: str) -> None:
    """Print the table of the trainings in ``out``; write it with the curves to stem.json, their picture to stem.png."""
    found = collect(out, names, kimg)
    if not found:
        ends = [curve[-1]["kimg"] for name in names for _, curve in curves_of(out, name)]
        cure = f": --kimg {max(ends):g} reports the longest" if ends else ""
        raise click.ClickException(f"no training in {out} has reached {kimg:g} kimg{cure}")
    sizes_file = out / "parameters.json"
    sizes = read_json(sizes_file) if sizes_file.exists() else {}
    lines = table(found, kimg, sizes, against)
    notes = [*left_out(out, names, kimg, found), *unpaired(found, sizes, against)]
    click.echo("\n".join([*lines, *notes]))
    with atomic_write(out / f"{stem}.json") as stream:
        told = {"machine": machine, "table": lines, "notes": notes, "curves": found}
        stream.write(json.dumps(told, indent=1).encode())
    with atomic_write(out / f"{stem}.png") as stream:
        plot(found, stream)
    click.echo(f"{out / stem}.png, {out / stem}.json")
