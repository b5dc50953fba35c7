"""Time and peak memory of one training step with a host's own networks and loss, squeezed / dense.

    python -m benchmarks step [--host draggan] [--sizes cifar,paper256] [--batch 8] [--repeats 5] [--memory]
    python -m benchmarks step --sizes paper256 --batch 2 --repeats 3 --threads 1 --processor-time

Phases as in the hosts' loop: G and D, each with and without its regularisation (path length every 4th step, R1 every
16th); "whole step" is their average over 16 steps. Dense and squeezed run in turns, so that a noisy machine disturbs
both alike. On CUDA (--device cuda) the device is waited for before and behind each phase, cuDNN searches its fastest
algorithms and float32 is float32, as in the hosts' training; --dtype mixed: both networks' largest four resolutions in
float16, as the hosts train, too. Memory, one process each, over all phases: on the CPU growth of its resident memory,
at its peak, where glibc is told to give tensors back at once (MALLOC_MMAP_THRESHOLD_: with its defaults, holes in its
heap decide the figure); on CUDA the peak of what its allocator gave out.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict
from typing import Any, Callable, Dict, List, Optional, Tuple

import click
import torch

import squeeze_patch
from benchmarks.common import (
    CPU,
    DTYPES,
    SEVERAL_SIZES,
    SIZES,
    Clock,
    device_of,
    device_option,
    find,
    machine,
    require_gpu_for,
)
from squeeze_patch.timing import interleaved, paired_ratio, waiting_for
from tests.hosts import Host
from tests.hosts.training import accumulate, loss_of, settle_kernels

#: phases and how often a training runs each of them
PHASES = {"Gmain": 1.0, "Greg": 1 / 4, "Dmain": 1.0, "Dreg": 1 / 16}
VARIANTS = ("dense", "squeezed")


def phases(
    host: Host, size: str, batch: int, variant: str, device: torch.device = CPU, dtype: str = "float32"
) -> Dict[str, Callable[[], None]]:
    """Actions that each do one phase: gradients and the optimiser's step. The host is active."""
    resolution, base, layers = SIZES[size]
    torch.manual_seed(0)
    sizes = {"channel_base": base, "channel_max": 512, **DTYPES[dtype]}
    if device.type == "cuda":
        settle_kernels()
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    D = host.discriminator(resolution, **sizes).train().requires_grad_(False)
    G = host.generator(resolution, w_dim=512, layers=layers, **sizes)
    if variant == "squeezed":
        squeeze_patch.apply(G, init="random", keep_original=False)
    G, D = G.train().requires_grad_(False).to(device), D.to(device)
    loss = loss_of(host, G, D, r1_gamma=1.0, pl_weight=2.0, style_mixing_prob=0.0)
    real, z = torch.rand([batch, 3, resolution, resolution]) * 2 - 1, torch.randn([batch, 512])
    real, z = real.to(device), z.to(device)
    networks = {"G": G, "D": D}
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=1e-5) for name, network in networks.items()}

    def act(phase: str) -> None:
        network, optimizer = networks[phase[0]], optimizers[phase[0]]
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        accumulate(loss, phase, real, z)
        network.requires_grad_(False)
        optimizer.step()

    return {phase: lambda phase=phase: act(phase) for phase in PHASES}


def time_of(
    host: Host, size: str, batch: int, repeats: int, clock: Clock, device: torch.device, dtype: str = "float32"
) -> Dict[str, Any]:
    """Quartiles of seconds, squeezed / dense, of every phase and of the whole step; and the dense one's median."""
    with host.active():
        both = {variant: phases(host, size, batch, variant, device, dtype) for variant in VARIANTS}
        turns = {f"{v} {phase}": both[v][phase] for phase in PHASES for v in VARIANTS}
        seconds = interleaved(turns, repeats, 1, waiting_for(device), clock=clock.seconds)
    whole: Dict[str, List[float]] = {
        v: [sum(share * seconds[f"{v} {phase}"][i] for phase, share in PHASES.items()) for i in range(repeats)]
        for v in VARIANTS
    }
    single = {phase: paired_ratio(seconds[f"squeezed {phase}"], seconds[f"dense {phase}"]) for phase in PHASES}
    average = paired_ratio(whole["squeezed"], whole["dense"])
    return {**single, "whole step": average, "seconds, dense": statistics.median(whole["dense"])}


