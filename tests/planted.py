"""Configurations of checks on planted generators, and on clean ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from squeeze_patch.checks.catalogue import BY_NAME
from squeeze_patch.checks.config import CheckConfig, Recipe
from tests.helpers import FLAT_HOSTS, HOSTS
from tests.planting import Generators, make_dense, make_generators
from tests.plants import PLANTS

FAMILIES = {"nvidia": HOSTS["draggan"], "rosinality": FLAT_HOSTS["draggan-rosinality"]}
CASES = [(family, plant) for family in FAMILIES for plant in PLANTS if family in plant.families]


def make_planted(family: str, pair: bool = False, plant: Any = None) -> Generators:
    """The generators of a repository, those of a plant with it in them, made anew at every call."""
    made = make_generators(FAMILIES[family], pair, **((plant.request if plant else None) or {}))
    if plant is not None:
        plant.plant(made)
    return made


def configured(family: str, baseline: Path, pair: bool = False, plant: Any = None) -> CheckConfig:
    """All checks that are on, with the plant's settings of its own check."""
    checks = {name: one.settings for name, one in BY_NAME.items() if one.on}
    if plant is not None and plant.settings is not True:
        checks[plant.check] = plant.settings
    return CheckConfig(
        path=baseline.with_name("squeeze.toml"),
        generator=Recipe(functools.partial(make_planted, family, pair, plant)),
        dense=Recipe(functools.partial(make_dense, FAMILIES[family])),
        baseline=baseline,
        pictures=baseline.with_name("pictures"),
        checks=checks,
    )
