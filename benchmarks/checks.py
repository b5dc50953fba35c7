"""squeeze-patch check on planted regressions, beside what a repository would use instead; false alarms; other torches.

    python -m benchmarks checks --out benchmarks/results/checks.json [--python FOLDER/bin/python]
    python -m benchmarks checks --out benchmarks/results/checks.json --reruns 200 [--workers 14] [--minutes 60]
    python -m benchmarks checks --out benchmarks/results/checks.json --other-torch FOLDER/bin/python

The first plants each regression of tests/plants.py, runs the checks on it, and torch.testing.assert_close,
pytest-regressions and syrupy on images of four latents and on the state dict. FOLDER is a virtual environment with
the latter two: `pip install pytest-regressions syrupy numpy`; those that are not there are left out, and that is said.

The second counts alarms of clean generators at 16x16, of either family in turn, while as many other processes as there
are cores keep them busy; workers check at once, each against baselines that it has recorded. The last has another
Python, with another torch and the package's dependencies, check examples/downstream_ci as it was recorded. Each keeps
in FILE what the others have found; reruns go on from there.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import click
import torch

from benchmarks.checks_reruns import others_checks, reruns
from benchmarks.checks_rivals import ASSERT_CLOSE, Case, arrays_of, assert_close, rivals
from squeeze_patch.checkpoints.io import atomic_write
from squeeze_patch.checks.outcome import CheckReport
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import check
from tests.planted import FAMILIES, configured, make_planted
from tests.plants import PLANTS, Plant

#: of the checks that a plant is not meant for: the clock's is left to its own plants, the other starts a process
SLOW = ("latency", "without_squeeze_patch")
#: numbers of latents that are enough for them
FEWER = {"finite": {"samples": 100, "styles": 1000}}


def plant_all(family: str, names: Sequence[str], folder: Path) -> List[Dict[str, Any]]:
    """Plant those of these names in a family's generators: what our checks and assert_close find, and files for the
    others. The first answers, named "", are of clean generators made anew."""
    torch.set_num_threads(1)
    found = []
    with FAMILIES[family].active():
        for pair in (False, True):
            chosen = [plant for plant in PLANTS if family in plant.families and plant.name in names]
            chosen = [plant for plant in chosen if plant.pair == pair]
            if chosen:
                baseline = folder / f"{family}-{pair}.json"
                record(configured(family, baseline, pair))
                before = arrays_of(make_planted(family, pair))
                found += [_answers(family, pair, baseline, before, plant) for plant in (None, *chosen)]
    return found


def _answers(family: str, pair: bool, baseline: Path, before: Any, plant: Any) -> Dict[str, Any]:
    case = Case(family, "" if plant is None else plant.name, pair)
    config = configured(family, baseline, pair, plant)
    click.echo(f"{case.name} ...", err=True)
    own = [] if plant is None else _alarms(check(config, only=[plant.check]))
    quick = replace(config, checks={**config.checks, **FEWER})
    skip = [*SLOW, *([plant.check] if plant is not None else [])]
    now = arrays_of(make_planted(family, pair, plant))
    case.write(baseline.parent, before, now)
    return {
        "plant": case.plant,
        "family": family,
        "pair": pair,
        "check": "" if plant is None else plant.check,
        "caught": bool(own),
        "others": _alarms(check(quick, skip=skip)),
        ASSERT_CLOSE: assert_close(before, now),
    }


def _alarms(found: CheckReport) -> List[str]:
    return sorted({outcome.check for outcome in found.outcomes if outcome.state == "short"})


def planted(python: str, names: Sequence[str], workers: int) -> Dict[str, Any]:
    """{"versions", "cases"}: answers of all, of every plant and family."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if workers > 1:
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                running = [pool.submit(plant_all, family, names, folder) for family in FAMILIES]
                cases = [case for each in running for case in each.result()]
        else:
            cases = [case for family in FAMILIES for case in plant_all(family, names, folder)]
        theirs = rivals(python, folder, [Case(case["family"], case["plant"], case["pair"]) for case in cases])
    for case in cases:
        for rival, found in theirs.items():
            case[rival] = found["answers"][Case(case["family"], case["plant"], case["pair"]).name]
    versions = {rival: found["version"] for rival, found in theirs.items()}
    return {"versions": {"torch": torch.__version__.split("+")[0], **versions}, "cases": cases}


