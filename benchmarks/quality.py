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
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Callable, List, Mapping, Sequence

import click
import psutil
import torch

from benchmarks.common import find
from benchmarks.curves import reached, read_json, report
from benchmarks.data import Data, kept_classifier, load
from benchmarks.evaluating import Evaluation
from benchmarks.graphs import use_stream
from benchmarks.jobs import Job, compare_features, pretrained
from benchmarks.one_setting import require_same
from benchmarks.side_by_side import SideBySide, until, words_of
from benchmarks.training import Settings, train
from benchmarks.variants import VARIANTS, Variant, count
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import load_tensors
from squeeze_patch.errors import MeasurementError
from squeeze_patch.evaluation.devices import device_name, device_named

ABOVE_0 = click.FloatRange(0, min_open=True)


def number(name: str, kind: click.ParamType, default: float, words: str) -> Callable[[Any], Any]:
    return click.option(name, type=kind, default=default, show_default=True, help=words)


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
    number("--channels", click.IntRange(2), Settings.channels, "Of the generator's widest blocks."),
    number("--d-channels", click.IntRange(2), Settings.d_channels, "Of the discriminator's."),
    click.option("--seeds", default="0,1,2", show_default=True),
    number("--kimg", ABOVE_0, 400.0, "Thousands of real images shown to D."),
    number("--every", ABOVE_0, 20.0, "kimg between evaluations."),
    number("--gamma", click.FloatRange(0), Settings.r1_gamma, "R1 weight; 0 = the hosts' rule."),
    number("--pl-weight", click.FloatRange(0), Settings.pl_weight, "Path length weight."),
    number("--style-mixing", click.FloatRange(0, 1), Settings.style_mixing, "Its probability."),
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
    failed = []
    with until(end) as stopped:
        for job in wanted:
            if not stopped():
                try:
                    train_job(job, data, lambda point, job=job: show(job, point), stopped)
                except Exception as error:  # the others go on, as they do side by side
                    click.echo(f"{job}: {words_of(error)}", err=True)
                    failed.append(job)
    return failed


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
        names, numbers = names_of(variants, importlib.import_module(module).KNOWN), seeds_of(seeds)
        names_of(against, importlib.import_module(module).KNOWN)
        where = usable(device)
        if graphs and where.type != "cuda":
            raise click.UsageError("--graphs needs --device cuda")
        if not only_report:
            tell_of_turns(where, jobs)
        if kid:
            pretrained()  # before hours have been spent
        if only_report and not out.is_dir():
            raise click.UsageError(f"--out {out}: there is no such folder")
        out.mkdir(parents=True, exist_ok=True)
        failed: Sequence[Job] = []
        with tempfile.TemporaryDirectory() as files:
            place = (settings_of(**training), device, Path(files), graphs, averages)
            common = (kimg, every, training["host_name"], module, *place)
            pairs = itertools.product(numbers, names)
            wanted = [Job(out, name, seed, *common) for seed, name in pairs]
            if kid or not only_report:
                prepare(where, graphs)
                data = data_of(training["data_name"], wanted[0].settings)
                kept = {"host": training["host_name"], "data": data.digest()[:12], **asdict(wanted[0].settings)}
                require_same(out, kept)
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
    names = [*dict.fromkeys(name.strip() for name in variants.split(","))]
    for name in names:
        if name not in known:
            raise click.UsageError(f"no variant {name!r}; there are {', '.join(known)}")
    return names


def tell_of_turns(device: torch.device, jobs: int) -> None:
    """Processes compute on a GPU at the same time only by NVIDIA's multi-process service. 24 trainings on an H100 made
    11,400 images a second with it, and on another day 5,300 without."""
    if device.type == "cuda" and jobs > 1 and not _is_served():
        click.echo(
            "the trainings take turns on the GPU, which is slower: NVIDIA's multi-process service is not running "
            "(`nvidia-cuda-mps-control -d` starts it)"
        )


def _is_served() -> bool:
    """Whether the service's daemon runs here, or the variable says where one is, which a container does not see."""
    names = (process.info["name"] or "" for process in psutil.process_iter(["name"]))
    return "CUDA_MPS_PIPE_DIRECTORY" in os.environ or any(name.startswith("nvidia-cuda-mps") for name in names)


def seeds_of(seeds: str) -> List[int]:
    """Each once: two trainings would write to one file."""
    try:
        return [*dict.fromkeys(int(seed) for seed in seeds.split(","))]
    except ValueError:
        raise click.UsageError(f"--seeds {seeds!r}: whole numbers with commas between them") from None


def data_of(name: str, settings: Settings) -> Data:
    data = load(name, settings.resolution)
    if len(data.images) < settings.batch:
        raise click.UsageError(f"--data {name}: {len(data.images)} images, and a batch has {settings.batch}")
    return data


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
    sizes = read_json(file) if file.exists() else {}
    with atomic_write(file) as stream:
        stream.write(json.dumps({**sizes, name: size}, indent=1).encode())


KNOWN = VARIANTS
main = training_command(__name__, list(KNOWN), "curves")
