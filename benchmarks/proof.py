"""What the proof costs that apply makes before it squeezes, beside the starts.

    python -m benchmarks proof --sizes paper256,config-f

CPU time of one generator of a host, each part once, in one process: the proof (`surgery.proof.prove`), the squeezed
generator's run behind it, the calibrated start, the start from weights, and building random blocks.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Tuple

import click
import torch

from benchmarks.common import SEVERAL_SIZES, SIZES, find, generator, machine, random_layers
from squeeze_patch.adapters import locate
from squeeze_patch.initialization.registry import trained_starts
from squeeze_patch.planning.planner import plan_for
from squeeze_patch.planning.request import Request
from squeeze_patch.planning.shapes import shapes_of
from squeeze_patch.surgery.apply import squeeze
from squeeze_patch.surgery.proof import Trial, build_twins, prove
from squeeze_patch.testing import trained


def seconds(action: Callable[[], Any]) -> float:
    """CPU time, of all threads."""
    began = time.process_time()
    action()
    return time.process_time() - began


def times(G: Any) -> Dict[str, float]:
    """{part: seconds} of a dense generator; squeezed afterwards."""
    found = locate(G)
    plan = plan_for(found, Request())
    shapes = shapes_of(found.specs, plan.blocks)
    trials = []
    took = {"proof": seconds(lambda: trials.append(prove(found, build_twins(found, shapes))))}
    for init in ("calibrated", "weights"):
        took[init] = seconds(lambda init=init: trained_starts(found, shapes, init))  # type: ignore[misc]
    with random_layers(0):
        took["random"] = seconds(lambda: squeeze(found, plan, "random"))
    (trial,) = trials
    assert isinstance(trial, Trial)
    took["proof"] += seconds(trial.check_squeezed)
    return took


@click.command(help="CPU time of the proof as a share of the starts.")
@click.option("--host", "host_name", default="draggan", show_default=True)
@click.option(
    "--sizes", type=SEVERAL_SIZES, default="paper256,config-f", show_default=True, help=f"Of {', '.join(SIZES)}."
)
def main(host_name: str, sizes: Tuple[str, ...]) -> None:
    host = find(host_name)
    click.echo(f"{machine()}, {torch.get_num_threads()} threads")
    click.echo(
        f"{'size':<10} {'proof':>8} {'calibrated':>11} {'weights':>8} {'random':>8}   proof / calibrated, / random"
    )
    for size in sizes:
        with host.active():
            took = times(trained(generator(host, size)))
        cells = f"{took['proof']:>7.1f}s {took['calibrated']:>10.1f}s {took['weights']:>7.1f}s {took['random']:>7.1f}s"
        shares = f"{took['proof'] / took['calibrated']:.2f}, {took['proof'] / took['random']:.1f}"
        click.echo(f"{size:<10} {cells}   {shares}")
