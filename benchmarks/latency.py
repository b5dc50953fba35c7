"""Inference latency, squeezed against dense, in one process, on a real host's networks.

    python -m benchmarks latency [--host draggan] [--sizes cifar,paper256] [--batches 1,8] [--repeats 7] [--json FILE]

Columns: squeezed / dense with the host's default flags, and against the dense generator's fastest flags (every
combination of fused_modconv and force_fp32 is tried for both, the fastest of each is compared).
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import click
import torch

import squeeze_patch
from benchmarks.common import find, generator, machine
from squeeze_patch.evaluation.latency import interleaved, paired_ratio
from tests.hosts import Host

FLAGS: Dict[str, Dict[str, Any]] = {
    "default": {},
    "fused": {"fused_modconv": True},
    "unfused": {"fused_modconv": False},
}


def measure(host: Host, size: str, batch: int, repeats: int) -> Dict[str, Any]:
    dense, squeezed = generator(host, size), generator(host, size)
    squeeze_patch.apply(squeezed, ratio=1.5, init="random", keep_original=False)
    ws = torch.randn([batch, dense.num_ws, 512])

    def run(G: Any, flags: Dict[str, Any]) -> Callable[[], Any]:
        return lambda: G.synthesis(ws, noise_mode="const", **flags)

    actions = {f"dense {name}": run(dense, flags) for name, flags in FLAGS.items()}
    actions.update({f"squeezed {name}": run(squeezed, flags) for name, flags in FLAGS.items()})
    with torch.inference_mode():
        seconds = interleaved(actions, repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = {
        kind: min((n for n in medians if n.startswith(kind)), key=medians.__getitem__) for kind in ("dense", "squeezed")
    }
    return {
        "host": host.name,
        "size": size,
        "batch": batch,
        "milliseconds": {name: round(1000 * value, 2) for name, value in medians.items()},
        "default": paired_ratio(seconds["squeezed default"], seconds["dense default"]),
        "best": paired_ratio(seconds[best["squeezed"]], seconds[best["dense"]]),
        "best_flags": best,
    }


@click.command()
@click.option("--host", "name", default="draggan", show_default=True)
@click.option("--sizes", default="cifar,paper256", show_default=True)
@click.option("--batches", default="1,8", show_default=True)
@click.option("--repeats", default=7, show_default=True)
@click.option("--threads", type=int, help="CPU threads.  [default: torch's]")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write all figures here.")
def main(name: str, sizes: str, batches: str, repeats: int, threads: Optional[int], target: Optional[Path]) -> None:
    """Measure and print the table."""
    if threads:
        torch.set_num_threads(threads)
    host = find(name)
    results: List[Dict[str, Any]] = []
    click.echo(f"squeezed / dense at ratio 1.5, median (quartiles) of {repeats} pairs; {host.name}, {machine()}")
    click.echo(f"{'size':>10} {'batch':>6} {'default flags':>22} {'best flags':>22}  fastest dense, squeezed")
    with host.active():
        for size in sizes.split(","):
            for batch in (int(b) for b in batches.split(",")):
                row = measure(host, size, batch, repeats)
                results.append(row)
                fastest = ", ".join(f"{n} {row['milliseconds'][n]:.0f} ms" for n in row["best_flags"].values())
                click.echo(f"{size:>10} {batch:>6} {row['default']!s:>22} {row['best']!s:>22}  {fastest}")
    if target:
        target.write_text(json.dumps({"machine": machine(), "results": results}, indent=2, default=asdict))
