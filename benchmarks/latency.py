"""Inference latency, squeezed and fused against dense, in turns in one process, on a real host's networks.

    python -m benchmarks latency [--host draggan] [--sizes cifar,paper256] [--batches 1,8] [--repeats 7] [--json FILE]

Rows: the dense generator and the squeezed one (ratio 1.5) with the host's default flags and with each value of
fused_modconv; the squeezed one fused; the dense one with the same kernels as the fused one, which tells what of its
gain is the convolutions' and what the connection's; with --compile, what torch.compile makes of dense and fused; on
CUDA, what replaying a captured CUDA graph takes. Columns: milliseconds of one call of the synthesis network, the ratio
to the fastest flags of the dense one (of graphs: to its fastest graph), and to the dense one called the same way, each
median (quartiles) of pairs; and the largest difference of the images, relative to the largest pixel: of fused ones and
of other flags, compiled and replayed ones to the same generator's by default flags, of the same kernels to the dense
generator's.

--dtype mixed: the last four resolutions in float16, as the hosts train; float16: all of them. No host of this family
has blocks in bfloat16, and on a CPU the hosts compute in float32. On a busy machine, --threads 1 --processor-time tells
ratios that other processes disturb less.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import click
import torch

from benchmarks.common import (
    DTYPES,
    RATIO,
    SEVERAL_SIZES,
    Clock,
    Several,
    device_of,
    device_option,
    find,
    generators,
    machine,
    reason_of,
    require_gpu_for,
)
from benchmarks.kernels import with_same_kernels
from benchmarks.ways import captured, compiled
from squeeze_patch.timing import Quartiles, interleaved, paired_ratio, waiting_for
from tests.hosts import Host
from tests.hosts.training import settle_kernels

FLAGS: Dict[str, Dict[str, Any]] = {
    "default": {},
    "fused_modconv": {"fused_modconv": True},
    "no fused_modconv": {"fused_modconv": False},
}
#: {flags: how they are called as a captured graph}
_GRAPHS = {"default": "graph", "fused_modconv": "graph, fused", "no fused_modconv": "graph, unfused"}
Way = Tuple[str, str]  # generator, how it is called


@dataclass(frozen=True)
class Setting:
    """How all rows of a run are measured."""

    device: torch.device
    dtype: str
    repeats: int
    clock: Clock
    backend: Optional[str]
    graphs: bool


def calls(networks: Dict[str, Any], ws: torch.Tensor, setting: Setting) -> Tuple[Dict[Way, Any], Dict[Way, str]]:
    """({way: call}, {way that is not possible here: why})."""

    def call(network: Any, flags: Dict[str, Any]) -> Callable[[], torch.Tensor]:
        return lambda: network(ws, noise_mode="const", **flags)

    found: Dict[Way, Any] = {}
    for name, G in networks.items():
        for flag, flags in FLAGS.items() if name in ("dense", "squeezed") else [("default", FLAGS["default"])]:
            found[name, flag] = call(G.synthesis, flags)
    skipped: Dict[Way, str] = {}

    def add(way: Way, make: Callable[[], Callable[[], torch.Tensor]]) -> None:
        try:
            ready = make()
            ready()
        except Exception as error:  # a backend or a capture may fail in any way; the other rows are worth having
            skipped[way] = reason_of(error)
        else:
            found[way] = ready

    for name in ("dense", "fused") if setting.backend else ():
        add((name, "compiled"), lambda name=name: call(compiled(networks[name].synthesis, setting.backend), {}))
    for way in [way for way in found if way[1] in FLAGS] if setting.graphs else ():
        add((way[0], _GRAPHS[way[1]]), lambda way=way: captured(found[way], setting.device))
    return found, skipped


def measure(host: Host, size: str, batch: int, setting: Setting) -> Dict[str, Any]:
    """All rows of one size and batch; the host is active."""
    networks = generators(host, size, setting.device, **DTYPES[setting.dtype])
    networks["same kernels"] = with_same_kernels(networks["dense"])
    ws = torch.randn([batch, networks["dense"].num_ws, 512], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # torch.compile does not know inference_mode
        actions, skipped = calls(networks, ws.to(setting.device), setting)
        images = {way: run().float().cpu().clone() for way, run in actions.items()}
        synchronize, clock = waiting_for(setting.device), setting.clock.seconds
        seconds: Any = interleaved(actions, setting.repeats, 1, synchronize, clock=clock)  # type: ignore[arg-type]
    times = {way: Quartiles.of(values) for way, values in seconds.items()}
    best = _fastest_dense(times, FLAGS)
    best_graph = _fastest_dense(times, _GRAPHS.values()) or best
    rows = []
    for way, time in times.items():
        name, how = way
        reference = ("dense" if name == "same kernels" else "squeezed" if name == "fused" else name, "default")
        reference = (name, "default") if how not in FLAGS else reference
        same = ("dense", how)
        rows.append(
            {
                "generator": name,
                "called": how,
                "milliseconds": Quartiles(*(1000 * x for x in (time.median, time.lower, time.upper))),
                "to best": paired_ratio(seconds[way], seconds[best_graph if how in _GRAPHS.values() else best]),
                "to the same": paired_ratio(seconds[way], seconds[same]) if same in seconds else None,
                "difference": _difference(images[way], images[reference]),
            }
        )
    return {
        "host": host.name,
        "size": size,
        "batch": batch,
        "dtype": setting.dtype,
        "best": best[1],
        "rows": rows,
        "skipped": [{"generator": name, "called": how, "why": why} for (name, how), why in skipped.items()],
    }


def _fastest_dense(times: Dict[Way, Quartiles], hows: Iterable[str]) -> Any:
    """The fastest way of those to call the dense generator, None where there is none."""
    ways = [("dense", how) for how in hows if ("dense", how) in times]
    return min(ways, key=lambda way: times[way].median, default=None)


def _difference(images: torch.Tensor, reference: torch.Tensor) -> float:
    return float((images - reference).abs().max() / reference.abs().max())


def lines(result: Dict[str, Any]) -> List[str]:
    """The table of one `measure`."""
    head = f"{result['size']}, batch {result['batch']}, {result['dtype']}; dense is fastest with {result['best']}"
    columns = f"  {'generator':<13} {'called':<17} {'ms':>26} {'/ fastest dense':>20} {'/ dense, so called':>20}"
    found = [head, f"{columns} {'off by':>8}"]
    for row in result["rows"]:
        ms, same = row["milliseconds"], row["to the same"]
        cells = f"{ms.median:.1f} ({ms.lower:.1f} to {ms.upper:.1f})"
        text = f"  {row['generator']:<13} {row['called']:<17} {cells:>26} {row['to best']!s:>20} {same or '-'!s:>20}"
        found.append(f"{text} {row['difference']:>8.1e}")
    for row in result["skipped"]:
        found.append(f"  {row['generator']:<13} {row['called']:<17} left out: {row['why']}")
    return found


@click.command()
@click.option("--host", "name", default="draggan", show_default=True)
@click.option(
    "--sizes", type=SEVERAL_SIZES, default="cifar,paper256", show_default=True, help="Also config-f (1024x1024)."
)
@click.option("--batches", type=Several(click.IntRange(1)), default="1,8", show_default=True)
@click.option("--repeats", type=click.IntRange(2), default=7, show_default=True)
@device_option
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's]")
@click.option("--processor-time", is_flag=True, help="Of one thread, instead of the wall clock's.")
@click.option(
    "--compile", "backend", is_flag=False, flag_value="inductor", metavar="[BACKEND]", help="torch.compile, too."
)
@click.option("--graphs/--no-graphs", default=None, help="CUDA graphs, too.  [default: on CUDA]")
@click.option("--no-tf32", is_flag=True, help="float32 convolutions on CUDA in float32.")
@click.option("--search", is_flag=True, help="cuDNN searches the fastest algorithms, as in the hosts' training.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write all figures here, row by row.")
def main(
    name: str,
    sizes: Tuple[str, ...],
    batches: Tuple[int, ...],
    repeats: int,
    device_name_: str,
    dtype: str,
    threads: Optional[int],
    processor_time: bool,
    backend: Optional[str],
    graphs: Optional[bool],
    no_tf32: bool,
    search: bool,
    target: Optional[Path],
) -> None:
    """Measure and print the table."""
    device = device_of(device_name_)
    require_gpu_for(dtype, device)
    if no_tf32:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if search:
        torch.backends.cudnn.benchmark = True
    clock = Clock.of(processor_time, threads, device)
    graphs = device.type == "cuda" if graphs is None else graphs
    setting = Setting(device, dtype, repeats, clock, backend, graphs)
    host = find(name)
    results: List[Dict[str, Any]] = []
    click.echo(f"ratio {RATIO}, {clock.name}, median (quartiles) of {repeats} pairs; {host.name}, {machine(device)}")
    with host.active():
        if device.type == "cuda":
            settle_kernels()  # what of the hosts' kernels a current torch still loads differs from host to host
        for size in sizes:
            for batch in batches:
                results.append(measure(host, size, batch, setting))
                click.echo("\n".join(lines(results[-1])))
                if target:
                    told = {"machine": machine(device), "clock": clock.name, "results": results}
                    target.write_text(json.dumps(told, indent=2, default=asdict))
