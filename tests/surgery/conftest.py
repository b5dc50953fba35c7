"""Squeezed generators: the demo's, and those of every host of the NVIDIA family that is at hand."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.fused import squeezed_generator
from tests.helpers import HOSTS


@pytest.fixture(params=["demo", *HOSTS])
def G(request: Any) -> Iterator[Any]:
    if request.param == "demo":
        yield squeezed_generator()
        return
    with HOSTS[request.param].active():
        yield squeezed_generator(HOSTS[request.param])


@pytest.fixture
def demo() -> Any:
    return squeezed_generator()
