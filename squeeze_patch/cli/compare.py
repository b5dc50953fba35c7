"""squeeze-patch compare"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Tuple

import click
import torch

from squeeze_patch.checkpoints.addresses import redacted
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.generators import describe, load_generator
from squeeze_patch.checkpoints.pickles import host_path
from squeeze_patch.cli.errors import Command, printable
from squeeze_patch.cli.options import file_options, labels_option, measuring_options, quiet_option
from squeeze_patch.cli.output import check_outputs, check_replaceable, emit, progress_bar, written
from squeeze_patch.cli.sources import Sources
from squeeze_patch.evaluation.compare import SAMPLES, Comparison
from squeeze_patch.evaluation.compare import compare as compare_generators
from squeeze_patch.evaluation.devices import device_named
from squeeze_patch.evaluation.grids import first_images, side_by_side
from squeeze_patch.evaluation.sections import comparison_sections
from squeeze_patch.reporting.page import Row, Table, page


@click.command(cls=Command)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--samples", default=SAMPLES, show_default=True, help="Latents to compare on.")
@click.option("--seed", default=0, show_default=True, help="Of the latents.")
@click.option("--noise", type=click.Choice(["const", "none"]), default="const", show_default=True)
@click.option("--truncation", default=1.0, show_default=True, help="psi; 1 = none.")
@click.option("--batch", type=int, help="Images at a time.  [default: 16, fewer above 256x256]")
@click.option("--fid", is_flag=True, help="Also FID, KID, precision, recall (pip install squeeze-patch[fid]).")
@click.option(
    "--grid",
    metavar="FILE",
    callback=written,
    help="Write a picture: A, B and their difference on the first 8 latents.",
)
@click.option(
    "--html",
    metavar="FILE",
    callback=written,
    help="Write a page: the figures, and A and B on the first 8 latents, with a slider.",
)
@measuring_options
@labels_option
@file_options
@quiet_option
def compare(
    a: str,
    b: str,
    samples: int,
    seed: int,
    noise: str,
    truncation: float,
    batch: Optional[int],
    fid: bool,
    grid: Optional[str],
    html: Optional[str],
    key: Optional[str],
    device: str,
    json_target: Optional[str],
    trust: bool,
    host: Optional[str],
    sources: Sources,
    quiet: bool,
) -> None:
    """Compare the generators of two files on the same latents.

    A and B are paths or URLs. Compared are images (PSNR, SSIM), the features between blocks, and the distributions of
    the images (sliced Wasserstein, Fréchet; --fid adds FID, KID, precision and recall).

    \b
    Examples:
      squeeze-patch compare 550000.pt squeezed.pt
      squeeze-patch compare dense.pkl squeezed.pkl --grid out.png --html out.html
    """
    where = device_named(device)
    files = sources.local(a, b, quiet=quiet)
    a, b = redacted(a), redacted(b)
    check_outputs(json_target, grid, html, sources=files)
    check_replaceable(json_target, grid, html)
    with host_path(host):
        first, second = (load_generator(path, key, trust=trust).to(where) for path in files)
        with progress_bar("comparing", quiet=quiet) as step:
            result = compare_generators(
                first, second, samples, seed, noise, truncation=truncation, batch=batch, fid=fid, progress=step
            )
        images = first_images(first, second, samples, seed, noise, truncation) if grid or html else None
    if images is not None and grid is not None:
        picture = side_by_side(images, (f"A: {a}", f"B: {b}"))
        with atomic_write(Path(grid)) as stream:
            picture.save(stream, format="PNG")
    if images is not None and html is not None:
        text = _page({"A": (a, describe(first)), "B": (b, describe(second))}, result, images)
        with atomic_write(Path(html)) as stream:
            stream.write(text.encode())
    header = f"A {printable(a)}, {describe(first)}\nB {printable(b)}, {describe(second)}\n"
    written = [f"\n{what:<24} {name}" for what, name in (("picture", grid), ("page", html)) if name is not None]
    emit(f"{header}{result}{''.join(written)}", {"a": a, "b": b, "key": key, **result.to_dict()}, json_target, quiet)


def _page(files: Dict[str, Tuple[str, str]], result: Comparison, images: Tuple[torch.Tensor, torch.Tensor]) -> str:
    """The page of ``files``, {"A" or "B": (name, what is in it)}, and their images."""
    names = [Path(name).name for name, _ in files.values()]
    layers = {f"{which}: {name}": layer for which, name, layer in zip(files, names, images)}
    rows = [Row(which, name, what) for which, (name, what) in files.items()]
    compared = Table("Compared", [*rows, Row("on", result.setting)], ("", "file", "generator"))
    psnr, ssim = (value for _, value, _ in result.rows()[:2])
    summary = "All images are equal." if result.squared_error == 0 else f"PSNR {psnr}, SSIM {ssim}"
    return page(" and ".join(names), summary, [compared, *comparison_sections(result, layers)])
