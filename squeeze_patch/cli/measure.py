"""compare and report: commands that run two generators against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import click

from squeeze_patch.cli.common import (
    allocate_option,
    check_outputs,
    emit,
    file_options,
    local,
    measuring_options,
    one_line_errors,
    progress_bar,
    wish_options,
)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--samples", default=256, show_default=True, help="Latents to compare on.")
@click.option("--seed", default=0, show_default=True, help="Of the latents.")
@click.option("--noise", type=click.Choice(["const", "none"]), default="const", show_default=True)
@click.option("--truncation", default=1.0, show_default=True, help="psi; 1 = none.")
@click.option("--batch", type=int, help="Images at a time.  [default: 16, fewer above 256x256]")
@click.option("--fid", is_flag=True, help="Also FID, KID, precision, recall (pip install squeeze-patch[fid]).")
@click.option("--grid", metavar="FILE", help="Write a picture: A, B and their difference on the first 8 latents.")
@measuring_options
@file_options
@one_line_errors
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
    key: Optional[str],
    device: str,
    json_target: Optional[str],
    trust: bool,
    host: Optional[str],
) -> None:
    """Compare the generators in files A and B (paths or URLs) on the same latents: images, features, distributions.

    \b
    Example:
      squeeze-patch compare dense.pkl squeezed.pkl --grid out.png --host path/to/stylegan2-ada-pytorch --trust
    """
    from squeeze_patch.checkpoints.convert import host_path
    from squeeze_patch.checkpoints.generators import describe, device_named, load_generator
    from squeeze_patch.evaluation.compare import compare as compare_generators

    where = device_named(device)
    files = [local(source, trust) for source in (a, b)]
    check_outputs(json_target, grid, sources=files)
    with host_path(host):
        first, second = (load_generator(path, key, trust=trust).to(where) for path in files)
        with progress_bar("comparing") as step:
            result = compare_generators(
                first, second, samples, seed, noise, truncation=truncation, batch=batch, fid=fid, progress=step
            )
        if grid is not None:
            from squeeze_patch.checkpoints.io import atomic_write
            from squeeze_patch.evaluation.grids import side_by_side

            picture = side_by_side(first, second, (f"A: {a}", f"B: {b}"), samples, seed, noise, truncation)
            with atomic_write(Path(grid)) as stream:
                picture.save(stream, format="PNG")
    header = f"A {a}, {describe(first)}\nB {b}, {describe(second)}\n"
    picture_line = "" if grid is None else f"\npicture                  {grid}"
    emit(f"{header}{result}{picture_line}", {"a": a, "b": b, "key": key, **result.to_dict()}, json_target)


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--against", metavar="DENSE", help="The dense file of a squeezed FILE.  [default: FILE's constructor]")
@wish_options
@allocate_option
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="Squeeze by this Plan (plan --json).")
@click.option("--batch", default=1, show_default=True, help="Images a call.")
@click.option("--repeats", default=20, show_default=True, help="Timed pairs of calls.")
@measuring_options
@file_options
@one_line_errors
def report(
    file: str,
    against: Optional[str],
    reduction: Optional[float],
    ratio: Optional[float],
    allocate: str,
    plan_file: Optional[Path],
    batch: int,
    repeats: int,
    key: Optional[str],
    device: str,
    json_target: Optional[str],
    trust: bool,
    host: Optional[str],
) -> None:
    """Measure the generator in FILE dense and squeezed: multiply-adds, parameters, latency, memory.

    A dense FILE is measured against what squeezing would make of it, a squeezed one against its dense counterpart.

    \b
    Examples:
      squeeze-patch report dense.pkl --ratio 2 --batch 8 --host path/to/stylegan2-ada-pytorch --trust
      squeeze-patch report squeezed.pkl --against dense.pkl --host path/to/stylegan2-ada-pytorch --trust
    """
    from squeeze_patch.checkpoints.convert import host_path
    from squeeze_patch.checkpoints.generators import device_named, load_generator
    from squeeze_patch.evaluation.measure import measure, pair
    from squeeze_patch.planning.planner import Plan

    where = device_named(device)
    plan = None if plan_file is None else Plan.from_json(plan_file.read_text(encoding="utf-8"))
    files = [local(source, trust) for source in (file, against) if source is not None]
    check_outputs(json_target, sources=[*files, *([plan_file] if plan_file else [])])
    with host_path(host):
        G, *other = (load_generator(path, key, trust=trust).to(where) for path in files)
        dense, squeezed = pair(G, *other, reduction=reduction, ratio=ratio, plan=plan, allocate=allocate)
        with progress_bar("measuring") as step:
            result = measure(dense, squeezed, batch, repeats, progress=step)
    emit(str(result), {"file": file, "against": against, "key": key, **result.to_dict()}, json_target)
