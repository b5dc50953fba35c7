"""What the benchmarks share: a real host's generator, seeded random layers, clocks, and the machine's name."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

import click
import torch

import squeeze_patch
from squeeze_patch.evaluation.devices import device_name
from squeeze_patch.testing import trained
from tests.hosts import Host, nvidia_hosts

T, R = TypeVar("T"), TypeVar("R")
CPU = torch.device("cpu")
#: resolution, channel_base, mapping layers of the sizes that papers and hosts use (z = w = 512, 3 channels), and of one
#: to see whether a benchmark runs
SIZES = {"cifar": (32, 32768, 2), "paper256": (256, 16384, 8), "config-f": (1024, 32768, 8), "tiny": (16, 256, 2)}

#: blocks in float16, and the clamp that hosts put on features then
DTYPES: Dict[str, Dict[str, Any]] = {
    "float32": {"num_fp16_res": 0},
    "mixed": {"num_fp16_res": 4, "conv_clamp": 256},
    "float16": {"num_fp16_res": 99, "conv_clamp": 256},
}


def generator(host: Host, size: str, **synthesis: Any) -> Any:
    resolution, base, layers = SIZES[size]
    G = host.generator(resolution, w_dim=512, layers=layers, channel_base=base, channel_max=512, **synthesis)
    return G.eval().requires_grad_(False)


#: the ratio at which benchmarks squeeze
RATIO = 1.5


def generators(host: Host, size: str, device: torch.device = CPU, **synthesis: Any) -> Dict[str, Any]:
    """{"dense", "squeezed", "fused": generator}, looking trained, by one seed; the host is active."""
    dense = trained(generator(host, size, **synthesis)).to(device)
    squeezed = copy.deepcopy(dense)
    squeeze_patch.apply(squeezed, ratio=RATIO, init="random", keep_original=False, verify=False)
    squeezed = trained(squeezed).requires_grad_(False)
    fused = squeeze_patch.fuse(copy.deepcopy(squeezed), verify=False)
    return {"dense": dense, "squeezed": squeezed, "fused": fused}


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


def machine(device: torch.device = CPU) -> str:
    return device_name(device)


@dataclass(frozen=True)
class Clock:
    """What tells the seconds, and what it is called in a table."""

    seconds: Callable[[], float]
    name: str

    @classmethod
    def of(cls, processor_time: bool, threads: Optional[int], device: torch.device) -> Clock:
        """Of the options of a command; sets torch's threads."""
        if processor_time and (device.type != "cpu" or threads != 1):
            raise click.UsageError("--processor-time tells how long calls take on one CPU thread: add --threads 1")
        if threads:
            torch.set_num_threads(threads)
        return cls(time.process_time, "processor time") if processor_time else cls(time.perf_counter, "time")


def device_of(name: str) -> torch.device:
    """Of the option --device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: torch sees no GPU here")
    return torch.device(name)


class Several(click.ParamType):
    """Values of another type with commas between them, as a tuple."""

    name = "list"

    def __init__(self, each: click.ParamType) -> None:
        self.each = each

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Any:
        words = value.split(",") if isinstance(value, str) else value
        return tuple(self.each.convert(word, param, ctx) for word in words)


#: of the option --sizes
SEVERAL_SIZES = Several(click.Choice(list(SIZES)))


def in_a_process(function: Callable[[T], R], job: T) -> R:
    """What ``function`` returns in a new process, whose peak of memory is its own.

    Raises:
        ClickException: the process is gone; a system that has no memory left ends processes.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, job).result()
        except BrokenProcessPool:
            raise click.ClickException(
                f"the process that measured {job} was ended by the system: is there memory for it?"
            ) from None


def require_gpu_for(dtype: str, device: torch.device) -> None:
    if device.type == "cpu" and dtype != "float32":
        raise click.UsageError(f"--dtype {dtype}: on a CPU the hosts compute in float32; add --device cuda")


def reason_of(error: Exception) -> str:
    """The beginning of an error, for a table."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:160]


device_option = click.option("--device", "device_name_", type=click.Choice(["cpu", "cuda"]), default="cpu")
