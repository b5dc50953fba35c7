"""What tests of fused generators of the flat families need."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution
from squeeze_patch.adapters import locate
from squeeze_patch.testing import trained
from tests.hosts import Host

RESOLUTION = 32
NOISES = ("const", "none", "random")
#: relative to the largest pixel, as fuse promises
PROMISED = 1e-5
SIZES = {"channel_base": 512, "channel_max": 16}


def squeezed_generator(host: Host, init: str = "random", **request: Any) -> Any:
    """Folding pays from 4x4 inputs on in networks this narrow. What random starts leave at zero is made up."""
    G = trained(host.generator(resolution=RESOLUTION, **SIZES)).eval().requires_grad_(False)
    G = squeeze_patch.apply(G, init=init, **(request or {"ratio": 2}))
    random = torch.Generator().manual_seed(3)
    for name, parameter in G.named_parameters():
        if ("excite" in name and name.endswith("bias")) or "rgb_bias" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        elif not parameter.any():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return G


def images(host: Any, G: Any, n: int = 2, noise: str = "const", psi: float = 1.0) -> torch.Tensor:
    torch.manual_seed(7)  # of random noise
    with torch.no_grad():
        return host.images(G, *host.latents(G, n), noise, psi)  # type: ignore[no-any-return]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= PROMISED * expected.abs().max()


def network(G: Any) -> Any:
    return locate(G).network


def reader(G: Any, block: int = 1) -> Any:
    """What excite's features of a block go to, which folds it where it is fused."""
    found = locate(G)
    name = found.specs[block].name
    if found.adapter.name == "lucidrains":
        return found.get_block(found.specs[block + 1].name)
    convs, _, index = name.rpartition(".")
    return found.network.get_submodule(f"{convs}.{int(index) + 1}")


def second(G: Any, block: int = 1) -> torch.nn.Module:
    """The narrowed convolution of a block."""
    found = locate(G)
    layer: Any = found.get_block(found.specs[block].name)
    return layer.conv2 if found.adapter.name == "lucidrains" else layer.conv1  # type: ignore[no-any-return]


def traces(G: torch.nn.Module) -> Dict[str, Any]:
    """Of every module: its class, its attributes, its hooks."""
    return {
        name: (type(module), {k: v if isinstance(v, (bool, str)) else id(v) for k, v in vars(module).items()},
               list(module._forward_pre_hooks.items()), list(module._forward_hooks.items()))
        for name, module in G.named_modules()
    }  # fmt: skip


def folds_of(monkeypatch: pytest.MonkeyPatch) -> List[None]:
    """Grows by one entry wherever excite is folded."""
    calls: List[None] = []
    folded = fused_convolution._folded

    def counted(*args: Any) -> Any:
        calls.append(None)
        return folded(*args)

    monkeypatch.setattr(fused_convolution, "_folded", counted)
    return calls
