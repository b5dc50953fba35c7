"""Conversion of an official-size checkpoint (G, G_ema, D), against merely loading and saving the file; and reading it
without running it, against pickle's loading.

    python -m benchmarks conversion [--host draggan] [--size config-f] [--init weights|calibrated] [--repeats 3]

Each run is a process of its own; time is measured inside, after the imports, and memory is the process's peak less what
it held after the imports.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import click
import torch

from benchmarks.common import SIZES, find, generator, machine
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.io import read, write
from squeeze_patch.timing import paired_ratio
from tests.hosts import Host


def write_checkpoint(host: Host, size: str, path: Path) -> None:
    G = generator(host, size)
    D = host.discriminator(G.img_resolution, channel_base=32768, channel_max=512).eval().requires_grad_(False)
    data = {"training_set_kwargs": None, "augment_pipe": None, "G": G, "D": D, "G_ema": generator(host, size)}
    with open(path, "wb") as stream:
        pickle.dump(data, stream)


def work(job: str, init: str, source: Path, target: Path) -> Dict[str, float]:
    """One job in this process: seconds, and bytes of memory beyond what the imports took."""
    before = memory("VmRSS")
    start = time.perf_counter()
    if job == "convert":
        convert(source, target, init=init, force=True)
    elif job == "read":
        read(source, trust=False)
    elif job == "load":
        with open(source, "rb") as file:
            pickle.load(file)
    else:
        data: Any = read(source, trust=True)
        with atomic_write(target) as stream:
            write(data, stream)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": memory("VmHWM") - before}


def memory(field: str) -> int:
    """Bytes of this process as Linux counts them: VmRSS = now, VmHWM = at the peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(field)))


@click.command()
@click.option("--host", "name", default="draggan", show_default=True)
@click.option("--size", type=click.Choice(list(SIZES)), default="config-f", show_default=True)
@click.option("--init", type=click.Choice(["weights", "calibrated"]), default="weights", show_default=True)
@click.option("--repeats", type=click.IntRange(min=2), default=3, show_default=True)
@click.option("--job", hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(name: str, size: str, init: str, repeats: int, job: str, folder: Path) -> None:
    """Measure and print both ratios."""
    host = find(name)
    if job:
        with host.active():
            import torch_utils.persistence  # noqa: F401  (the host's imports are no part of the job)

            print(json.dumps(work(job, init, folder / "dense.pkl", folder / f"{job}.pkl")))
        return
    results: Dict[str, List[Dict[str, float]]] = {"convert": [], "load and save": [], "read": [], "load": []}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        torch.manual_seed(0)
        with host.active():
            write_checkpoint(host, size, folder / "dense.pkl")
        bytes_before = (folder / "dense.pkl").stat().st_size
        for _ in range(repeats):
            for kind in results:
                command = [sys.executable, "-m", "benchmarks", "conversion", "--job", kind]
                command += ["--host", name, "--init", init, "--folder", made]
                done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    raise click.ClickException(f"{kind}: the process that measured it failed ({done.returncode})")
                results[kind].append(json.loads(done.stdout))
        bytes_after = (folder / "convert.pkl").stat().st_size
    times = {kind: [run["seconds"] for run in runs] for kind, runs in results.items()}
    peak = {kind: max(run["bytes"] for run in runs) / bytes_before for kind, runs in results.items()}
    click.echo(f"{size} checkpoint (G, G_ema, D), {host.name}, {machine()}, start {init}, {repeats} runs")
    click.echo(f"file         {bytes_before / 1e6:.0f} MB -> {bytes_after / 1e6:.0f} MB")
    click.echo(f"convert      {min(times['convert']):.1f} to {max(times['convert']):.1f} s")
    click.echo(f"load, save   {min(times['load and save']):.1f} to {max(times['load and save']):.1f} s")
    click.echo(f"time ratio   {paired_ratio(times['convert'], times['load and save'])}")
    click.echo(
        f"memory       {peak['convert']:.2f} x the file at its peak (load and save: {peak['load and save']:.2f} x)"
    )
    click.echo(f"read         {min(times['read']):.2f} to {max(times['read']):.2f} s, without running it")
    click.echo(f"pickle.load  {min(times['load']):.2f} to {max(times['load']):.2f} s")
    click.echo(f"time ratio   {paired_ratio(times['read'], times['load'])}")
    click.echo(f"memory       {peak['read']:.2f} x the file at its peak (pickle.load: {peak['load']:.2f} x)")
