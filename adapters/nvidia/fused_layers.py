"""The layers of the NVIDIA family's hosts as fused blocks run them: by `squeeze_patch.fused_convolution` where they are
the hosts' own, and nobody listens to them.

It imports torch, the standard library and files of that kind only, and uses no ``__future__`` import: its text stands
inside pickles (`portable`), where it has to run without squeeze_patch.
"""

import functools
from typing import Any, Dict

import torch

from squeeze_patch.adapters.nvidia.call_arguments import torgb_arguments
from squeeze_patch.fused_convolution import Finish, fused_layer, fused_rgb
from squeeze_patch.handing_on import Handed, on_gpu, read

#: activations that a gain can be taken through, by their slope below zero
_SLOPES = {"linear": 1.0, "lrelu": 0.2, "relu": 0.0}


def ops_of(layer: Any) -> Dict[str, Any]:
    """What the host's layer finds by name: among others its modules of operations with kernels of their own."""
    return type(layer).forward.__globals__


def _has_kernels(ops: Any) -> bool:
    """Whether the host could build the kernels of a module of its operations; torch's do more with less otherwise."""
    return getattr(ops, "_plugin", None) is not None


def _is_plain(layer: Any, name: str) -> bool:
    """Whether a layer is of the host's class ``name``, nobody listens to it, and its call is that class's."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    own = "forward" not in vars(layer) and getattr(type(layer).forward, "__qualname__", "") == f"{name}.forward"
    return own and not any(hooks) and set(layer._modules) == {"affine"}


def _has_plain_noise(layer: Any) -> bool:
    return not layer.use_noise or (layer.noise_const.ndim, layer.noise_strength.ndim) == (2, 0)


def run_layer(layer: Any, x: Any, w: torch.Tensor, fast: bool, kwargs: Dict[str, Any]) -> torch.Tensor:
    """A convolution layer of the host's, or what it computes by `fused_layer`: [N, in, h, w] -> [N, out, H, W]."""
    mode, others = kwargs.get("noise_mode", "random"), set(kwargs) - {"noise_mode", "fused_modconv", "gain"}
    if not fast:
        return layer(x.features() if isinstance(x, Handed) else x, w, **kwargs)
    known = _is_plain(layer, "SynthesisLayer") and layer.activation in _SLOPES and _has_plain_noise(layer)
    if others or not known or mode not in ("random", "const", "none"):
        return layer(read(x), w, **kwargs)
    noise, gain = None, kwargs.get("gain", 1)
    clamp = None if layer.conv_clamp is None else layer.conv_clamp * gain
    if layer.use_noise and mode == "random":
        noise = torch.randn([len(w), 1, *layer.noise_const.shape], device=w.device) * layer.noise_strength
    elif layer.use_noise and mode == "const":
        noise = (layer.noise_const * layer.noise_strength)[None, None]  # [1, 1, R, R]
    gain = layer.act_gain * gain
    finish = Finish(layer.bias, noise, gain, _SLOPES[layer.activation], clamp)
    ops, resample, activate = ops_of(layer), None, None
    if on_gpu(w) and _has_kernels(ops.get("upfirdn2d")):

        def resample(y: torch.Tensor) -> torch.Tensor:
            return ops["upfirdn2d"].upfirdn2d(y, layer.resample_filter, padding=[1, 1, 1, 1], gain=4)

    if on_gpu(w) and _has_kernels(ops.get("bias_act")):
        finish = Finish(noise=noise)
        activate = functools.partial(ops["bias_act"].bias_act, act=layer.activation, gain=gain, clamp=clamp)
    fir = None if layer.up == 1 else layer.resample_filter
    y = fused_layer(x, layer.weight, layer.affine(w), finish, fir, resample)
    return y if activate is None else activate(y, layer.bias.to(y.dtype))


def run_torgb(layer: Any, f: torch.Tensor, w: Any, fast: bool, kwargs: Dict[str, Any]) -> torch.Tensor:
    """The host's toRGB, or what it computes by `fused_rgb`: [N, q, R, R] -> [N, img_channels, R, R]. Of ``kwargs``,
    which are the convolutions', it gets those that it knows."""
    own = torgb_arguments(layer, kwargs)
    if not fast or on_gpu(f) or not _is_plain(layer, "ToRGBLayer") or len(own) > 1:
        return layer(read(f) if fast else f, w, **own)
    clamp = getattr(layer, "conv_clamp", None)
    return fused_rgb(f, layer.weight, layer.affine(w) * layer.weight_gain, layer.bias, clamp)
