"""Scanners of pickles on the tests' hostile files, and on harmless ones: what each of them says.

    python -m benchmarks scanners --python FOLDER/bin/python [--out benchmarks/results/scanners.json]

FOLDER is a virtual environment of its own with the rivals in it: `pip install picklescan modelscan fickling
typing_extensions`. Those that are not there are left out, and that is said. Nothing is loaded but by
torch.load(weights_only=True), in this environment. --files FOLDER takes files that others have collected instead:
hostile ones, but for those whose names --harmless tells.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import click
import torch

import squeeze_patch
from benchmarks.common import find
from squeeze_patch.checkpoints.io import atomic_write
from squeeze_patch.checkpoints.scanning_findings import RUNS_CODE
from squeeze_patch.testing import trained
from tests.corpus import more_payloads, payloads
from tests.helpers import FLAT_HOSTS, Snapshot, write_checkpoint

#: what a scanner can say: it is dangerous; it may be; nothing was found; it could not be read, or a part of it
DANGEROUS, SUSPICIOUS, NOTHING, UNREADABLE = "dangerous", "suspicious", "nothing", "unreadable"
RIVALS = ("picklescan", "modelscan", "fickling")
#: run by the rivals' Python: names of files on stdin, answers as JSON in the last line
WORKER = """
import importlib.metadata, json, logging, sys, zipfile
logging.disable(logging.CRITICAL)
name, files = sys.argv[1], json.load(sys.stdin)

def picklescan(path):
    from picklescan.scanner import scan_file_path
    found = scan_file_path(path)
    if found.issues_count:
        return "dangerous"
    return "unreadable" if found.scan_err else "suspicious" if found.suspicious_count else "nothing"

def modelscan(path):
    from modelscan.modelscan import ModelScan
    found = ModelScan().scan(path)
    levels = found["summary"]["total_issues_by_severity"]
    if levels["CRITICAL"] or levels["HIGH"]:
        return "dangerous"
    if any(levels.values()):
        return "suspicious"
    return "unreadable" if found["errors"] or not found["summary"]["scanned"]["total_scanned"] else "nothing"

def fickling(path):
    from fickling.analysis import Severity
    from fickling.loader import scan_file, scan_zip_archive
    found = [scan_file(path, graceful=True)]
    if zipfile.is_zipfile(path):
        found = [*scan_zip_archive(path, graceful=True).values(), *(each for each in found if each.results)]
    worst = max((each.severity for each in found if each.results), default=Severity.LIKELY_SAFE)
    if worst >= Severity.LIKELY_UNSAFE:
        return "dangerous"
    if not found or any(each.errors for each in found):
        return "unreadable"
    return "suspicious" if worst > Severity.LIKELY_SAFE else "nothing"

answers = {}
for path in files:
    try:
        answers[path] = globals()[name](path)
    except Exception as error:
        answers[path] = "unreadable"
print(json.dumps({"version": importlib.metadata.version(name), "answers": answers}))
"""


def write_files(folder: Path) -> Dict[str, Path]:
    """{what it is: file}, hostile ones under "hostile: ...", others under "harmless: ..."."""
    mark = str(folder / "sprung")
    files: Dict[str, Path] = {}
    for index, (name, data) in enumerate({**payloads(mark), **more_payloads(mark)}.items()):
        files[f"hostile: {name}"] = folder / f"{index:03}.{_ending(data)}"
        files[f"hostile: {name}"].write_bytes(data)
    return {**files, **_harmless(folder)}


def collected(folder: Path, harmless: str) -> Dict[str, Path]:
    """The same of a folder of files; ``harmless``: patterns of names, with commas between them."""
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    good = {path for path in names if any(path.match(pattern) for pattern in filter(None, harmless.split(",")))}
    return {f"{'harmless' if path in good else 'hostile'}: {path.name}": path for path in names}


def _ending(data: bytes) -> str:
    """The ending that such files have: some scanners go by it."""
    return "pt" if data.startswith(b"PK") else "npy" if data.startswith(b"\x93NUMPY") else "pkl"


def _harmless(folder: Path) -> Dict[str, Path]:
    host, flat = find("draggan"), FLAT_HOSTS["draggan-rosinality"]
    with host.active():
        write_checkpoint(host, folder / "snapshot.pkl")
        squeeze_patch.convert(folder / "snapshot.pkl", folder / "squeezed.pkl", init="weights")
        (folder / "generator.pkl").write_bytes(pickle.dumps(trained(host.generator()), protocol=2))
    with flat.active():
        Snapshot(flat, folder / "rosinality.pt")
        torch.save(trained(flat.generator(resolution=8)).state_dict(), folder / "states.pt")
        old = {"g_ema": trained(flat.generator(resolution=8)).state_dict()}
        torch.save(old, folder / "older.pt", _use_new_zipfile_serialization=False)
    names = ("snapshot.pkl", "squeezed.pkl", "generator.pkl", "rosinality.pt", "states.pt", "older.pt")
    return {f"harmless: {name}": folder / name for name in names}


def ours(path: Path) -> str:
    found = squeeze_patch.scan(path)
    if found.of_level(RUNS_CODE):
        return DANGEROUS
    return SUSPICIOUS if found.unusual else NOTHING if found.complete else UNREADABLE


def restricted_load(path: Path) -> str:
    """A refusal is all that it can say, of whatever file."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return DANGEROUS
    return NOTHING


def rival(python: str, name: str, files: Dict[str, Path]) -> Dict[str, Any]:
    """{"version", "answers"}; empty where it is not installed."""
    paths = {what: str(path) for what, path in files.items()}
    command = [python, "-W", "ignore", "-c", WORKER, name]
    done = subprocess.run(command, input=json.dumps(list(paths.values())), capture_output=True, text=True, check=False)
    if done.returncode:
        click.echo(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
        return {}
    found = json.loads(done.stdout.splitlines()[-1])
    return {"version": found["version"], "answers": {what: found["answers"][path] for what, path in paths.items()}}


def table(results: Dict[str, Any]) -> List[str]:
    lines = [
        "| scanner | hostile: dangerous | suspicious | nothing found | unreadable | harmless: anything but nothing |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, found in results.items():
        hostile = Counter(answer for what, answer in found["answers"].items() if what.startswith("hostile"))
        harmless = [answer for what, answer in found["answers"].items() if what.startswith("harmless")]
        cells = [str(hostile[answer]) for answer in (DANGEROUS, SUSPICIOUS, NOTHING, UNREADABLE)]
        wrong = f"{sum(answer != NOTHING for answer in harmless)} of {len(harmless)}"
        label = f"{name} {found['version']}".strip()
        lines.append(f"| {' | '.join([label, *cells, wrong])} |")
    return lines


@click.command(help=__doc__)
@click.option("--python", default=sys.executable, help="Of the environment with the rivals.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for all answers, as JSON.")
@click.option("--files", "given", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Others' files.")
@click.option("--harmless", default="", help="Patterns of names of the harmless ones among these.")
def main(python: str, out: Any, given: Any, harmless: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder) if given is None else collected(given, harmless)
        results: Dict[str, Any] = {
            "squeeze-patch scan": {"version": "", "answers": {what: ours(path) for what, path in files.items()}},
        }
        for scanner in RIVALS:
            found = rival(python, scanner, files)
            if found:
                results[scanner] = found
        restricted = {what: restricted_load(path) for what, path in files.items()}
        results["torch.load(weights_only=True)"] = {"version": torch.__version__.split("+")[0], "answers": restricted}
        assert not (folder / "sprung").exists()
    click.echo("\n".join(table(results)))
    if out is not None:
        with atomic_write(out) as stream:
            stream.write((json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
