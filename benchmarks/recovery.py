"""How near self-distillation brings a squeezed generator to its dense one: PSNR in dB on unseen latents.

    python -m benchmarks recovery [--weights FILE.pt] [--ratio 1.5] [--steps 1000] [--seed 0]
    python -m benchmarks recovery --cost paper256 [--at-a-time 1,4] [--device cpu]

Without --weights the demo's generator is used, else a small one from a state dict in the NVIDIA family's names.
256 latents that neither the training nor its evaluations saw, noise off, images in [-1, 1]. With --cost: what a step of
an official size takes instead, images run so many at a time, each in a process of its own: seconds an image (of one
thread's processor time, or on a GPU), and the highest memory of the process (on a GPU, of its allocator).
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Optional, Tuple

import click
import torch

import squeeze_patch
from benchmarks.common import RATIO, SIZES, Several, device_of, device_option, find, generator, in_a_process, machine
from benchmarks.fidelity import generator_from, images_of
from benchmarks.starts import peak_bytes
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.recovery import processes
from squeeze_patch.recovery.pair import pair_of
from squeeze_patch.recovery.progress_line import Line
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.trainer import Training, training_mode
from squeeze_patch.testing import trained
from tests.hosts.training import settle_kernels


def cost(job: Tuple[str, int, str]) -> Tuple[float, int]:
    """(seconds an image, peak bytes) of the second step, of one part alone."""
    size, at_a_time, device = job
    if device == "cpu":
        torch.set_num_threads(1)
    clock = time.process_time if device == "cpu" else time.perf_counter
    host = find("draggan")
    with host.active():
        if device == "cuda":
            settle_kernels()
        dense = trained(generator(host, size)).to(device)
        student = squeeze_patch.apply(
            copy.deepcopy(dense), ratio=RATIO, init="weights", keep_original=False, verify=False
        )
        pair = pair_of(student, dense)
        with training_mode(pair):
            training = Training(pair, Settings(batch=at_a_time, held_out=4), processes.current(), at_a_time)
            training.step(0)
            began = clock()
            training.step(1)  # its loss is read: a GPU has come to its end
            seconds = (clock() - began) / at_a_time
    return seconds, torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()


def print_costs(size: str, at_a_time: Tuple[int, ...], device: str) -> None:
    click.echo(f"{machine(torch.device(device))}, {size}, one step: images at a time, seconds an image, GB")
    for number in at_a_time:
        seconds, peak = in_a_process(cost, (size, number, device))
        click.echo(f"{number:>4} {seconds:>8.2f} {peak / 1e9:>6.2f}")


@click.command()
@click.option("--cost", "size", type=click.Choice(list(SIZES)), help="What a step of this size takes instead.")
@click.option("--at-a-time", type=Several(click.IntRange(1)), default="1,4", show_default=True, help="Of --cost.")
@device_option
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="A dense generator's state dict.")
@click.option("--ratio", default=1.5, show_default=True)
@click.option("--steps", default=1000, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the latents of the training.")
def main(
    size: Optional[str],
    at_a_time: Tuple[int, ...],
    device_name_: str,
    weights: Optional[Path],
    ratio: float,
    steps: int,
    batch: int,
    seed: int,
) -> None:
    """Squeeze, measure, recover, measure."""
    if size is not None:
        print_costs(size, at_a_time, device_of(device_name_).type)
        return
    dense = generator_from(weights)
    student = squeeze_patch.apply(copy.deepcopy(dense), ratio=ratio, keep_original=False)
    images = images_of(dense)
    before = psnr(images, images_of(student))
    result = squeeze_patch.recover(student, dense, steps=steps, batch=batch, seed=seed, progress=Line())
    after = psnr(images, images_of(student))
    name = weights.name if weights else "demo generator"
    click.echo(f"{name}, ratio {ratio:g}, {steps} steps of {batch}: {before:.1f} -> {after:.1f} dB ({machine()})")
    click.echo(str(result))
