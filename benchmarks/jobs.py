"""A training of `benchmarks.quality` in a folder, and the KID of what it has left."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Container, Dict, Iterator, Sequence, Tuple

import click
import torch

from benchmarks.average_files import kept_averages
from benchmarks.common import find
from benchmarks.curves import read_json, slug
from benchmarks.data import Data
from benchmarks.evaluating import EVALUATION_SEED, generated
from benchmarks.pretrained import Pretrained
from benchmarks.training import Run, Settings
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.evaluation.distributions import kernel_distance
from tests.hosts import Host

#: real and generated images of `kernel_distance`, whose expectation does not depend on how many there are
KID_IMAGES = 3000


@dataclass(frozen=True)
class Job:
    """One training in the folder ``out``; ``module`` is that of the command, whose KNOWN has the variant.

    Attributes:
        files: a folder with the data, which is then not read again by every process.
    """

    out: Path
    name: str
    seed: int
    kimg: float
    every: float
    host_name: str
    module: str
    settings: Settings
    device: str
    files: Path
    graphs: bool
    averages: bool

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"

    @property
    def state(self) -> Path:
        return self.out / f"{slug(self.name)}-seed{self.seed}.pt"

    def run(self, host: Host, data: Data) -> Run:
        """As it begins; the host is active."""
        variant = importlib.import_module(self.module).KNOWN[self.name]
        return Run(host, self.settings, variant, data, self.seed, self.graphs)


def compare_features(wanted: Sequence[Job], data: Data) -> None:
    """KID of every moving average that was kept, and of every training as it stands; beside them as .kid.json.

    What has been measured is not measured again. Averages are enough: the trainings' states may be elsewhere.
    """
    network = pretrained()
    random = torch.Generator().manual_seed(EVALUATION_SEED)
    real = network.features(data.images[torch.randperm(len(data.images), generator=random)[:KID_IMAGES]])
    for job in wanted:
        file = job.state.with_suffix(".kid.json")
        known: Dict[str, float] = read_json(file) if file.is_file() else {}
        host = find(job.host_name)
        with host.active():
            for kimg, G in generators_of(job, job.run(host, data), known):
                known[f"{kimg:g}"] = kernel_distance(real, network.features(generated(G, KID_IMAGES)))
                with atomic_write(file) as stream:
                    stream.write(json.dumps(known, indent=1).encode())
                click.echo(f"{job.name} seed {job.seed}: {kimg:g} kimg  kid {known[f'{kimg:g}']:.5f}")


def generators_of(job: Job, run: Run, but: Container[str]) -> Iterator[Tuple[float, Any]]:
    """(kimg, moving average) of what a job has left, but for some kimg."""
    for kimg, file in kept_averages(job.state).items():
        if f"{kimg:g}" not in but:
            run.G_ema.load_state_dict(load_tensors(file), strict=True)
            yield kimg, run.G_ema
    if job.state.is_file():
        run.load(job.state)
        if f"{run.nimg / 1000:g}" not in but:
            yield run.nimg / 1000, run.G_ema


def pretrained() -> Pretrained:
    try:
        return Pretrained()
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        raise click.UsageError(f"--kid needs a package that is not here: pip install {package}") from None
