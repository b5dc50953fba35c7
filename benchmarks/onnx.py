"""Fused ONNX against unfused and dense ONNX in onnxruntime, on a real host's generator, one image a call.

    python -m benchmarks onnx [--host draggan] [--sizes cifar,paper256] [--repeats 7] [--threads 1]

Exported as docs/export.md says (fused_modconv=False, torch.onnx.export with dynamo=True), at a fixed batch. Columns:
milliseconds and the ratio to the dense file, median (quartiles) of pairs run in turns; bytes of the file and what
belongs to it; the largest difference of its images to the same generator's in torch, relative to the largest pixel.
The last line is JSON.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import click
import torch

from benchmarks.common import SEVERAL_SIZES, Clock, find, generators, machine
from squeeze_patch.timing import Quartiles, interleaved, paired_ratio
from tests.hosts import Host

GENERATORS = ("dense", "squeezed", "fused")


class Images(torch.nn.Module):
    """z -> images with the stored noise."""

    def __init__(self, G: Any) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: torch.Tensor) -> Any:
        return self.G(z, z.new_zeros(z.shape[0], 0), noise_mode="const", fused_modconv=False)


def session_of(path: Path, threads: Optional[int]) -> Any:
    """onnxruntime's, on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(host: Host, size: str, repeats: int, clock: Clock, threads: Optional[int]) -> Dict[str, Any]:
    """{generator: its figures}; the host is active."""
    z = torch.randn([1, 512], generator=torch.Generator().manual_seed(0))
    actions: Dict[str, Callable[[], Any]] = {}
    found: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        for name, G in generators(host, size).items():
            path = Path(folder, name, "generator.onnx")
            path.parent.mkdir()
            module = Images(G).eval()
            torch.onnx.export(module, (z,), path, dynamo=True, verbose=False)
            session = session_of(path, threads)
            feed = {session.get_inputs()[0].name: z.numpy()}
            actions[name] = lambda session=session, feed=feed: session.run(None, feed)
            expected = module(z)
            images = torch.from_numpy(actions[name]()[0])
            found[name] = {
                "bytes": sum(file.stat().st_size for file in path.parent.iterdir()),
                "difference": float((images - expected).abs().max() / expected.abs().max()),
            }
        seconds = interleaved(actions, repeats, clock=clock.seconds)
    for name, values in seconds.items():
        found[name]["milliseconds"] = Quartiles.of([1000 * value for value in values])
        found[name]["to dense"] = paired_ratio(values, seconds["dense"])
    return found


@click.command()
@click.option("--host", "name", default="draggan", show_default=True)
@click.option("--sizes", type=SEVERAL_SIZES, default="cifar,paper256", show_default=True)
@click.option("--repeats", type=click.IntRange(2), default=7, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@click.option("--processor-time", is_flag=True, help="Of one thread, instead of the wall clock's.")
def main(name: str, sizes: Tuple[str, ...], repeats: int, threads: Optional[int], processor_time: bool) -> None:
    """Export, measure and print."""
    clock = Clock.of(processor_time, threads, torch.device("cpu"))
    host = find(name)
    version = importlib.import_module("onnxruntime").__version__
    results: Dict[str, Any] = {}
    click.echo(f"{clock.name}, median (quartiles) of {repeats}; {name}, onnxruntime {version}, {machine()}")
    click.echo(f"{'size':>10} {'generator':<10} {'ms':>26} {'/ dense':>20} {'MB':>8} {'off by':>8}")
    with host.active():
        for size in sizes:
            results[size] = measure(host, size, repeats, clock, threads)
            for generator, row in results[size].items():
                ms = row["milliseconds"]
                cells = f"{ms.median:.1f} ({ms.lower:.1f} to {ms.upper:.1f})"
                sizes_ = f"{row['bytes'] / 1e6:>8.1f} {row['difference']:>8.1e}"
                click.echo(f"{size:>10} {generator:<10} {cells:>26} {row['to dense']!s:>20} {sizes_}")
    click.echo(json.dumps(results, default=asdict))
