"""Trained numbers of flat generators' layers: as the method wants them, gains included, and back as hosts have them."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional

import torch

from squeeze_patch.adapters.content import Affine, ConvWeights
from squeeze_patch.adapters.layers import all_tensors, as_large_as, value, write_tensors
from squeeze_patch.adapters.rosinality.layers import conv_places, kept_places
from squeeze_patch.adapters.rosinality.layout import Layout, filter_of, get
from squeeze_patch.errors import UnsupportedModelError

_FIR = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64


def scale_of(layer: Any) -> float:
    """The gain that a layer's weight gets at run time; gfpgan's layers have none."""
    return float(getattr(layer, "scale", 1.0))


def read_affine(layer: Any) -> Affine:
    return Affine(value(layer.weight) * scale_of(layer), value(layer.bias) * float(getattr(layer, "lr_mul", 1.0)))


def write_affine(layer: Any, style: Affine, gain: float) -> None:
    layer.weight.copy_(style.weight / (scale_of(layer) * gain))
    layer.bias.copy_(style.bias / (float(getattr(layer, "lr_mul", 1.0)) * gain))


def read_conv(layer: Any, layout: Layout, where: str) -> ConvWeights:
    modulated = getattr(layer, layout.modulated)
    slope = getattr(layer.activate, "negative_slope", None)
    if not getattr(modulated, "demodulate", True) or slope is None:
        what = f"activation {type(layer.activate).__name__}" if slope is None else "no demodulation"
        raise UnsupportedModelError(
            f"{where} has {what}; a trained start knows demodulated layers with leaky ReLU. Use init='random' and train"
        )
    weight, early = value(modulated.weight)[0] * scale_of(modulated), _early_gain(layer, layout)
    bias, strength = value(get(layer, layout.bias)).flatten(), get(layer, layout.noise).detach().item()
    style = read_affine(modulated.modulation)
    return ConvWeights(
        _turned(weight, layer, layout), style, bias / early, strength / early, float(slope), _gain(layer)
    )


def load_conv(
    new: Any,
    dense: Any,
    layout: Layout,
    refitted: Optional[ConvWeights],
    outputs: Optional[torch.Tensor],
    inputs: Optional[torch.Tensor],
) -> None:
    """Write what is kept of a dense convolution, or what was fitted in its place, into a smaller one."""
    state = all_tensors(dense)
    for name, dims in kept_places(conv_places(dense, layout), outputs=outputs, inputs=inputs).items():
        for dim, index in dims.items():
            state[name] = state[name].index_select(dim, index.to(state[name].device))
    if refitted is not None:
        state.update(_raw(refitted, dense, layout, state))
    write_tensors(new, state)


def _raw(conv: ConvWeights, layer: Any, layout: Layout, kept: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Weight, bias and noise strength as the host has them; ``kept``: the dense ones' that they take the place of."""
    weight, bias, noise = f"{layout.modulated}.weight", kept[layout.bias], kept[layout.noise]
    early = _early_gain(layer, layout)
    return {
        weight: as_large_as(_turned(conv.weight, layer, layout), kept[weight][0])[None],
        layout.bias: (conv.bias * early).reshape(bias.shape),
        layout.noise: torch.full_like(noise, conv.noise_strength * early),  # type: ignore[arg-type]
    }


def _gain(layer: Any) -> float:
    return float(getattr(layer.activate, "scale", math.sqrt(2)))


def _early_gain(layer: Any, layout: Layout) -> float:
    """By what noise and bias are larger where the gain stands ahead of them, with which leaky ReLU commutes."""
    return _gain(layer) if layout.plain_upsampling else 1.0


def _turned(weight: torch.Tensor, layer: Any, layout: Layout) -> torch.Tensor:
    """[out, in, k, k]: correlated with the upsampled image, it is turned against the kernel of a transposed one."""
    turns = layout.plain_upsampling and getattr(getattr(layer, layout.modulated), "sample_mode", None) == "upsample"
    return weight.flip([2, 3]) if turns else weight


def read_fir(up: Any, layout: Layout, where: str) -> torch.Tensor:
    """The filter of an up-convolution at gain one."""
    if up is None or layout.plain_upsampling:
        return _FIR
    kernel = filter_of(up, layout)
    if kernel is None or kernel.shape != (4, 4):
        raise UnsupportedModelError(
            f"{where} has no blur kernel of 4x4; a trained start knows no other. Use init='random' and train"
        )
    return kernel / kernel.sum()
