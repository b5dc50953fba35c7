"""Squeezing against pruning, each followed by the same distillation: how near do the images come to the dense ones?

    python -m benchmarks distillation --out FOLDER [--weights FILE.pt] [--by parameters] [--steps 0,100,300,1000]

Without --weights the demo's generator is used, else a small one from a state dict in the NVIDIA family's names. All
rows of a share have the same number of parameters (or, with --by, of multiply-adds, by torch's counter, resampling
filters included), to what whole channels allow. Every cell is a training of its own, of that length, by the steps of
`squeeze_patch.recover` on the same latents; pruned generators learn the features of the channels that they keep. The
rows "pruned ..., refitted" have the channels of a published score and squeeze_patch's refit of convolutions and toRGB.
PSNR in dB and the squared Frechet distance on a fixed random network (`squeeze_patch.compare`), 1,000 unseen latents,
noise off. Cells are kept in FOLDER, with a picture of them: the same command computes what is missing.
"""

from __future__ import annotations

import copy
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

import click
import torch

import squeeze_patch
from benchmarks.common import machine, random_layers
from benchmarks.fidelity import generator_from
from benchmarks.pruning import Pruned, by_activation_energy, by_content, by_weight_norm, pruned_to, refitted
from benchmarks.variants import count
from squeeze_patch.adapters import locate
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.recovery import processes
from squeeze_patch.recovery.pair import Pair, pair_of
from squeeze_patch.recovery.session import Budget, Files, Session
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.state_file import Origin
from squeeze_patch.recovery.trainer import Training, training_mode

SAMPLES, SEED = 1000, 1000
#: {row: (method, allocation)}
OURS = {
    "squeezed, one ratio": ("squeeze", "uniform"),
    "squeezed, allocated": ("squeeze", "spectral"),
    "narrowed, one ratio": ("narrow", "uniform"),
    "narrowed, allocated": ("narrow", "spectral"),
}
PRUNED = {"weight norm": by_weight_norm, "activation energy": by_activation_energy, "content": by_content}
#: {row: what the same widths start from instead}
OTHER_STARTS = {"squeezed, from the weights": "weights", "squeezed, random": "random"}
REFITTED = ", refitted"
ROWS = (
    *OURS,
    *(f"pruned by {score}{refit}" for score in PRUNED for refit in ("", REFITTED)),
    *OTHER_STARTS,
)
#: what rows are made equal in: {--by: (how it is counted, how a plan is asked for it)}
BY = ("parameters", "multiply-adds")


def plan_of(row: str, dense: Any, fewer: float, by: str, seed: int) -> squeeze_patch.Plan:
    method, allocate = OURS.get(row, ("squeeze", "uniform"))
    budget = {"reduction": fewer} if by == "parameters" else {"multiply_adds": 1 - fewer}
    # any number of channels: multiples of 8 are coarse in small generators, and rivals have none
    return squeeze_patch.plan(dense, method=method, allocate=allocate, seed=seed, multiple=1, **budget)


def student_of(row: str, dense: Any, fewer: float, by: str, seed: int) -> Tuple[Any, Pair]:
    """The start of one row, and what its distillation needs."""
    if not row.startswith("pruned"):
        plan = plan_of(row, dense, fewer, by, seed)
        init = OTHER_STARTS.get(row, "calibrated")
        with random_layers(seed):
            G = squeeze_patch.apply(copy.deepcopy(dense), plan=plan, init=init, keep_original=False, seed=seed)
        return G, pair_of(G, dense)
    sized = count if by == "parameters" else multiply_adds
    score = PRUNED[row.replace("pruned by ", "").replace(REFITTED, "")]
    pruned = pruned_to(dense, (1 - fewer) * sized(dense), score, sized)
    if row.endswith(REFITTED):
        G = refitted(dense, pruned, seed)
        return G, pair_of(G, dense)
    return pruned.G, pruned_pair(pruned, copy.deepcopy(dense))


