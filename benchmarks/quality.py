"""Is training with the squeeze connection better, at its parameter count? Dense, squeezed and narrowed from scratch.

    python -m benchmarks quality --out quality           # 3 variants x 3 seeds x 400 kimg: hours
    python -m benchmarks quality --out quality --report  # table and curves of what is there

A host's own networks and loss on real images; within a seed all variants see the same images in the same order, and the
discriminator starts from the same weights. Every evaluation is saved with the training's whole state: the same command
goes on where it was stopped. Two commands with different --seeds or --variants can share a folder.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Mapping, Sequence

import click
import torch

from benchmarks.common import find, machine
from benchmarks.curves import report, slug
from benchmarks.data import load, train_classifier
from benchmarks.pretrained import Pretrained
from benchmarks.training import EVALUATION_SEED, Evaluation, Run, Settings, generated, train
from benchmarks.variants import VARIANTS, Variant, count
from squeeze_patch.checkpoints.atomic import atomic_write
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
    click.option("--kid", is_flag=True, help="Measure KID on EfficientNet-Lite's features, too: minutes a training."),
)


@dataclass(frozen=True)
class Wanted:
    """Trainings to be had in the folder ``out``: every variant with every seed, to ``kimg``."""

    out: Path
    variants: Mapping[str, Variant]
    seeds: Sequence[int]
    kimg: float
    every: float

    def train(self, host: Host, data_name: str, settings: Settings) -> None:
        """Train what is missing."""
        data = load(data_name, settings.resolution)
        classifier, known = train_classifier(data)
        click.echo(f"{machine()}; {len(data.images)} {data_name}; the classifier knows {known:.1%} of them")
        evaluate = Evaluation(data, classifier, settings.samples)
        for seed in self.seeds:
            for name, build in self.variants.items():
                with host.active():
                    run = Run(host, settings, build, data, seed)
                    remember_size(self.out, name, count(run.G))
                    state = self.out / f"{slug(name)}-seed{seed}.pt"
                    train(run, evaluate, self.kimg, self.every, state, lambda point, at=(name, seed): show(*at, point))

    def compare_features(self, host: Host, data_name: str, settings: Settings) -> None:
        """KID of every training that is there, as it stands, beside it as .kid.json."""
        data, network = load(data_name, settings.resolution), Pretrained()
        random = torch.Generator().manual_seed(EVALUATION_SEED)
        real = network.features(data.images[torch.randperm(len(data.images), generator=random)[:KID_IMAGES]])
        for seed, (name, build) in itertools.product(self.seeds, self.variants.items()):
            state = self.out / f"{slug(name)}-seed{seed}.pt"
            if not state.is_file():
                continue
            with host.active():
                run = Run(host, settings, build, data, seed)
                run.load(state)
                found = kernel_distance(real, network.features(generated(run.G_ema, KID_IMAGES)))
            point = {"kimg": run.nimg / 1000, "kid": found}
            with atomic_write(state.with_suffix(".kid.json")) as stream:
                stream.write(json.dumps(point).encode())
            show(name, seed, {**point, "seconds": run.seconds})


def training_command(known: Mapping[str, Variant], default: Sequence[str], stem: str) -> click.Command:
    """A command that trains some of the ``known`` variants; its table and picture are stem.json and stem.png."""

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
        **training: Any,
    ) -> None:
        names = names_of(variants, known)
        out.mkdir(parents=True, exist_ok=True)
        chosen = {name: known[name] for name in names}
        wanted = Wanted(out, chosen, [int(seed) for seed in seeds.split(",")], kimg, every)
        for work in [wanted.train] * (not only_report) + [wanted.compare_features] * kid:
            torch.set_num_threads(1)  # networks this small gain nothing from a second one: run two commands instead
            torch.set_flush_denormal(True)
            work(find(training["host_name"]), training["data_name"], settings_of(**training))
        report(out, names, kimg, stem, against)

    for option in reversed(OPTIONS):
        main = option(main)
    return click.command(help="Train what is missing, then print the table and draw the curves.")(main)


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


def show(name: str, seed: int, point: Mapping[str, float]) -> None:
    figures = "  ".join(f"{key} {value:.3f}" for key, value in point.items() if key not in ("kimg", "seconds"))
    rate = 1000 * point["kimg"] / point["seconds"]
    click.echo(f"{time.strftime('%H:%M:%S')} {name} seed {seed}: {point['kimg']:g} kimg  {figures}  {rate:.0f} img/s")


main = training_command(VARIANTS, list(VARIANTS), "curves")
