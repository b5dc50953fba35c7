"""Fused inference of the NVIDIA family: a switch on each squeezed block, which travels with copies and in pickles."""

from __future__ import annotations

from typing import Any

from squeeze_patch.adapters.roles import Fusing


class NvidiaFusing(Fusing):
    """The role of fused inference."""

    def fused(self, network: Any, name: str) -> bool:
        return bool(getattr(getattr(network, name), "fused", False))

    def defers(self, network: Any, name: str) -> bool:
        return bool(getattr(getattr(network, name), "defers", False))

    def set_fused(self, network: Any, name: str, fused: bool, defers: bool) -> None:
        block = getattr(network, name)
        block.fused, block.defers = fused, defers
