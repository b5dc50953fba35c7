"""Which families' scripts are known: the built-in ones, and those of adapters that play the role of scripts."""

from __future__ import annotations

from typing import List

from squeeze_patch.adapters import adapters
from squeeze_patch.adapters.roles import Scripts
from squeeze_patch.training.lucidrains import LucidrainsScripts
from squeeze_patch.training.nvidia import NvidiaScripts
from squeeze_patch.training.rosinality import RosinalityScripts

_BUILT_IN: List[Scripts] = [NvidiaScripts(), RosinalityScripts(), LucidrainsScripts()]


def families() -> List[Scripts]:
    return [*_BUILT_IN, *(adapter.scripts for adapter in adapters() if adapter.scripts is not None)]