def pruned_pair(pruned: Pruned, teacher: Any) -> Pair:
    """Features of the teacher are those of the kept channels."""
    found = locate(teacher)

    class KeptChannels(type(found.surgery)):  # type: ignore[misc]
        def watch(self, network: Any, name: str, callback: Any) -> Any:
            return super().watch(network, name, lambda x: callback(x[:, pruned.kept[name]]))

    watched = replace(found, adapter=replace(found.adapter, surgery=KeptChannels()))
    return Pair(locate(pruned.G), watched, [spec.name for spec in found.specs if not spec.is_last])


def distil(pair: Pair, steps: int, seed: int, feature_weight: float = Settings.feature_weight) -> None:
    """As `squeeze_patch.recover` trains, for pairs of any kind; the student ends with its best weights."""
    with training_mode(pair):
        training = Training(pair, Settings(steps=steps, seed=seed, feature_weight=feature_weight), processes.current())
        session = Session(training, Budget(), Files(None, None, Origin("", "")), None)
        session.train(None)
        training.put(session.state.best)


def measure(
    row: str, dense: Any, fewer: float, by: str, steps: int, seed: int, feature_weight: float
) -> Dict[str, float]:
    G, pair = student_of(row, dense, fewer, by, seed)
    if steps:
        distil(pair, steps, seed, feature_weight)
    found = squeeze_patch.compare(dense, G, samples=SAMPLES, seed=SEED, noise_mode="none")
    return {"psnr": found.psnr, "frechet": found.frechet.value}


class Cost(NamedTuple):
    """Of one row: parameters, and multiply-adds as a share of the dense generator's."""

    parameters: int
    multiply_adds: float


def cost(row: str, dense: Any, fewer: float, by: str) -> Cost:
    G, _ = student_of(row, dense, fewer, by, 0)
    return Cost(count(G), multiply_adds(G) / multiply_adds(dense))


def multiply_adds(G: Any) -> float:
    """Of the synthesis network's convolutions for one image; excite is a matrix product on the CPU."""
    from torch.utils.flop_counter import FlopCounterMode  # torch 2.1 and up; the oldest supported has none

    found = locate(G)
    running = found.running
    ws = found.sample_w(1, SEED)[:, None].expand(-1, running.num_ws(found.network), -1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        running.synthesis(found.network, ws, "none")
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.get(operation, 0) for operation in (torch.ops.aten.convolution, torch.ops.aten.baddbmm)) / 2


def table(
    cells: Dict[str, Dict[str, float]], costs: Dict[str, Cost], reduction: float, steps: List[int], seeds: int
) -> List[str]:
    """A line a row: costs, then the mean over the seeds of PSNR (lowest to highest) and Frechet distance."""
    lines = [
        f"{f'{reduction:.1%} fewer':<34} {'parameters, x-adds':>18} " + " ".join(f"{f'{n} steps':>27}" for n in steps)
    ]
    for row, size in costs.items():
        entries = []
        for n in steps:
            found = found_in(cells, row, reduction, n, seeds)
            if not found:
                entries.append(f"{'':>27}")
                continue
            psnr = [cell["psnr"] for cell in found]
            spread = f" ({min(psnr):.1f} to {max(psnr):.1f})" if len(found) > 1 else ""
            distance = statistics.fmean(cell["frechet"] for cell in found)
            entries.append(f"{f'{statistics.fmean(psnr):.1f}{spread}, {distance:.2g}':>27}")
        lines.append(f"{row:<34} {size.parameters:>9,} {size.multiply_adds:8.2f} " + " ".join(entries))
    return lines


def found_in(
    cells: Dict[str, Dict[str, float]], row: str, reduction: float, steps: int, seeds: int
) -> List[Dict[str, float]]:
    keys = (key(row, reduction, steps, seed) for seed in range(seeds))
    return [cells[name] for name in keys if name in cells]


