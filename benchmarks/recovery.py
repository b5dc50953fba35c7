"""How near self-distillation brings a squeezed generator to its dense one: PSNR in dB on unseen latents.

    python -m benchmarks recovery [--weights FILE.pt] [--ratio 1.5] [--steps 1000] [--seed 0]

Without --weights the demo's generator is used, else a small one from a state dict in the NVIDIA family's names.
256 latents that neither the training nor its evaluations saw, noise off, images in [-1, 1].
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Optional

import click

import squeeze_patch
from benchmarks.common import machine
from benchmarks.fidelity import generator_from, images_of
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.recovery.progress_line import Line


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="A dense generator's state dict.")
@click.option("--ratio", default=1.5, show_default=True)
@click.option("--steps", default=1000, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the latents of the training.")
def main(weights: Optional[Path], ratio: float, steps: int, batch: int, seed: int) -> None:
    """Squeeze, measure, recover, measure."""
    dense = generator_from(weights)
    student = squeeze_patch.apply(copy.deepcopy(dense), ratio=ratio, keep_original=False)
    images = images_of(dense)
    before = psnr(images, images_of(student))
    result = squeeze_patch.recover(student, dense, steps=steps, batch=batch, seed=seed, progress=Line())
    after = psnr(images, images_of(student))
    name = weights.name if weights else "demo generator"
    click.echo(f"{name}, ratio {ratio:g}, {steps} steps of {batch}: {before:.1f} -> {after:.1f} dB ({machine()})")
    click.echo(str(result))
