"""The command of one training, and what a trial run needs."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Dict, List

import torch
from PIL import Image

from examples.reproduce_paper.plans import GGDR, METRICS, Experiment

#: images of a trial run, and their side
SMOKE_IMAGES, SMOKE_SIZE = 64, 8
#: a trial run has the experiment's options, and these behind them
SMOKE_OPTIONS = ("--kimg=1", "--snap=1", "--metrics=none", "--fp32=1", "--workers=1", "--batch=64")
_HOSTS = Path(__file__).parents[2] / "tests" / "hosts"


def folder(out: Path, experiment: Experiment, variant: str, seed: int) -> Path:
    """Where the host puts the run's own folder."""
    return out / experiment.name / f"{variant}-seed{seed}"


def command(
    experiment: Experiment, variant: str, seed: int, data: Path, out: Path, gpus: int, smoke: bool = False
) -> List[str]:
    """To be run in the host's folder; variants differ in what stands in front of its script."""
    lengths = SMOKE_OPTIONS if smoke else (f"--kimg={experiment.kimg}", f"--metrics={','.join(METRICS)}")
    return [
        *(sys.executable, "-m", "squeeze_patch", "train", *experiment.words(variant), "--", "train.py"),
        f"--outdir={folder(out, experiment, variant, seed)}",
        f"--data={data}",
        f"--gpus={gpus}",
        f"--seed={seed}",
        *experiment.options,
        *lengths,
    ]


def smoke_gpus(experiment: Experiment) -> int:
    """GGDR's script stops by itself where there is one process only: at a barrier."""
    return 2 if experiment.host == GGDR else 1


def smoke_data(out: Path) -> Path:
    """A folder of small images of noise: what a network learns of them is no matter."""
    made = out / "smoke-data"
    made.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(0)
    for index in range(SMOKE_IMAGES):
        noise = pixels.randbytes(3 * SMOKE_SIZE**2)
        Image.frombytes("RGB", (SMOKE_SIZE, SMOKE_SIZE), noise).save(made / f"{index:02}.png")
    return made


def environment(smoke: bool) -> Dict[str, str]:
    """Of the host's process: the user's; a trial without a GPU sees stand-ins for the CUDA calls of the scripts."""
    found = dict(os.environ)
    if smoke and not torch.cuda.is_available():
        shims = [str(_HOSTS / name) for name in ("cpu", "bare", "shims")]
        found["PYTHONPATH"] = os.pathsep.join([*shims, *filter(None, [found.get("PYTHONPATH")])])
    return found