def draw(
    cells: Dict[str, Dict[str, float]],
    costs: Dict[float, Dict[str, Cost]],
    steps: List[int],
    seeds: int,
    title: str,
    by: str,
    file: Path,
) -> None:
    """PSNR over steps, a panel a reduction, a line a row with the range of its seeds, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(costs), 4.2), layout="constrained")
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (reduction, rows) in zip(panels, costs.items()):
        for row, size in rows.items():
            known = {n: [cell["psnr"] for cell in found_in(cells, row, reduction, n, seeds)] for n in steps}
            known = {n: psnr for n, psnr in known.items() if psnr}
            style = "s--" if row.startswith("pruned") else "o-"
            label = f"{row}, x{size.multiply_adds:.2f}"
            axes.plot(list(known), [statistics.fmean(psnr) for psnr in known.values()], style, label=label)
            axes.fill_between(
                list(known), [min(psnr) for psnr in known.values()], [max(psnr) for psnr in known.values()], alpha=0.15
            )
        axes.set_xscale("symlog", linthresh=100)
        axes.set(xlabel="steps", title=f"{reduction:.1%} fewer {by} (x: multiply-adds)")
        axes.set_xticks(steps, [f"{n:,}" for n in steps])
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower right", framealpha=0.6)
    panels[0].set_ylabel("PSNR in dB")
    figure.suptitle(title)
    with atomic_write(file) as stream:
        FigureCanvasAgg(figure).print_png(stream)


def key(row: str, reduction: float, steps: int, seed: int) -> str:
    return f"{row} | {reduction:g} | {steps} | {seed}"


def store(file: Path, more: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    """Add to the results in a file, to which another process may have written since."""
    known = json.loads(file.read_text()) if file.exists() else {}
    merged = {name: {**known.get(name, {}), **entries} for name, entries in more.items()}
    data = {"cells": {}, "costs": {}, **known, "machine": machine(), **merged}
    with atomic_write(file) as stream:
        stream.write(json.dumps(data, indent=1).encode())
    return data


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the results.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="A dense generator's state dict.")
@click.option("--reductions", default="0.121,0.25", show_default=True)
@click.option("--steps", default="0,100,300,1000", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Of random layers, statistics and latents.")
@click.option("--rows", default=",".join(str(n) for n in range(len(ROWS))), show_default=True, help="Numbers of rows.")
@click.option("--by", type=click.Choice(BY), default=BY[0], show_default=True, help="What rows have as much of.")
@click.option(
    "--feature-weight", default=Settings.feature_weight, show_default=True, help="As of squeeze-patch recover."
)
def main(
    out: Path,
    weights: Optional[Path],
    reductions: str,
    steps: str,
    seeds: int,
    rows: str,
    by: str,
    feature_weight: float,
) -> None:
    """Compute what is missing, cheap cells first, and print the tables."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    other = "" if feature_weight == Settings.feature_weight else f"-features-{feature_weight:g}"
    other += "" if by == BY[0] else f"-{by}"
    file = out / f"distillation-{weights.stem if weights else 'demo'}{other}.json"
    cells: Dict[str, Dict[str, float]] = json.loads(file.read_text())["cells"] if file.exists() else {}
    dense = generator_from(weights)
    lengths = sorted(int(n) for n in steps.split(","))
    chosen = [ROWS[int(n)] for n in rows.split(",")]
    wanted = [float(r) for r in reductions.split(",")]
    unreachable: Set[Tuple[str, float]] = set()
    for n, seed, reduction, row in (
        (n, s, r, row) for n in lengths for s in range(seeds) for r in wanted for row in chosen
    ):
        name = key(row, reduction, n, seed)
        if name not in cells and (row, reduction) not in unreachable:
            try:
                found = measure(row, dense, reduction, by, n, seed, feature_weight)
            except squeeze_patch.PlanError as error:  # one ratio for all blocks does not go as far
                unreachable.add((row, reduction))
                click.echo(f"{name}: {error}")
                continue
            cells = store(file, {"cells": {**cells, name: found}})["cells"]
            click.echo(f"{name}: {found['psnr']:.1f} dB, Frechet {found['frechet']:.3g}")
    reached = {r: [row for row in chosen if found_in(cells, row, r, lengths[0], seeds)] for r in wanted}
    costs = {reduction: {row: cost(row, dense, reduction, by) for row in rows} for reduction, rows in reached.items()}
    store(file, {"costs": {f"{row} | {r:g}": list(found) for r, rows in costs.items() for row, found in rows.items()}})
    for reduction in wanted:
        click.echo("\n".join(table(cells, costs[reduction], reduction, lengths, seeds)))
    draw(cells, costs, lengths, seeds, weights.stem if weights else "the demo's digits", by, file.with_suffix(".png"))
