"""squeeze_patch's contract suite on lumen."""

from __future__ import annotations

from typing import Any

import torch
from lumen import Lumen

from squeeze_patch.testing import AdapterContract


class TestLumen(AdapterContract):
    family = "lumen"

    def make_generator(self) -> Lumen:
        return Lumen()

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return G(z)
