"""What tests of any generator need: parameters that look trained, and how far rounding may carry images."""

from __future__ import annotations

from typing import TypeVar

import torch

from squeeze_patch.adapters import locate

Module = TypeVar("Module", bound=torch.nn.Module)


def trained(G: Module, seed: int = 1) -> Module:
    """Move every parameter away from its start, so that biases, noise and styles matter; evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            strength = 0.3 if "bias" in name or "noise" in name else 0.1
            parameter.add_((torch.randn(parameter.shape, generator=random) * strength).to(parameter.device))
        for name, buffer in G.named_buffers():
            if name.endswith("w_avg"):
                buffer.copy_(torch.randn(buffer.shape, generator=random) * 0.1)
    return G.eval()


def float_error(G: torch.nn.Module, images: torch.Tensor) -> float:
    """Bound on what float32 rounding does to images when the order of operations changes.

    An output of a 3x3 convolution over c channels sums 9 c products, whose rounding errors (half an epsilon each)
    add up like a random walk; two convolutions per block follow one another; toRGB, upsampling and the mapping network
    add less than as much again. Four standard deviations, relative to the largest value.
    """
    specs = locate(G).specs
    blocks, terms = len(specs), 9 * max(spec.channels for spec in specs)
    walk = torch.finfo(torch.float32).eps / 2 * terms**0.5
    return 4 * walk * (2 * 2 * blocks) ** 0.5 * images.detach().abs().max().item()
