"""What the benchmarks share: a real host's generator, seeds of starts, and the machine's name."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import click
import torch

from squeeze_patch.evaluation.latency import device_name
from squeeze_patch.initialization import registry as starts
from tests.hosts import Host, nvidia_hosts

#: resolution, channel_base, mapping layers of the sizes that papers and hosts use (z = w = 512, 3 channels)
SIZES = {"cifar": (32, 32768, 2), "paper256": (256, 16384, 8), "config-f": (1024, 32768, 8)}


def generator(host: Host, size: str, **synthesis: Any) -> Any:
    resolution, base, layers = SIZES[size]
    G = host.generator(resolution, w_dim=512, layers=layers, channel_base=base, channel_max=512, **synthesis)
    return G.eval().requires_grad_(False)


def find(name: str) -> Host:
    """The host of that name, from PyPI or SQUEEZE_HOSTS."""
    hosts = {host.name: host for host in nvidia_hosts()}
    if name not in hosts:
        raise click.UsageError(f"no host {name} at hand; there are {', '.join(hosts)} (tests/hosts/README.md)")
    return hosts[name]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Trained starts fitted on other latents, and random layers drawn anew, for the length of a ``with`` block."""
    before, starts.SEED = starts.SEED, seed
    try:
        torch.manual_seed(seed)
        yield
    finally:
        starts.SEED = before


def machine() -> str:
    return device_name(torch.device("cpu"))
