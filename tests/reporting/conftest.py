"""A page with one of everything."""

from __future__ import annotations

from typing import Dict, List

import numpy as np
import pytest
from numpy.typing import NDArray

from squeeze_patch.reporting.page import Curve, Pictures, Row, Section, Table

#: what would run, load, close or hide something where it is taken for HTML
HOSTILE = "\"'><script>alert(1)</script><img src=//example.com onerror=alert(2)>&amp;</td></svg>\x00\u202e\udc80"


@pytest.fixture(scope="session")
def layers() -> Dict[str, NDArray[np.uint8]]:
    """Of three generators on three latents, 16x16, noise."""
    random = np.random.default_rng(0)
    names = ("dense", "squeezed", "a baseline with quite a long name")
    return {name: random.integers(0, 256, [3, 16, 16, 3], dtype=np.uint8) for name in names}


@pytest.fixture(scope="session")
def sections(layers: Dict[str, NDArray[np.uint8]]) -> List[Section]:
    states = ("holds", "short", "unknown", "skipped")
    long = "a_module_of_someone." * 12
    points = [(4, 3.0), (8, 6.5), (16, 9.0)]
    return [
        Table("Checks", [Row(f"check {state}", "0.123", "a detail\nof two lines", state) for state in states]),
        Table("Long", [Row(long, long, long, "short")]),
        Table(
            "Of many columns", [[f"{row}", *map(str, range(11))] for row in "ab"], [f"column {n}" for n in range(12)]
        ),
        Curve("Features", "resolution", "distance, %", {"A to B": points, "A to C": points[:1]}, log_x=True),
        Curve("Loss", "step", "loss", {str(n): [(s, n / (1 + s)) for s in range(40)] for n in range(1, 8)}, log_y=True),
        Pictures("Images", layers, "A note."),
        Pictures("Alone", {"dense": layers["dense"]}),
    ]
