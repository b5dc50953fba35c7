"""Fronts of what squeezing, narrowing and pruning keep of the images, over parameters, multiply-adds and time.

    python -m benchmarks pareto --out FOLDER [--weights FILE.pt] [--steps 0,300]

Reads what `python -m benchmarks distillation --out FOLDER` has found and draws it: a column for each cost, as a share
of the dense generator's, a row for each length of the distillation; a line a way, its points the reductions. Time is
the processor time of one call of the synthesis network on one thread, 8 images, noise off, in turns with the dense one;
medians of the ratios. It is measured first, and kept in FOLDER.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import click
import torch

from benchmarks.common import random_layers
from benchmarks.distillation import BY, REFITTED, ROWS, cost, found_in, student_of
from benchmarks.fidelity import generator_from
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.atomic import atomic_write

BATCH, PAIRS = 8, 21
AXES = ("parameters", "multiply-adds", "processor time")
COLOURS = {"squeezed": "tab:blue", "narrowed": "tab:orange", "content": "tab:green", "activation": "tab:red"}


class Shares(NamedTuple):
    """Of a way's costs in the dense generator's; ``low`` and ``high`` are quartiles of the time."""

    parameters: float
    multiply_adds: float
    time: float
    low: float
    high: float


def seconds(G: Any) -> float:
    """Processor time of one call."""
    found = locate(G)
    running = found.running
    with random_layers(0), torch.no_grad():
        ws = found.sample_w(BATCH, 0)[:, None].expand(-1, running.num_ws(found.network), -1)
        began = time.process_time()
        running.synthesis(found.network, ws, "none")
        return time.process_time() - began


def shares(row: str, dense: Any, fewer: float) -> Shares:
    """Costs of one way at one reduction."""
    G, _ = student_of(row, dense, fewer, BY[0], 0)
    size = cost(row, dense, fewer, BY[0])
    ratios = []
    for _ in range(PAIRS + 1):
        below = seconds(dense)
        ratios.append(seconds(G) / below)
    low, middle, high = statistics.quantiles(ratios[1:], n=4)  # the first call makes what is kept
    whole = sum(parameter.numel() for parameter in dense.parameters())
    return Shares(size.parameters / whole, size.multiply_adds, middle, low, high)


def points(data: Dict[str, Any], row: str, steps: int, seeds: int = 3) -> List[Tuple[Shares, float]]:
    """(costs, mean PSNR in dB) of a way, a point a reduction, ascending in costs."""
    found = []
    for name, measured in data["shares"].items():
        way, fewer = name.rsplit(" | ", 1)
        cells = found_in(data["cells"], way, float(fewer), steps, seeds) if way == row else []
        if cells:
            found.append((Shares(*measured), statistics.fmean(cell["psnr"] for cell in cells)))
    return sorted(found)


def style(row: str) -> Dict[str, Any]:
    """Ours by lines, rivals dashed; one ratio, and rivals without refit, are thin."""
    colour = next((colour for name, colour in COLOURS.items() if name in row), "tab:gray")
    strong = row.endswith((", allocated", REFITTED))
    dashes = "--" if row.startswith("pruned") else "-"
    return {"color": colour, "linestyle": dashes, "marker": "o" if strong else ".", "linewidth": 2 if strong else 0.8}


def draw(data: Dict[str, Any], steps: Sequence[int], title: str, file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.4 * len(steps)), layout="constrained")
    panels = figure.subplots(len(steps), len(AXES), sharex="col", sharey="row", squeeze=False)
    for line, length in zip(panels, steps):
        for column, axes in enumerate(line):
            for row in ROWS:
                found = points(data, row, length)
                if found:
                    axes.plot(
                        [shares[column] for shares, _ in found], [psnr for _, psnr in found], **style(row), label=row
                    )
            axes.grid(alpha=0.3)
        line[0].set_ylabel(f"PSNR in dB, {f'{length:,} steps' if length else 'at the start'}")
    for axes, name in zip(panels[-1], AXES):
        axes.set_xlabel(f"{name}, share of the dense generator's")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(title)
    with atomic_write(file) as stream:
        FigureCanvasAgg(figure).print_png(stream)


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="As of distillation.")
@click.option("--steps", default="0,300", show_default=True, help="Lengths that are drawn.")
def main(out: Path, weights: Optional[Path], steps: str) -> None:
    """Measure times, print the points and draw them."""
    torch.set_num_threads(1)
    file = out / f"distillation-{weights.stem if weights else 'demo'}.json"
    if not file.is_file():
        raise click.UsageError(f"{file} is not there yet: python -m benchmarks distillation --out {out} makes it")
    data, dense = json.loads(file.read_text()), generator_from(weights)
    ways = {tuple(name.split(" | ")[:2]) for name in data["cells"]}
    known = data.setdefault("shares", {})
    for row, fewer in sorted(ways, key=lambda way: (ROWS.index(way[0]), float(way[1]))):
        name = f"{row} | {fewer}"
        if name not in known:
            known[name] = list(shares(row, dense, float(fewer)))
            with atomic_write(file) as stream:
                stream.write(json.dumps(data, indent=1).encode())
        found = Shares(*known[name])
        click.echo(
            f"{row:<38} {float(fewer):>6.1%} fewer: parameters {found.parameters:.3f}, multiply-adds "
            f"{found.multiply_adds:.2f}, time {found.time:.2f} ({found.low:.2f} to {found.high:.2f})"
        )
    picture = out / f"pareto-{file.stem.split('-', 1)[1]}.png"
    draw(data, [int(n) for n in steps.split(",")], weights.stem if weights else "the demo's digits", picture)
    click.echo(str(picture))
