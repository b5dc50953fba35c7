"""What a calibrated start costs at the official sizes, by method and allocation.

    python -m benchmarks starts [--sizes paper256,config-f] [--host draggan] [--device cuda]

Processor time of `squeeze_patch.apply` on one thread without its proof (`python -m benchmarks proof` has that), and how
far it lifts the process's peak memory above the generator in float32. Each in a process of its own, since a peak never
goes down. With --device cuda: seconds of the wall clock, and the peak of the GPU's allocator above the generator.
"""

from __future__ import annotations

import resource
import time
from typing import Any, Dict, Tuple

import click
import torch

import squeeze_patch
from benchmarks.common import (
    SEVERAL_SIZES,
    SIZES,
    device_of,
    device_option,
    find,
    generator,
    in_a_process,
    machine,
    random_layers,
)
from squeeze_patch.testing import trained
from squeeze_patch.timing import waiting_for
from tests.hosts.training import settle_kernels

#: {row: arguments of apply}
WAYS: Dict[str, Dict[str, Any]] = {
    "squeezed, one ratio": {"allocate": "uniform"},
    "squeezed, allocated": {"allocate": "spectral"},
    "narrowed, one ratio": {"method": "narrow", "allocate": "uniform"},
    "narrowed, allocated": {"method": "narrow", "allocate": "spectral"},
}


def peak_bytes() -> int:
    """Of this process's resident memory until now; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cost(job: Tuple[str, str, str, Dict[str, Any]]) -> Tuple[float, int]:
    """(seconds, bytes) of one start."""
    host_name, size, device, wish = job
    on_gpu = device == "cuda"
    clock, peak = (time.perf_counter, torch.cuda.max_memory_allocated) if on_gpu else (time.process_time, peak_bytes)
    torch.set_num_threads(1)
    host = find(host_name)
    with host.active():
        if on_gpu:
            settle_kernels()
        with random_layers(0):  # one generator for all rows
            G = trained(generator(host, size)).to(device)
        wait = waiting_for(torch.device(device))
        wait()
        before, began = peak(), clock()
        squeeze_patch.apply(G, **wish, verify=False, keep_original=False)
        wait()
        return clock() - began, peak() - before


def share(value: float, of: float) -> str:
    """Of what is too little to be seen there is none."""
    return f"{value / of:.2f}" if of > 0 else "-"


@click.command(help="Processor time and memory of calibrated starts.")
@click.option("--host", "host_name", default="draggan", show_default=True)
@click.option(
    "--sizes", type=SEVERAL_SIZES, default="paper256,config-f", show_default=True, help=f"Of {', '.join(SIZES)}."
)
@device_option
def main(host_name: str, sizes: Tuple[str, ...], device_name_: str) -> None:
    device = device_of(device_name_)
    click.echo(f"{machine(device)}, one thread")
    for size in sizes:
        click.echo(f"{size:<22} {'seconds':>8} {'GB':>6}   / squeezed, one ratio")
        first = None
        for row, wish in WAYS.items():
            seconds, peak = in_a_process(cost, (host_name, size, device.type, wish))
            first = first or (seconds, peak)
            shares = ", ".join(share(*pair) for pair in zip((seconds, peak), first))
            click.echo(f"{row:<22} {seconds:>8.1f} {peak / 1e9:>6.2f}   {shares}")
