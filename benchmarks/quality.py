"""Is training with the squeeze connection better, at its parameter count? Dense, squeezed and narrowed from scratch.

    python -m benchmarks quality --out quality           # 3 variants x 3 seeds x 400 kimg: hours
    python -m benchmarks quality --out quality --report  # table and curves of what is there

A host's own networks and loss on real images; within a seed all variants see the same images in the same order, and the
discriminator starts from the same weights. Every evaluation is saved with the training's whole state: the same command
goes on where it was stopped. Two commands with different --seeds or --variants can share a folder. Many trainings at
once on one GPU, for four minutes:

    python -m benchmarks quality --out quality --device cuda --jobs 14 --seeds 0,1,2,3,4 --minutes 4
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Container, Dict, Iterator, List, Mapping, Sequence, Tuple

import click
import torch

from benchmarks.common import find
from benchmarks.curves import reached, report, slug
from benchmarks.data import Data, kept_classifier, load
from benchmarks.graphs import use_stream
from benchmarks.pretrained import Pretrained
from benchmarks.side_by_side import SideBySide, until
from benchmarks.training import EVALUATION_SEED, Evaluation, Run, Settings, generated, kept_averages, train
from benchmarks.variants import VARIANTS, Variant, count
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.errors import MeasurementError
from squeeze_patch.evaluation.devices import device_name, device_named
from squeeze_patch.evaluation.distributions import kernel_distance
from tests.hosts import Host

#: real and generated images of `kernel_distance`, whose expectation does not depend on how many there are
KID_IMAGES = 3000
#: of the trainings, beside which variants there are
OPTIONS = (
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of results."),
    click.option("--host", "host_name", default="draggan", show_default=True, help="Networks and loss to use."),
    click.option(
        "--data",
        "data_name",
        default="digits",
        show_default=True,
        help="digits, photos, or a folder or zip of images with a folder a class.",
    ),
    click.option("--resolution", type=click.Choice(["16", "32"]), default="16", show_default=True),
    click.option("--channels", default=Settings.channels, show_default=True, help="Of the generator's widest blocks."),
    click.option("--d-channels", default=Settings.d_channels, show_default=True, help="Of the discriminator's."),
    click.option("--seeds", default="0,1,2", show_default=True),
    click.option("--kimg", default=400.0, show_default=True, help="Thousands of real images shown to D."),
    click.option("--every", default=20.0, show_default=True, help="kimg between evaluations."),
    click.option("--gamma", default=Settings.r1_gamma, show_default=True, help="R1 weight; 0 = the hosts' rule."),
    click.option("--pl-weight", default=Settings.pl_weight, show_default=True, help="Path length weight."),
    click.option("--style-mixing", default=Settings.style_mixing, show_default=True, help="Its probability."),
    click.option("--against", default="dense", show_default=True, help="The variant that others are divided by."),
    click.option("--report", "only_report", is_flag=True, help="Train nothing."),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
    click.option("--graphs", is_flag=True, help="Replay the kernels of a step as CUDA graphs; needs --device cuda."),
    click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trainings at once."),
    click.option(
        "--minutes",
        type=click.FloatRange(0),
        default=math.inf,
        help="Stop then, states saved, and report how far all have come.  [default: as long as it takes]",
    ),
    click.option("--averages", is_flag=True, help="Keep the moving average of every evaluation, for --kid."),
    click.option("--kid", is_flag=True, help="Measure KID on EfficientNet-Lite's features, too: minutes an average."),
)


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

    @property
    def state(self) -> Path:
        return self.out / f"{slug(self.name)}-seed{self.seed}.pt"

    def run(self, host: Host, data: Data) -> Run:
        """As it begins; the host is active."""
        variant = importlib.import_module(self.module).KNOWN[self.name]
        return Run(host, self.settings, variant, data, self.seed, self.graphs)


def prepare(device: torch.device, graphs: bool) -> None:
    """Float32 is float32, and one core a training."""
    torch.set_num_threads(1)  # networks this small gain nothing from a second one: run two trainings instead
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # shapes stay as they are
    if graphs:
        use_stream()


def do(job: Job, send: Callable[[Mapping[str, float]], None], stopped: Callable[[], bool]) -> None:
    """Train, in a process of its own: the parameters are reported first, then every evaluation."""
    prepare(torch.device(job.device), job.graphs)
    if not stopped():
        found = load_tensors(job.files / "data.pt")
        train_job(job, Data(**found), send, stopped)


def train_job(job: Job, data: Data, send: Callable[[Mapping[str, float]], None], stopped: Callable[[], bool]) -> None:
    host, data = find(job.host_name), data.to(torch.device(job.device))
    evaluate = Evaluation(data, kept_classifier(job.out, data)[0], job.settings.samples)
    with host.active():
        run = job.run(host, data)
        send({"parameters": count(run.G)})
        train(run, evaluate, job.kimg, job.every, job.state, send, stopped, job.averages)


def show(job: Job, point: Mapping[str, float]) -> None:
    """What a job reports: remembered, or a line."""
    if "parameters" in point:
        return remember_size(job.out, job.name, int(point["parameters"]))
    figures = "  ".join(f"{key} {value:.3f}" for key, value in point.items() if key not in ("kimg", "seconds"))
    rate = 1000 * point["kimg"] / point["seconds"]
    now = time.strftime("%H:%M:%S")
    click.echo(f"{now} {job.name} seed {job.seed}: {point['kimg']:g} kimg  {figures}  {rate:.0f} img/s")


def train_all(wanted: Sequence[Job], data: Data, data_name: str, at_once: int, end: float) -> List[Job]:
    """Train what is missing, until the ``end``; the trainings that failed."""
    first = wanted[0]
    device = torch.device(first.device)
    known = kept_classifier(first.out, data.to(device))[1]
    click.echo(f"{device_name(device)}; {len(data.images)} {data_name}; the classifier knows {known:.1%} of them")
    if at_once > 1:
        torch.save({name: getattr(data, name) for name in ("images", "labels", "classes")}, first.files / "data.pt")
        failed = SideBySide(do, at_once, end).run(wanted, show)
        if failed and first.graphs and time.time() < end:
            click.echo(f"{len(failed)} trainings failed; again without --graphs")
            failed = SideBySide(do, at_once, end).run([replace(job, graphs=False) for job in failed], show)
        return failed
    with until(end) as stopped:
        for job in wanted:
            if not stopped():
                train_job(job, data, lambda point, job=job: show(job, point), stopped)
    return []


def compare_features(wanted: Sequence[Job], data: Data) -> None:
    """KID of every moving average that was kept, and of every training as it stands; beside them as .kid.json.

    What has been measured is not measured again. Averages are enough: the trainings' states may be elsewhere.
    """
    network = Pretrained()
    random = torch.Generator().manual_seed(EVALUATION_SEED)
    real = network.features(data.images[torch.randperm(len(data.images), generator=random)[:KID_IMAGES]])
    for job in wanted:
        file = job.state.with_suffix(".kid.json")
        known: Dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
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


def training_command(module: str, default: Sequence[str], stem: str) -> click.Command:
    """A command that trains some of the variants in KNOWN of its ``module``; its table and picture are stem.json and
    stem.png."""

    @click.option("--variants", default=",".join(default), show_default=True, help="Comma-separated.")
    def main(
        out: Path,
        variants: str,
        seeds: str,
        kimg: float,
        every: float,
        against: str,
        only_report: bool,
        kid: bool,
        jobs: int,
        minutes: float,
        device: str,
        graphs: bool,
        averages: bool,
        **training: Any,
    ) -> None:
        end = time.time() + 60 * minutes
        names = names_of(variants, importlib.import_module(module).KNOWN)
        where = usable(device)
        if graphs and where.type != "cuda":
            raise click.UsageError("--graphs needs --device cuda")
        out.mkdir(parents=True, exist_ok=True)
        failed: Sequence[Job] = []
        with tempfile.TemporaryDirectory() as files:
            place = (settings_of(**training), device, Path(files), graphs, averages)
            common = (kimg, every, training["host_name"], module, *place)
            pairs = itertools.product((int(seed) for seed in seeds.split(",")), names)
            wanted = [Job(out, name, seed, *common) for seed, name in pairs]
            if kid or not only_report:
                prepare(where, graphs)
                data = load(training["data_name"], int(training["resolution"]))
            if not only_report:
                failed = train_all(wanted, data, training["data_name"], jobs, end)
            if kid:
                compare_features(wanted, data)
        if math.isfinite(minutes) and not only_report:
            kimg = min(kimg, reached(out, names))
        if kimg > 0:
            report(out, names, kimg, stem, against, device_name(where))
        else:
            click.echo("the time was over before the first evaluation; the same command goes on from there")
        if failed:
            raise click.ClickException(f"{len(failed)} trainings failed; why stands above")

    for option in reversed(OPTIONS):
        main = option(main)
    return click.command(help="Train what is missing, then print the table and draw the curves.")(main)


def usable(device: str) -> torch.device:
    try:
        return device_named(device)
    except MeasurementError as error:
        raise click.UsageError(str(error)) from None


def names_of(variants: str, known: Mapping[str, Variant]) -> List[str]:
    names = variants.split(",")
    for name in names:
        if name not in known:
            raise click.UsageError(f"no variant {name!r}; there are {', '.join(known)}")
    return names


def settings_of(
    resolution: str, channels: int, d_channels: int, gamma: float, pl_weight: float, style_mixing: float, **_: Any
) -> Settings:
    size = int(resolution)
    return Settings(
        resolution=size,
        channels=channels,
        d_channels=d_channels,
        channel_base=channels // 2 * size,  # half as many in the last block
        r1_gamma=gamma,
        pl_weight=pl_weight,
        style_mixing=style_mixing,
    )


def remember_size(out: Path, name: str, size: int) -> None:
    file = out / "parameters.json"
    sizes = json.loads(file.read_text()) if file.exists() else {}
    with atomic_write(file) as stream:
        stream.write(json.dumps({**sizes, name: size}, indent=1).encode())


KNOWN = VARIANTS
main = training_command(__name__, list(KNOWN), "curves")
