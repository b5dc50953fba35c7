"""What a trained start loses that does not see the labels which a conditional generator was trained with.

    python -m benchmarks labels --out FOLDER [--kimg 40]

Trains two generators on 16x16 digits, by a host's own networks and loss: one on the parameters of the camera that an
image was turned by, in the layout that EG3D's data sets have (25 entries, most of them constant), one on six
attributes, several of which an image has. PSNR in dB to the dense images of 512 unseen latents with labels of the data,
noise off, before any training, of starts that saw one-hot classes, which is the default, and of such that saw the
data's labels.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import click
import torch
import torch.nn.functional as F

import squeeze_patch
from benchmarks.common import machine
from benchmarks.data import Data, digits
from benchmarks.training import Run, Settings
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.evaluation.pixels import psnr
from squeeze_patch.sampling import sample
from tests.hosts import Host, draggan

#: name: the arguments of `squeeze_patch.apply`
STARTS: Dict[str, Dict[str, Any]] = {
    "squeezed, allocated": {"reduction": 0.121},
    "squeezed, one ratio": {"ratio": 1.5},
    "squeezed, allocated, 25 %": {"reduction": 0.25},
    "narrowed, allocated, 25 %": {"reduction": 0.25, "method": "narrow"},
}
UNSEEN, SEED = 512, 5


def cameras(data: Data) -> Tuple[Data, torch.Tensor]:
    """Digits turned by up to 35 degrees, and labels [n, 25]: extrinsics of a camera that went round as far, row by row,
    then intrinsics."""
    n = len(data.images)
    angle = (torch.rand([n], generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.6
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros([n])
    turns = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(turns, [*data.images.shape], align_corners=False)
    # grid_sample pads with 0, and black is -1
    turned = F.grid_sample(data.images + 1, grid, align_corners=False) - 1
    extrinsics = torch.eye(4).repeat(n, 1, 1)
    extrinsics[:, 0, 0], extrinsics[:, 0, 2], extrinsics[:, 0, 3] = cos, sin, 2.7 * sin
    extrinsics[:, 2, 0], extrinsics[:, 2, 2], extrinsics[:, 2, 3] = sin, -cos, 2.7 * cos
    extrinsics[:, 1, 1] = -1
    intrinsics = torch.tensor([4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]).repeat(n, 1)
    return Data(turned, data.labels, data.classes), torch.cat([extrinsics.flatten(1), intrinsics], dim=1)


def attributes(data: Data) -> Tuple[Data, torch.Tensor]:
    """Digits, half of them inverted, and labels [n, 6]: even, above 4, with a loop, prime, bold, inverted."""
    digit, ink = data.labels, data.images.mean(dim=(1, 2, 3))
    inverted = torch.rand([len(digit)], generator=torch.Generator().manual_seed(0)) < 0.5
    loops, primes = (torch.isin(digit, torch.tensor(which)) for which in ([0, 6, 8, 9], [2, 3, 5, 7]))
    entries = [digit % 2 == 0, digit > 4, loops, primes, ink > ink.median(), inverted]
    images = torch.where(inverted[:, None, None, None], -data.images, data.images)
    return Data(images, digit, data.classes), torch.stack(entries, dim=1).float()


KINDS = {"cameras": cameras, "attributes": attributes}


def trained(host: Host, data: Data, labels: torch.Tensor, kimg: float, name: str) -> Any:
    """The moving average of a generator of the host, which is active, conditional on ``labels``."""
    run = Run(host, Settings(), lambda dense: dense(), data, 0, labels=labels)
    with click.progressbar(length=int(kimg * 1000), label=f"training on {name}") as bar:
        while run.nimg < kimg * 1000:
            run.step()
            bar.update(run.settings.batch)
    return run.G_ema


def starts_of(dense: Any, labels: torch.Tensor) -> Dict[str, List[float]]:
    """{start: dB of one that saw one-hot labels, dB of one that saw ``labels``}"""

    def images(G: Any) -> torch.Tensor:
        with squeeze_patch.labels(labels):
            return sample(G, UNSEEN, SEED, noise_mode="none")

    def start(seen: Any, **how: Any) -> Any:
        with squeeze_patch.labels(seen):
            return squeeze_patch.apply(copy.deepcopy(dense), keep_original=False, **how)

    wanted = images(dense)
    return {name: [psnr(wanted, images(start(seen, **how))) for seen in (None, labels)] for name, how in STARTS.items()}


@click.command(help="Train two conditional generators and print what their starts keep, by the labels that they saw.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the figures.")
@click.option("--kimg", default=40.0, show_default=True, help="Thousands of images to train on.")
@click.option("--limit", type=click.IntRange(min=100), help="Use about so many digits only.")
def main(out: Path, kimg: float, limit: Optional[int]) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    found: Dict[str, Any] = {}
    data = digits(Settings.resolution)
    if limit:
        chosen = slice(None, None, max(1, len(data.images) // limit))  # they are in the order of their classes
        data = Data(data.images[chosen], data.labels[chosen], data.classes)
    for kind, conditioned in KINDS.items():
        images, labels = conditioned(data)
        host = draggan()
        with host.active():
            found[kind] = starts_of(trained(host, images, labels, kimg, kind), labels)
        click.echo(f"{kind}: start, PSNR where it saw one-hot labels, where it saw the data's")
        for name, (blind, seeing) in found[kind].items():
            click.echo(f"  {name:<28} {blind:5.1f} dB  {seeing:5.1f} dB")
    with atomic_write(out / "labels.json") as stream:
        stream.write(json.dumps({"machine": machine(), "kimg": kimg, "starts": found}, indent=1).encode())
