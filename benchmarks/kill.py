"""Does a recovery survive being killed? Kills ``squeeze-patch recover`` at random moments, then compares the bits.

    python -m benchmarks kill [--kills 20] [--seed 0]

A tiny generator; a state file after every step. The process gets SIGKILL while it starts, trains or writes; the same
command goes on each time. At the end the file's tensors are compared with those of a run that nobody disturbed.
"""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import click
import torch

import squeeze_patch
from squeeze_patch.checkpoints.io import read
from squeeze_patch.demo.network import Generator


@dataclass(frozen=True)
class Outcome:
    """``kills`` delivered, state files found after them, and whether all ``tensors`` are equal bit by bit."""

    kills: int
    states: int
    tensors: int
    equal: bool
    left_over: List[str]


def write_pair(folder: Path) -> None:
    """dense.pkl and squeezed.pkl: 8x8, 8 channels, random weights."""
    torch.manual_seed(0)
    sizes: Dict[str, Any] = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 1}
    dense = Generator(**sizes, synthesis_kwargs={"channel_base": 128, "channel_max": 16}).eval()
    (folder / "dense.pkl").write_bytes(pickle.dumps({"G_ema": dense}))
    squeezed = squeeze_patch.apply(dense, ratio=2, keep_original=False)
    (folder / "squeezed.pkl").write_bytes(pickle.dumps({"G_ema": squeezed}))


def command(folder: Path, name: str, steps: int) -> List[str]:
    files = [str(folder / file) for file in ("dense.pkl", "squeezed.pkl")]
    options = ["--out", str(folder / name), "--steps", str(steps), "--every", "1", "--batch", "2", "--device", "cpu"]
    return [sys.executable, "-m", "squeeze_patch", "recover", *files, *options, "--trust"]


def killed(arguments: List[str], lines: int, delay: float) -> bool:
    """Start, wait for so many evaluations and then ``delay`` seconds, kill; False = it had ended before."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for _ in range(lines):
            process.stderr.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
    return process.returncode == -9


def disturb(folder: Path, kills: int, seed: int) -> Outcome:
    """Run undisturbed, run with ``kills``, compare."""
    write_pair(folder)
    dice = random.Random(seed)
    steps = 3 * kills + 5  # at most 2 evaluations are waited for before a kill
    start = time.monotonic()
    subprocess.run(command(folder, "whole.pkl", 1), check=True, capture_output=True)
    startup = time.monotonic() - start
    subprocess.run([*command(folder, "whole.pkl", steps), "--force"], check=True, capture_output=True)
    delivered = states = 0
    for _ in range(kills):
        lines = dice.randrange(3)
        delivered += killed(
            command(folder, "broken.pkl", steps), lines, dice.uniform(0, 0.02) if lines else dice.uniform(0, startup)
        )
        states += (folder / "broken.pkl.state").exists()
    subprocess.run(command(folder, "broken.pkl", steps), check=True, capture_output=True)
    whole, broken = (read(folder / name, trust=True)["G_ema"].state_dict() for name in ("whole.pkl", "broken.pkl"))
    equal = list(whole) == list(broken) and all(torch.equal(whole[name], broken[name]) for name in whole)
    expected = {"dense.pkl", "squeezed.pkl", "whole.pkl", "whole.jsonl", "broken.pkl", "broken.jsonl"}
    left_over = sorted({path.name for path in folder.iterdir()} - expected)
    return Outcome(delivered, states, len(whole), equal, left_over)


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, seed: int) -> None:
    """Kill, resume, compare; exit code 1 where a bit differs."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = disturb(Path(folder), kills, seed)
    verdict = "equal bit by bit" if outcome.equal else "DIFFERENT"
    click.echo(
        f"{outcome.kills} kills, {outcome.states} of them with a state file behind; {outcome.tensors} tensors {verdict}"
    )
    click.echo(f"files left over: {', '.join(outcome.left_over) or 'none'}")
    sys.exit(0 if outcome.equal and not outcome.left_over else 1)
