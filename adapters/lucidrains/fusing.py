"""Fused inference of the lucidrains family: a switch on each squeezed block, which travels with copies."""

from __future__ import annotations

from typing import Any

from squeeze_patch.adapters.roles import Fusing


class LucidrainsFusing(Fusing):
    """The role of fused inference; ``network`` is the Generator."""

    def fused(self, network: Any, name: str) -> bool:
        return bool(network.get_submodule(name).fused)

    def defers(self, network: Any, name: str) -> bool:
        return bool(network.get_submodule(name).defers)

    def set_fused(self, network: Any, name: str, fused: bool, defers: bool) -> None:
        block = network.get_submodule(name)
        for switch, on in (("fused", fused), ("defers", defers)):
            vars(block).pop(switch, None)
            if on:
                setattr(block, switch, on)
