"""Is an allocation of channels, the default, ever behind one ratio for all blocks? Before any training, by generator.

    python -m benchmarks allocated [--out FILE.json] [WEIGHTS.pt ...]

Without weights the demo's generator is used, else those of state dicts in the NVIDIA family's names. PSNR in dB to the
dense images on 256 latents, noise off, and the share of parameters that is saved, of calibrated starts by both methods.
Any number of channels, not multiples of 8, which miss a reduction by percents in small generators.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click
import torch

import squeeze_patch
from benchmarks.common import machine
from benchmarks.fidelity import generator_from, images_of
from benchmarks.variants import count
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.evaluation.pixels import psnr

METHODS, REDUCTIONS = ("squeeze", "narrow"), (0.121, 0.25, 0.5)
#: (PSNR in dB, share of the parameters that is saved); None: one ratio does not go as far
Start = Optional[Tuple[float, float]]


def starts_of(dense: Any, method: str, reduction: float) -> Dict[str, Start]:
    """{allocation: start}"""
    images, found = images_of(dense), {}
    for allocate in ("uniform", "spectral"):
        try:
            plan = squeeze_patch.plan(dense, method=method, allocate=allocate, reduction=reduction, multiple=1)
        except squeeze_patch.PlanError:
            found[allocate] = None
            continue
        G = squeeze_patch.apply(copy.deepcopy(dense), plan=plan, keep_original=False, verify=False)
        found[allocate] = psnr(images, images_of(G)), 1 - count(G) / count(dense)
    return found


def line(name: str, reduction: float, method: str, found: Dict[str, Start]) -> str:
    cells = [f"{start[0]:5.1f} dB at {start[1]:5.1%}" if start else f"{'':>18}" for start in found.values()]
    uniform, allocated = found.values()
    ahead = f"{allocated[0] - uniform[0]:+.1f}" if uniform and allocated else ""
    return f"{name:<28} {reduction:>6.1%} {method:<8} {cells[0]}   {cells[1]}   {ahead}".rstrip()


@click.command(help="Print both starts of every generator, method and reduction.")
@click.argument("weights", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too, as JSON.")
def main(weights: Tuple[Path, ...], out: Optional[Path]) -> None:
    torch.set_num_threads(1)
    found: Dict[str, Any] = {}
    click.echo(f"{machine()}; generator, fewer, method, one ratio, allocated, dB ahead")
    for file in weights or (None,):
        dense, name = generator_from(file), file.stem if file else "demo"
        for reduction in REDUCTIONS:
            for method in METHODS:
                starts = starts_of(dense, method, reduction)
                found[f"{name} | {reduction:g} | {method}"] = starts
                click.echo(line(name, reduction, method, starts))
    if out is not None:
        with atomic_write(out) as stream:
            stream.write(json.dumps({"machine": machine(), "starts": found}, indent=1).encode())
