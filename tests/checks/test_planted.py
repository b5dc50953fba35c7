"""Every planted regression is caught by the check that is there for it, which says where it is."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Dict, Tuple

import pytest
import torch

from squeeze_patch.adapters import locate
from squeeze_patch.checks import cost_checks
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import check
from tests.planted import CASES, FAMILIES, configured
from tests.planting import make_generators, slower
from tests.plants import Plant

#: what another family does in its own way; the other plants are the same to a check in both
OWN_WAY = ("state", "names", "features", "channel_order", "second_derivatives", "average")
SLOW = bool(os.environ.get("SQUEEZE_SLOW"))
#: sees a busy machine, too
BY_THE_WALL_CLOCK = "a path that waits"
#: three tenths more take hundreds of pairs of calls on a busy machine, twice the time a few
TWICE = {"a slower path": functools.partial(slower, share=1.0)}


def _quickest(plant: Plant) -> str:
    """Family; torch.compile breaks NVIDIA's operations into dozens of graphs, and makes rosinality's one."""
    return "rosinality" if plant.check == "compile" else "nvidia"


RUN = [
    (family, plant if SLOW else replace(plant, plant=TWICE.get(plant.name, plant.plant)))
    for family, plant in CASES
    if SLOW or plant.check in OWN_WAY or (family == _quickest(plant) and plant.name != BY_THE_WALL_CLOCK)
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Dict[Tuple[str, bool], Path]:
    """{(family, pair): baseline}, made when it is asked for."""
    folder = tmp_path_factory.mktemp("baselines")

    class Recorded(Dict[Tuple[str, bool], Path]):
        def __missing__(self, key: Tuple[str, bool]) -> Path:
            family, pair = key
            path = folder / f"{family}-{pair}.json"
            with pytest.MonkeyPatch.context() as patched:
                if not SLOW:  # of what is recorded, only a path of twice the time is held against times
                    patched.setattr(cost_checks, "RECORDED_PAIRS", 10)
                record(configured(family, path, pair))
            return self.setdefault(key, path)

    return Recorded()


@pytest.mark.parametrize(("family", "plant"), RUN, ids=[f"{family}: {plant.name}" for family, plant in RUN])
def test_it_is_caught(family: str, plant: Plant, recorded: Dict[Tuple[str, bool], Path]) -> None:
    if plant.check == "compile" and not hasattr(torch, "compiler"):
        pytest.skip("torch says whether it compiles from 2.1 on")
    with FAMILIES[family].active():
        clean = make_generators(FAMILIES[family], plant.pair)
        place = plant.place(locate(next(reversed(list(clean.values())))))
        found = check(configured(family, recorded[family, plant.pair], plant.pair, plant), only=[plant.check])
    outcome = next((one for one in found.outcomes if one.state == "short"), found.outcomes[0])
    assert outcome.state == "short", outcome.message
    assert place in outcome.message
    assert found.exit_code == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "pair", [False, True] if SLOW else [True], ids=(["alone"] if SLOW else []) + ["with its average"]
)
def test_no_alarm(family: str, pair: bool, recorded: Dict[Tuple[str, bool], Path]) -> None:
    with FAMILIES[family].active():
        baseline = recorded[family, pair]
        found = check(configured(family, baseline, pair), skip=["latency"])
    assert [outcome.message for outcome in found.outcomes if outcome.state not in ("holds", "skipped")] == []
    assert found.count("holds") >= 16
    assert torch.is_grad_enabled()
