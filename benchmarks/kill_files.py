"""Is a file ever half? Kills a conversion, or a download, at random moments, and looks at what is there.

    python -m benchmarks kill_files [--job convert|download] [--kills 100] [--seed 0]

convert: SIGKILL at a moment between the start and the end of an undisturbed run, half of them in its second half.
Behind each, the target is the old file or the new one, tensor for tensor (pickled tensors have addresses in memory as
names, so that no two files are equal byte for byte). download: the same of the cache, which has no file or the whole
one; the next run goes on with what is there. At the end one undisturbed run, after which nothing else is left.
"""

from __future__ import annotations

import functools
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Set

import click
import numpy as np

from benchmarks.kill import write_pair
from squeeze_patch.checkpoints.io import read
from squeeze_patch.checkpoints.verification import difference
from squeeze_patch.errors import CheckpointError
from tests.servers import Asked, file, file_server

#: bytes of an entry that is carried over, so that writing takes a while
BALLAST = 60_000_000
OLD = b"old"


@dataclass(frozen=True)
class FileOutcome:
    """``kills`` delivered; {what was there behind them: how often}; names that should not be there at the end."""

    kills: int
    seen: Mapping[str, int]
    left_over: List[str]

    @property
    def sound(self) -> bool:
        return "half" not in self.seen and not self.left_over


def convert_job(folder: Path, kills: int, seed: int) -> FileOutcome:
    """Kill conversions that replace a file."""
    write_pair(folder)
    data = pickle.loads((folder / "dense.pkl").read_bytes())
    data["ballast"] = np.random.default_rng(seed).integers(0, 255, BALLAST, dtype=np.uint8)
    (folder / "dense.pkl").write_bytes(pickle.dumps(data, protocol=4))
    target = folder / "out.pkl"
    options = ["--trust", "--force", "--init", "weights", "--no-verify", "--quiet"]
    command = [sys.executable, "-m", "squeeze_patch", "convert", str(folder / "dense.pkl"), str(target), *options]
    longest = _seconds(command)
    new = read(target, trust=True)
    seen: Counter[str] = Counter()
    target.write_bytes(OLD)
    dice, delivered = random.Random(seed), 0
    for index in range(kills):
        late = index % 2  # reading, converting and writing come behind the imports
        delivered += _killed(command, dice.uniform(0.5 * longest if late else 0, longest), dict(os.environ))
        found = _what(target, new)
        seen[found] += 1
        if found == "new":
            target.write_bytes(OLD)
    subprocess.run(command, check=True, capture_output=True)
    seen["half"] += _what(target, new) != "new"
    return FileOutcome(delivered, +seen, _left(folder, {"dense.pkl", "squeezed.pkl", "out.pkl"}))


def _what(target: Path, new: Any) -> str:
    if target.read_bytes() == OLD:
        return "old"
    try:
        return "half" if difference(new, read(target, trust=True)) else "new"
    except CheckpointError:
        return "half"


def download_job(folder: Path, kills: int, seed: int) -> FileOutcome:
    """Kill downloads of one file, which the server sends within two seconds."""
    content = pickle.dumps(np.random.default_rng(seed).integers(0, 255, BALLAST, dtype=np.uint8), protocol=4)
    environment = {**os.environ, "SQUEEZE_CACHE": str(folder / "cache"), "NO_PROXY": "127.0.0.1"}
    seen: Counter[str] = Counter()
    dice, delivered = random.Random(seed), 0
    with file_server() as server:
        address = server.says("/network.pkl", functools.partial(_slowly, content))
        command = [sys.executable, "-m", "squeeze_patch", "info", address]
        longest = _seconds(command, environment)
        for index in range(kills):
            if index % 3 == 0:  # else it goes on with what the last one left
                _clear(folder / "cache")
            delivered += _killed(command, dice.uniform(0.3 * longest, longest), environment)
            whole = [
                path
                for path in (folder / "cache").glob("*_network.pkl")
                if path.with_name(f"{path.name}.json").exists()
            ]
            seen["none" if not whole else "whole" if whole[0].read_bytes() == content else "half"] += 1
        _seconds(command, environment)
        whole = list((folder / "cache").glob("*_network.pkl"))
        seen["half"] += [path.read_bytes() for path in whole] != [content]
    names = {whole[0].name, f"{whole[0].name}.json", "locks"} if whole else set()
    return FileOutcome(delivered, +seen, _left(folder / "cache", names))


def _slowly(content: bytes, asked: Asked) -> None:
    """A good server that takes its time."""
    send = asked.wfile.write

    def in_pieces(data: bytes) -> int:
        for start in range(0, len(data), BALLAST // 40):
            send(data[start : start + BALLAST // 40])
            time.sleep(0.05)
        return len(data)

    asked.wfile.write = in_pieces  # type: ignore[assignment,method-assign]
    file(content)(asked)


def _seconds(command: List[str], environment: Mapping[str, str] = os.environ) -> float:
    """Of an undisturbed run."""
    start = time.monotonic()
    subprocess.run(command, env=dict(environment), check=False, capture_output=True)
    return time.monotonic() - start


def _killed(command: List[str], delay: float, environment: Dict[str, str]) -> bool:
    """Start, wait, kill; False = it had ended before."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(delay)
        process.kill()
        process.communicate()
    return process.returncode == -9


def _clear(folder: Path) -> None:
    for path in folder.glob("*"):
        if path.is_file():
            path.unlink()


def _left(folder: Path, expected: Set[str]) -> List[str]:
    return sorted({path.name for path in folder.iterdir()} - expected)


JOBS = {"convert": convert_job, "download": download_job}


@click.command()
@click.option("--job", type=click.Choice(list(JOBS)), default="convert", show_default=True)
@click.option("--kills", default=100, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(job: str, kills: int, seed: int) -> None:
    """Kill, look, compare; exit code 1 where a file was half, or something is left over."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = JOBS[job](Path(folder), kills, seed)
    seen = ", ".join(f"{count} times {what}" for what, count in sorted(outcome.seen.items()))
    click.echo(f"{job}: {outcome.kills} kills; the file was {seen}")
    click.echo(f"files left over: {', '.join(outcome.left_over) or 'none'}")
    sys.exit(0 if outcome.sound else 1)