def false_alarms(cases: Sequence[Dict[str, Any]], family: str, pair: bool) -> List[str]:
    """Checks that fall short of clean generators, which catch nothing."""
    return next(c["others"] for c in cases if not c["plant"] and c["family"] == family and c["pair"] == pair)


def caught_by_any(cases: Sequence[Dict[str, Any]], case: Dict[str, Any]) -> List[str]:
    """Checks that fall short of the plant and not of clean generators."""
    own = [case["check"]] if case["caught"] else []
    return [name for name in [*own, *case["others"]] if name not in false_alarms(cases, case["family"], case["pair"])]


def table(found: Dict[str, Any]) -> List[str]:
    """A row a plant; nvidia's answer / rosinality's."""
    cases, theirs = found["cases"], [ASSERT_CLOSE, *(name for name in found["versions"] if name != "torch")]
    lines = [f"| planted | check | caught | checks in all | {' | '.join(theirs)} |", "|---" * (4 + len(theirs)) + "|"]
    for plant in PLANTS:
        rows = [
            case for family in FAMILIES for case in cases if (case["plant"], case["family"]) == (plant.name, family)
        ]
        if rows:
            own = " / ".join(_said(row["check"] in caught_by_any(cases, row)) for row in rows)
            count = " / ".join(str(len(caught_by_any(cases, row))) for row in rows)
            cells = [" / ".join(_said(bool(row[name])) for row in rows) for name in theirs]
            lines.append(f"| {' | '.join([_label(plant), f'`{plant.check}`', own, count, *cells])} |")
    real = [case for case in cases if case["plant"]]
    own_total = sum(case["check"] in caught_by_any(cases, case) for case in real)
    any_total = sum(bool(caught_by_any(cases, case)) for case in real)
    totals = [sum(bool(case[name]) for case in real) for name in theirs]
    lines.append(f"| caught, of {len(real)} | | {own_total} | {any_total} | {' | '.join(map(str, totals))} |")
    clean = [case for case in cases if not case["plant"]]
    quiet = [sum(bool(case[name]) for case in clean) for name in theirs]
    loud = sum(bool(case["others"]) for case in clean)
    lines.append(f"| alarms, of {len(clean)} clean ones | | | {loud} | {' | '.join(map(str, quiet))} |")
    return lines


def _label(plant: Plant) -> str:
    return plant.name + ("" if len(plant.families) > 1 else f" ({plant.families[0]})")


def _said(caught: bool) -> str:
    return "yes" if caught else "no"


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File for all answers.")
@click.option("--python", default=sys.executable, help="Of the environment with the rivals.")
@click.option("--plants", default="", help="Names of those to plant, with | between them; default: all.")
@click.option("--workers", type=int, help="Processes at once; default: 2, a family each, and 1 with --reruns.")
@click.option("--reruns", "wanted", type=int, help="Instead: so many clean runs in all.")
@click.option("--minutes", default=600.0, help="After so long no rerun is at work any more.")
@click.option("--other-torch", help="Instead: a Python whose torch is to check what is recorded.")
def main(
    out: Path, python: str, plants: str, workers: Optional[int], wanted: Any, minutes: float, other_torch: Any
) -> None:
    results: Dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}

    def keep() -> None:
        with atomic_write(out) as stream:
            stream.write((json.dumps(results, indent=1) + "\n").encode())

    if wanted is not None:
        runs = results.setdefault("reruns", {"runs": []})["runs"]
        with contextlib.closing(reruns(wanted - len(runs), minutes, len(runs), workers or 1)) as ended:
            for run in ended:
                runs.append(run)
                keep()
        alarms = [name for run in runs for name in run["alarms"]]
        longest = max((run["seconds"] for run in runs), default=0)
        click.echo(f"{len(runs)} clean runs, {len(alarms)} alarms, {longest:.0f} s at most; {sorted(set(alarms))}")
    elif other_torch:
        found = others_checks(other_torch)
        results.setdefault("other_torch", {})[found["torch"]] = found
        keep()
        states = list(found["states"].values())
        click.echo(f"torch {found['torch']}: {states.count('holds')} hold, {states.count('skipped')} skipped")
        click.echo("\n".join(found["alarms"] or ["no alarm"]))
    else:
        names = plants.split("|") if plants else [plant.name for plant in PLANTS]
        results["planted"] = planted(python, names, workers or 2)
        keep()
        click.echo("\n".join(table(results["planted"])))


if __name__ == "__main__":
    main()
