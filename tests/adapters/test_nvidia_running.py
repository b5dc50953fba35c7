"""How generators of the NVIDIA family are called."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

from squeeze_patch.adapters import locate
from tests.hosts import Host


@pytest.mark.parametrize(("blocks", "expected"), [(2, {"force_fp32": True}), (0, {})])
def test_on_a_cpu_in_float32(
    blocks: int, expected: Dict[str, Any], draggan: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that follow stylegan3, as draggan, would compute in it by themselves; stylegan2-ada-pytorch would not, and
    hosts without float16 do not know the argument."""
    G = draggan.generator(num_fp16_res=blocks)
    forward = G.synthesis.forward
    seen: List[Dict[str, Any]] = []

    def watched(ws: torch.Tensor, **options: Any) -> Any:
        seen.append({name: value for name, value in options.items() if name == "force_fp32"})
        return forward(ws, **options)

    monkeypatch.setattr(G.synthesis, "forward", watched)
    source = locate(G).sampler()
    images = source.images(torch.zeros(2, source.z_dim), torch.zeros(2, 0), "const", 0.7)
    assert images.dtype == torch.float32
    assert seen == [expected]
