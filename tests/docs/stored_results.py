"""The results that benchmarks and studies have left in the repository."""

from __future__ import annotations

import json
from typing import Any, Dict

from tests.docs.pages import ROOT


def results(name: str) -> Dict[str, Any]:
    (file,) = (file for folder in ("benchmarks", "experiments") for file in (ROOT / folder).rglob(name))
    data: Dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data
