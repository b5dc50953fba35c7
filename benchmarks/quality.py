"""Is training with the squeeze connection better, at its parameter count? Dense, squeezed and narrowed from scratch.

    python -m benchmarks.quality --out quality                      # 3 variants x 3 seeds x 400 kimg: hours
    python -m benchmarks.quality --out quality --variants ablation  # other readings of the connection
    python -m benchmarks.quality --out quality --report             # table and curves of what is there

A host's own networks and loss on real images; within a seed all variants see the same images in the same order, and the
discriminator starts from the same weights. Every evaluation is saved with the training's whole state: the same command
goes on where it was stopped. Two commands with different --seeds or --variants can share a folder.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import click
import torch
from scipy import stats

from benchmarks.common import find, machine
from benchmarks.data import load, train_classifier
from benchmarks.training import Evaluation, Run, Settings, train
from benchmarks.variants import ABLATION, MAIN, count, variant
from squeeze_patch.checkpoints.io import atomic_write

Curve = List[Dict[str, float]]
FIGURES = {
    "frechet": "Fréchet distance (log)",
    "sliced_wasserstein": "sliced Wasserstein distance",
    "precision": "precision",
    "recall": "recall",
}


def slug(name: str) -> str:
    return name.replace(" ", "-")


def late(curve: Curve, figure: str) -> float:
    """The figure over the last quarter of the training (geometric mean): single evaluations are noisy."""
    end = curve[-1]["kimg"]
    values = [point[figure] for point in curve if point["kimg"] > 0.75 * end]
    return math.exp(statistics.fmean(math.log(max(value, 1e-9)) for value in values))


def paired_ratio(over: Mapping[int, float], under: Mapping[int, float]) -> Tuple[float, float, float]:
    """Geometric mean of the seeds' ratios with its 95 % interval (Student's t on their logarithms)."""
    logs = [math.log(over[seed] / under[seed]) for seed in sorted(over.keys() & under.keys())]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(middle), 0.0, math.inf
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def collect(out: Path, names: Sequence[str], kimg: float) -> Dict[str, Dict[int, Curve]]:
    """{variant: {seed: curve up to kimg}} of the trainings in ``out`` that have come that far."""
    found: Dict[str, Dict[int, Curve]] = {}
    for name in names:
        for file in sorted(out.glob(f"{slug(name)}-seed*.json")):
            curve = json.loads(file.read_text())
            if curve and curve[-1]["kimg"] >= kimg:
                seed = int(file.stem.rsplit("seed", 1)[1])
                found.setdefault(name, {})[seed] = [point for point in curve if point["kimg"] <= kimg + 0.1]
    return found


def table(found: Mapping[str, Mapping[int, Curve]], kimg: float, sizes: Mapping[str, int]) -> List[str]:
    """One line a variant: parameters, figures over the last quarter (lowest to highest seed), ratio to dense."""
    lines = [f"{'at ' + format(kimg, 'g') + ' kimg':<34} parameters  seeds  Frechet distance       / dense (95 %)"]
    dense = {seed: late(curve, "frechet") for seed, curve in found.get("dense", {}).items()}
    for name, curves in found.items():
        values = {seed: late(curve, "frechet") for seed, curve in curves.items()}
        spread = f"{statistics.fmean(values.values()):.2f} ({min(values.values()):.2f} to {max(values.values()):.2f})"
        line = f"{name:<34} {sizes.get(name, 0):>10,} {len(values):>6}  {spread:<22}"
        if name != "dense" and values.keys() & dense.keys():
            middle, low, high = paired_ratio(values, dense)
            line += f" {middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(line)
    return lines


def plot(found: Mapping[str, Mapping[int, Curve]], path: Path) -> None:
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
    figure.savefig(path, dpi=110)


def report(out: Path, names: Sequence[str], kimg: float) -> None:
    found = collect(out, names, kimg)
    if not found:
        raise click.ClickException(f"no training in {out} has reached {kimg:g} kimg")
    sizes_file = out / "parameters.json"
    lines = table(found, kimg, json.loads(sizes_file.read_text()) if sizes_file.exists() else {})
    click.echo("\n".join(lines))
    stem = "ablation" if set(names) - MAIN.keys() else "curves"
    plot(found, out / f"{stem}.png")
    with atomic_write(out / f"{stem}.json") as stream:
        stream.write(json.dumps({"machine": machine(), "table": lines, "curves": found}, indent=1).encode())
    click.echo(f"{out / stem}.png, {out / stem}.json")


def remember_size(out: Path, name: str, size: int) -> None:
    file = out / "parameters.json"
    sizes = json.loads(file.read_text()) if file.exists() else {}
    with atomic_write(file) as stream:
        stream.write(json.dumps({**sizes, name: size}, indent=1).encode())


def names_of(wish: str) -> List[str]:
    names = ["dense", "squeezed", *ABLATION] if wish == "ablation" else wish.split(",")
    for name in names:
        variant(name)
    return names


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the results.")
@click.option("--host", "host_name", default="draggan", show_default=True, help="Networks and loss to use.")
@click.option("--data", "data_name", type=click.Choice(["digits", "photos"]), default="digits", show_default=True)
@click.option("--resolution", type=click.Choice(["16", "32"]), default="16", show_default=True)
@click.option("--variants", default=",".join(MAIN), show_default=True, help="Comma-separated, or 'ablation'.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--kimg", default=400.0, show_default=True, help="Thousands of real images shown to D.")
@click.option("--every", default=20.0, show_default=True, help="kimg between evaluations.")
@click.option("--gamma", default=Settings.r1_gamma, show_default=True, help="R1 weight; 0 = the hosts' rule.")
@click.option("--pl-weight", default=Settings.pl_weight, show_default=True, help="Path length weight.")
@click.option("--style-mixing", default=Settings.style_mixing, show_default=True, help="Probability of style mixing.")
@click.option("--report", "only_report", is_flag=True, help="Train nothing.")
def main(
    out: Path,
    host_name: str,
    data_name: str,
    resolution: str,
    variants: str,
    seeds: str,
    kimg: float,
    every: float,
    gamma: float,
    pl_weight: float,
    style_mixing: float,
    only_report: bool,
) -> None:
    """Train what is missing, then print the table and draw the curves."""
    names = names_of(variants)
    out.mkdir(parents=True, exist_ok=True)
    if not only_report:
        torch.set_num_threads(1)  # networks this small gain nothing from a second one: run two commands instead
        torch.set_flush_denormal(True)
        host, data = find(host_name), load(data_name, int(resolution))
        classifier, known = train_classifier(data)
        click.echo(f"{machine()}; {len(data.images)} {data_name}; the classifier knows {known:.1%} of them")
        settings = Settings(
            resolution=int(resolution),
            channel_base=Settings.channel_base * int(resolution) // Settings.resolution,
            r1_gamma=gamma,
            pl_weight=pl_weight,
            style_mixing=style_mixing,
        )
        evaluate = Evaluation(data, classifier, settings.samples)
        for seed in map(int, seeds.split(",")):
            for name in names:
                with host.active():
                    run = Run(host, settings, variant(name), data, seed)
                    remember_size(out, name, count(run.G))
                    state = out / f"{slug(name)}-seed{seed}.pt"
                    train(run, evaluate, kimg, every, state, lambda point, at=(name, seed): show(*at, point))
    report(out, names, kimg)


def show(name: str, seed: int, point: Mapping[str, float]) -> None:
    figures = "  ".join(f"{key} {value:.3f}" for key, value in point.items() if key not in ("kimg", "seconds"))
    rate = 1000 * point["kimg"] / point["seconds"]
    click.echo(f"{time.strftime('%H:%M:%S')} {name} seed {seed}: {point['kimg']:g} kimg  {figures}  {rate:.0f} img/s")


if __name__ == "__main__":
    main()
