"""What the benchmarks share: a real host's generator, and ratios with their spread."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from typing import Any, Callable, Dict, List, Sequence

import click
import torch

from tests.hosts import Host, all_hosts

#: resolution, channel_base, mapping layers of the sizes that papers and hosts use (z = w = 512, 3 channels)
SIZES = {"cifar": (32, 32768, 2), "paper256": (256, 16384, 8), "config-f": (1024, 32768, 8)}


def generator(host: Host, size: str, **synthesis: Any) -> Any:
    resolution, base, layers = SIZES[size]
    G = host.generator(resolution, w_dim=512, layers=layers, channel_base=base, channel_max=512, **synthesis)
    return G.eval().requires_grad_(False)


def interleaved(actions: Dict[str, Callable[[], Any]], repeats: int) -> Dict[str, List[float]]:
    """Seconds of each action, run in turns, so that a noisy machine disturbs all of them alike; one warm-up each."""
    seconds: Dict[str, List[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(repeats):
        for name, action in actions.items():
            gc.collect()
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> Dict[str, float]:
    """Median and quartiles of the ratios of paired measurements."""
    ratios = [a / b for a, b in zip(over, under)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def show(result: Dict[str, float]) -> str:
    return f"{result['median']:.2f} ({result['lower_quartile']:.2f} to {result['upper_quartile']:.2f})"


def find(name: str) -> Host:
    """The host of that name, from PyPI or SQUEEZE_HOSTS."""
    hosts = {host.name: host for host in all_hosts()}
    if name not in hosts:
        raise click.UsageError(f"no host {name} at hand; there are {', '.join(hosts)} (tests/hosts/README.md)")
    return hosts[name]


def machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
