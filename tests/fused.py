"""Squeezed generators that are fused in tests, and what is compared of them."""

from __future__ import annotations

from typing import Any, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.demo.network import Generator
from squeeze_patch.testing import float_error, trained

RESOLUTION = 64
MODES = [(noise, psi) for noise in ("const", "none", "random") for psi in (1.0, 0.5)]


def squeezed_generator(host: Any = None, **request: Any) -> Any:
    """Large enough that folding pays in its last blocks; ``host=None``: the demo's networks."""
    request = request or {"ratio": 2}
    if host is None:
        sizes = {"channel_base": 1024, "channel_max": 32}
        G: Any = trained(Generator(32, 0, 32, RESOLUTION, 3, synthesis_kwargs=sizes))
    else:
        G = trained(host.generator(resolution=RESOLUTION, num_fp16_res=0))
    return squeeze_patch.apply(G.requires_grad_(False), init="weights", **request)


def inputs(G: Any, n: int = 2) -> Any:
    random = torch.Generator().manual_seed(5)
    return torch.randn([n, G.z_dim], generator=random), torch.zeros([n, G.c_dim])


def images(G: Any, n: int = 2, noise: str = "const", psi: float = 1.0) -> torch.Tensor:
    torch.manual_seed(7)  # of random noise
    with torch.no_grad():
        z, c = inputs(G, n)
        return G(z, c, noise_mode=noise, truncation_psi=psi)  # type: ignore[no-any-return]


def assert_same(found: torch.Tensor, expected: torch.Tensor, G: Any) -> None:
    assert (found - expected).abs().max() <= float_error(G, expected)


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> List[None]:
    """Grows by one entry with every call of a function."""
    calls: List[None] = []
    function = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls
