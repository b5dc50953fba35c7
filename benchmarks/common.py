"""What the benchmarks share: a real host's generator, seeded random layers, and the machine's name."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import click
import torch

from squeeze_patch.evaluation.devices import device_name
from tests.hosts import Host, nvidia_hosts

#: resolution, channel_base, mapping layers of the sizes that papers and hosts use (z = w = 512, 3 channels), and of one
#: to see whether a benchmark runs
SIZES = {"cifar": (32, 32768, 2), "paper256": (256, 16384, 8), "config-f": (1024, 32768, 8), "tiny": (16, 256, 2)}


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
def random_layers(seed: int) -> Iterator[None]:
    """Random layers are drawn with ``seed`` in a ``with`` block; the random stream goes on as if it had not been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def machine() -> str:
    return device_name(torch.device("cpu"))
