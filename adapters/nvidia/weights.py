"""A host's layers in effective values, with every run-time gain multiplied in, and back."""

from __future__ import annotations

from typing import Any, Optional

import torch

from squeeze_patch.adapters.content import Affine, ConvWeights
from squeeze_patch.adapters.layers import all_tensors, as_large_as, value, write_tensors
from squeeze_patch.errors import UnsupportedModelError

_SLOPES = {"lrelu": 0.2, "relu": 0.0, "linear": 1.0}


def affine_of(layer: Any) -> Affine:
    return Affine(value(layer.weight) * layer.weight_gain, value(layer.bias) * layer.bias_gain)


def write_affine(layer: Any, style: Affine, gain: float) -> None:
    layer.weight.copy_(style.weight / (layer.weight_gain * gain))
    layer.bias.copy_(style.bias / (layer.bias_gain * gain))


def load_conv(
    new: Any,
    dense: Any,
    refitted: Optional[ConvWeights],
    outputs: Optional[torch.Tensor],
    inputs: Optional[torch.Tensor],
) -> None:
    """Write what is kept of a dense convolution, or what was fitted in its place, into a smaller one."""
    state = all_tensors(dense)
    cut = {"weight": (outputs, inputs), "bias": (outputs,), "affine.weight": (inputs,), "affine.bias": (inputs,)}
    for name, indices in cut.items():
        for dim, index in enumerate(indices):
            if index is not None:
                state[name] = state[name].index_select(dim, index.to(state[name].device))
    if refitted is not None:
        state.update(weight=as_large_as(refitted.weight, state["weight"]), bias=refitted.bias)
        if "noise_strength" in state:
            state["noise_strength"] = torch.tensor(refitted.noise_strength)
    write_tensors(new, state)


def check_filter(layer: Any, where: str) -> None:
    shape = tuple(layer.resample_filter.shape)
    if shape != (4, 4):
        raise UnsupportedModelError(
            f"{where} upsamples with a filter of shape {list(shape)}; a trained start knows filters of 4 x 4 taps. "
            "Use init='random' and train"
        )


def conv_of(layer: Any, where: str) -> ConvWeights:
    if layer.activation not in _SLOPES:
        raise UnsupportedModelError(
            f"{where} has activation '{layer.activation}'; a trained start knows {', '.join(_SLOPES)}. "
            "Use init='random' and train"
        )
    return ConvWeights(
        weight=value(layer.weight),
        style=affine_of(layer.affine),
        bias=value(layer.bias),
        noise_strength=layer.noise_strength.detach().item() if layer.use_noise else 0.0,
        slope=_SLOPES[layer.activation],
        gain=float(layer.act_gain),
    )
