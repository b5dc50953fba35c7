"""The dense generator of the NVIDIA family, its layers computed by the kernels of fused squeezed ones.

What a fused squeezed generator gains over the dense one has two causes: the connection needs fewer multiply-adds, and
its convolutions are computed in other ways. This generator has the second without the first.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from squeeze_patch.adapters import locate
from squeeze_patch.adapters.nvidia.block import squeeze_block


def with_same_kernels(dense: Any) -> Any:
    """A copy of a dense generator with blocks of as many channels, fused, which have nothing in excite's place."""
    G = copy.deepcopy(dense)
    found = locate(G)
    for spec in found.specs:
        block: Any = found.get_block(spec.name)
        new = squeeze_block(block, spec.channels)
        new.conv1, new.torgb = block.conv1, block.torgb
        if not spec.is_last:
            new.excite = torch.nn.Identity()
        new.eval().requires_grad_(False)
        found.set_block(spec.name, new)
        found.fusing.set_fused(found.network, spec.name, True, False)
    return G
