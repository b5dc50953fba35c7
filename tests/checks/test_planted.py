"""Every planted regression is caught by the check that is there for it, which says where it is."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import torch

from squeeze_patch.adapters import locate
from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.config import CheckConfig, Recipe
from squeeze_patch.checks.recording import record
from squeeze_patch.checks.runner import check
from tests.helpers import FLAT_HOSTS, HOSTS
from tests.planting import make_dense, make_generators
from tests.plants import PLANTS, Plant

FAMILIES = {"nvidia": HOSTS["draggan"], "rosinality": FLAT_HOSTS["draggan-rosinality"]}
#: what another family does in its own way; the other plants are the same to a check in both
OWN_WAY = ("state", "names", "features", "channel_order", "second_derivatives", "average")
SLOW = bool(os.environ.get("SQUEEZE_SLOW"))
CASES = [
    (family, plant)
    for family in FAMILIES
    for plant in PLANTS
    if family in plant.families and (SLOW or family == "nvidia" or plant.check in OWN_WAY)
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Dict[Tuple[str, bool], Path]:
    """{(family, pair): baseline}, made when it is asked for."""
    folder = tmp_path_factory.mktemp("baselines")

    class Recorded(Dict[Tuple[str, bool], Path]):
        def __missing__(self, key: Tuple[str, bool]) -> Path:
            family, pair = key
            path = folder / f"{family}-{pair}.json"
            record(configured(family, path, pair))
            return self.setdefault(key, path)

    return Recorded()


def configured(family: str, baseline: Path, pair: bool = False, plant: Any = None) -> CheckConfig:
    host = FAMILIES[family]

    def factory() -> Any:
        made = make_generators(host, pair, **((plant.request if plant else None) or {}))
        if plant is not None:
            plant.plant(made)
        return made

    checks = {name: one.settings for name, one in BY_NAME.items() if one.on}
    if plant is not None and plant.settings is not True:
        checks[plant.check] = plant.settings
    return CheckConfig(
        path=baseline.with_name("squeeze.toml"),
        generator=Recipe(factory),
        dense=Recipe(functools.partial(make_dense, host)),
        baseline=baseline,
        pictures=baseline.with_name("pictures"),
        checks=checks,
    )


@pytest.mark.parametrize(("family", "plant"), CASES, ids=[f"{family}: {plant.name}" for family, plant in CASES])
def test_it_is_caught(family: str, plant: Plant, recorded: Dict[Tuple[str, bool], Path]) -> None:
    with FAMILIES[family].active():
        clean = make_generators(FAMILIES[family], plant.pair)
        place = plant.place(locate(next(reversed(list(clean.values())))))
        found = check(configured(family, recorded[family, plant.pair], plant.pair, plant), only=[plant.check])
    outcome = next((one for one in found.outcomes if one.state == "short"), found.outcomes[0])
    assert outcome.state == "short", outcome.message
    assert place in outcome.message
    assert found.exit_code == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pair", [False, True], ids=["alone", "with its average"])
def test_no_alarm(family: str, pair: bool, recorded: Dict[Tuple[str, bool], Path]) -> None:
    with FAMILIES[family].active():
        baseline = recorded[family, pair]
        found = check(configured(family, baseline, pair), skip=["latency"])
    assert [outcome.message for outcome in found.outcomes if outcome.state not in ("holds", "skipped")] == []
    assert found.count("holds") >= 16
    assert torch.is_grad_enabled()