def resident() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_of(host: Host, size: str, batch: int, variant: str, device: torch.device = CPU, dtype: str = "float32") -> int:
    """Bytes that this process's memory grows by, at its peak, when it trains for one step of all phases."""
    before = resident()
    with host.active():
        for action in phases(host, size, batch, variant, device, dtype).values():
            action()
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident() - before


def memory_of(
    host_name: str,
    size: str,
    batch: int,
    device: torch.device = CPU,
    dtype: str = "float32",
    threads: Optional[int] = None,
) -> Dict[str, int]:
    """`peak_of` for both variants, each in a process of its own.

    Raises:
        ClickException: one has failed; what it said stands above.
    """
    peaks = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks", "step", "--host", host_name, "--sizes", size]
        command += ["--batch", str(batch), "--device", device.type, "--dtype", dtype, "--peak-of", variant]
        command += ["--threads", str(threads)] if threads else []
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            raise click.ClickException(f"{variant} at {size}: the process that measured it failed ({done.returncode})")
        peaks[variant] = int(done.stdout.splitlines()[-1])  # behind what a host prints of its kernels
    return peaks


@click.command()
@click.option("--host", "host_name", default="draggan", show_default=True)
@click.option("--sizes", type=SEVERAL_SIZES, default="cifar,paper256", show_default=True)
@click.option(
    "--batch", type=click.IntRange(2), default=8, show_default=True, help="Of which path lengths are measured of half."
)
@click.option("--repeats", type=click.IntRange(2), default=5, show_default=True)
@device_option
@click.option("--dtype", type=click.Choice([*DTYPES]), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's]")
@click.option("--processor-time", is_flag=True, help="Of one thread, instead of the wall clock's.")
@click.option("--memory", is_flag=True, help="Measure memory, not time.")
@click.option("--peak-of", "child", type=click.Choice(VARIANTS), hidden=True)
def main(
    host_name: str,
    sizes: Tuple[str, ...],
    batch: int,
    repeats: int,
    device_name_: str,
    dtype: str,
    threads: Optional[int],
    processor_time: bool,
    memory: bool,
    child: Optional[str],
) -> None:
    """Measure and print; the last line is JSON."""
    host, device = find(host_name), device_of(device_name_)
    require_gpu_for(dtype, device)
    if memory and processor_time:
        raise click.UsageError("--memory measures no time: leave out --processor-time")
    clock = Clock.of(processor_time, threads, device)
    if child:
        click.echo(peak_of(host, sizes[0], batch, child, device, dtype))
        return
    results: Dict[str, Any] = {}
    what = "memory" if memory else f"{clock.name}, median (quartiles)"
    click.echo(f"{machine(device)}, {host_name}, batch {batch}, {dtype}; squeezed / dense, {what}")
    for size in sizes:
        if memory:
            peaks = results[size] = memory_of(host_name, size, batch, device, dtype, threads)
            dense, squeezed = (peaks[variant] for variant in VARIANTS)
            ratio = f"{squeezed / dense:.2f}" if dense else "too little to be seen"
            click.echo(f"{size:>10}  peak memory {ratio} ({squeezed >> 20} of {dense >> 20} MiB)")
        else:
            results[size] = time_of(host, size, batch, repeats, clock, device, dtype)
            for phase in (*PHASES, "whole step"):
                click.echo(f"{size:>10}  {phase:<10}  {results[size][phase]}")
    click.echo(json.dumps(results, default=asdict))
