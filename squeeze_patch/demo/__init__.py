"""The whole job without any host: a small trained StyleGAN2 generator of our own is squeezed and compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.convert import Conversion, convert_file
from squeeze_patch.checkpoints.io import read, write
from squeeze_patch.demo.network import Generator
from squeeze_patch.errors import CheckpointError
from squeeze_patch.evaluation.compare import Comparison, compare
from squeeze_patch.evaluation.grids import grid
from squeeze_patch.planning.request import Request
from squeeze_patch.sampling import sample

WEIGHTS = Path(__file__).with_name("weights.npz")
CONFIG: Dict[str, Any] = {
    "z_dim": 64,
    "c_dim": 0,
    "w_dim": 64,
    "img_resolution": 32,
    "img_channels": 1,
    "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {"channel_base": 1024, "channel_max": 64},
}


@dataclass(frozen=True)
class Demo:
    """Result of `run_demo`: the conversion, how the images compare (noise off), and the picture."""

    conversion: Conversion
    comparison: Comparison
    picture: Path


def trained_generator() -> Generator:
    """The demo's dense generator: handwritten digits, 1x32x32; where its weights come from is in demo/README.md."""
    G = Generator(**CONFIG)
    with np.load(WEIGHTS) as stored:
        trained = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
    filters = {name: value for name, value in G.state_dict().items() if name.endswith("resample_filter")}
    G.load_state_dict({**filters, **trained})
    return G.eval().requires_grad_(False)


def run_demo(folder: Path, request: Request, force: bool = False) -> Demo:
    """Write dense.pkl, convert it to squeezed.pkl, compare both and draw samples.png, all in ``folder``.

    Args:
        folder: made where it does not exist.
        request: how to squeeze it.
        force: overwrite files of these names, of an earlier run, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dense.pkl", "squeezed.pkl", "samples.png"):
        if (folder / name).exists() and not force:
            raise CheckpointError(f"{folder / name}: the file exists; --force overwrites it")
    dense = trained_generator()
    with atomic_write(folder / "dense.pkl") as stream:
        write({"G": copy.deepcopy(dense), "G_ema": dense}, stream)
    conversion = convert_file(folder / "dense.pkl", folder / "squeezed.pkl", request, trust=True, force=True)
    squeezed = read(folder / "squeezed.pkl", trust=True)["G_ema"]
    comparison = compare(dense, squeezed, noise_mode="none")
    picture = folder / "samples.png"
    with atomic_write(picture) as stream:
        grid(sample(dense, 16, seed=1), sample(squeezed, 16, seed=1), scale=2).save(stream, format="PNG")
    return Demo(conversion, comparison, picture)
