"""Fused inference of the rosinality family.

A flat generator has no block of ours to hold a switch. A fused layer is an instance of a class made here, a subclass of
its host's with another forward; unfused, it is of its host's class again. The object, its parameters, their names and
its hooks stay, and copies and pickles of it are made by `_instance`. (Hosts of other families store classes in ways
that such a class would not survive.)

Between fused layers features are channels last, which the hosts' own layers cannot read: whatever is not fused gets
them as the hosts have them. On a GPU everything runs as it is.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Iterator, Optional, Tuple, Type

import torch

from squeeze_patch.adapters.layers import is_plain, runs_forward_of
from squeeze_patch.adapters.roles import Fusing
from squeeze_patch.adapters.rosinality.block import HOOK, excite_input
from squeeze_patch.adapters.rosinality.layout import Layout, blur_of, find_layer_paths, get, known_layout
from squeeze_patch.fused_convolution import Finish, fused_layer, fused_rgb, pays
from squeeze_patch.handing_on import Handed, hand_on, is_plain_run, on_gpu, read

#: what layers of the hosts have inside, beside the modulated convolution; one that has more computes something else
_CHILDREN = {"noise", "activate", "excite"}
#: classes of modulated convolutions, the hosts' and our own
_CONVOLUTIONS = ("ModulatedConv2d", "Modulated", "StyleModulated", "CleanModulated")
_CHILDREN_OF_MODULATED = {"modulation", "blur", "smooth"}
_EPSILON = 1e-8


class RosinalityFusing(Fusing):
    """The role of fused inference; ``network`` is the generator itself."""

    def fused(self, network: torch.nn.Module, name: str) -> bool:
        return isinstance(get(network, name), FusedConv)

    def defers(self, network: torch.nn.Module, name: str) -> bool:
        reader = find_layer_paths(network, name).reader
        return reader is not None and get(network, reader)._forward_pre_hooks.get(HOOK) is defer_excite

    def set_fused(self, network: torch.nn.Module, name: str, fused: bool, defers: bool) -> None:
        paths, layout = find_layer_paths(network, name), known_layout(network)
        projection = get(network, f"{paths.torgb}.{layout.modulated}")
        layers = [(FusedConv, get(network, path)) for path in (paths.up, paths.conv1) if path is not None]
        for mixin, layer in (*layers, (FusedProjection, projection)):
            host: Any = layer.host_class if isinstance(layer, FusedLayer) else type(layer)
            layer.__class__ = _fused_class(mixin, host, layout) if fused else host
        if paths.reader is not None and hasattr(get(network, paths.reader), "excite"):
            hook = excite_input if not fused else defer_excite if defers else excite_contiguous_input
            get(network, paths.reader)._forward_pre_hooks[HOOK] = hook


class FusedLayer:
    """What is common to layers that run fused where nothing is trained and nobody listens inside of them, else by the
    forward of their host's class."""

    host_class: ClassVar[Type[torch.nn.Module]]
    lineage: ClassVar[Layout]

    def run_host(self, x: Any, *inputs: Any, **named: Any) -> torch.Tensor:
        y: torch.Tensor = super().forward(read(x).contiguous(), *inputs, **named)  # type: ignore[misc]
        return y

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Of a class that is in no module."""
        reduced: Any = super().__reduce_ex__(protocol)  # of the class, and what an instance of it is filled with
        mixin = next(cls for cls in (FusedConv, FusedProjection) if isinstance(self, cls))
        return (_instance, (mixin, self.host_class, self.lineage), *reduced[2:])


class FusedConv(FusedLayer):
    """A convolution layer, with noise, bias and activation."""

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """[N, in, h, w], styles [N, w_dim], noise [1 or N, 1, H, W] or None -> [N, out, H, W]."""
        noise = inputs[2] if len(inputs) == 3 else named.get("noise")
        if len(inputs) not in (2, 3) or set(named) - {"noise"} or not _runs_fused(self, inputs[0], inputs[1], noise):
            return self.run_host(*inputs, **named)
        y = _run(self, inputs[0], inputs[1], noise)
        return y.contiguous() if vars(self)["_forward_hooks"] else y


class FusedProjection(FusedLayer):
    """The modulated convolution inside a toRGB layer."""

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """[N, in, h, w], styles [N, w_dim] -> [N, img_channels, h, w]."""
        layer: Any = self
        known = len(inputs) == 2 and named in ({}, {"demodulate": False}) and not getattr(layer, "demodulate", False)
        if not (known and set(layer._modules) == {"modulation"} and _is_plain_float(layer, *inputs)):
            return self.run_host(*inputs, **named)
        x, style = inputs[0], layer.modulation(inputs[1]) * float(getattr(layer, "scale", 1.0))
        return fused_rgb(x, layer.weight[0], style, style.new_zeros(layer.weight.shape[1])).contiguous()


@functools.cache
def _fused_class(mixin: Any, host: Any, layout: Layout) -> Any:
    names = {"__module__": host.__module__, "__qualname__": host.__qualname__}
    return type(host.__name__, (mixin, host), {"host_class": host, "lineage": layout, **names})


def _instance(mixin: Any, host: Any, layout: Layout) -> Any:
    """An empty fused layer, for unpickling to fill."""
    fused = _fused_class(mixin, host, layout)
    return fused.__new__(fused)


def defer_excite(layer: Any, inputs: Tuple[Any, ...]) -> Tuple[Any, ...]:
    """In the place of `layout.excite_input`: the layer that reads excite's features folds it into itself."""
    fused = issubclass(type(layer), FusedConv)
    if not (fused and len(inputs) > 1 and is_plain(layer.excite)) or not _runs_fused(layer, inputs[0], inputs[1]):
        return excite_contiguous_input(layer, inputs)
    watched = len(layer._forward_pre_hooks) > 1
    return (hand_on(layer, inputs[0].contiguous() if watched else inputs[0]), *inputs[1:])


def excite_contiguous_input(layer: Any, inputs: Tuple[Any, ...]) -> Tuple[Any, ...]:
    """The same, where the reader may be a layer that is not fused."""
    return excite_input(layer, (inputs[0].contiguous(), *inputs[1:]))


def _runs_fused(layer: Any, x: Any, style: Any, noise: Optional[torch.Tensor] = None) -> bool:
    return "forward" not in vars(layer) and _is_known(layer) and _is_plain_float(layer, _tensor_of(x), style, noise)


def _tensor_of(x: Any) -> Any:
    return x.squeezed if isinstance(x, Handed) else x


def _is_untouched(cls: Any) -> bool:
    """Whether a class's forward is the one that it, or a class behind it, was written with."""
    return cls.forward.__qualname__ in {f"{each.__qualname__}.forward" for each in cls.__mro__}


def _is_plain_float(layer: Any, x: Any, style: Any, noise: Optional[torch.Tensor] = None) -> bool:
    """Whether a layer runs for its values alone, in float32 on a CPU."""
    if (
        layer.training
        or not _is_untouched(layer.host_class)
        or not all(isinstance(tensor, torch.Tensor) for tensor in (x, style))
    ):
        return False
    single = all(tensor.dtype == torch.float32 for tensor in (x, style, *layer.parameters()))
    return single and (x.ndim, style.ndim) == (4, 2) and not on_gpu(x) and is_plain_run(layer, x, style, noise)


def _is_known(layer: Any) -> bool:
    """Whether a layer computes what this family's do, and nobody listens inside of it. (Its modulation is called.)"""
    layout: Layout = layer.lineage
    modulated = getattr(layer, layout.modulated)
    if set(layer._modules) - _CHILDREN - {layout.modulated} or set(modulated._modules) - _CHILDREN_OF_MODULATED:
        return False
    slope = getattr(layer.activate, "negative_slope", None)
    return (
        all(map(is_plain, _listening(layer, modulated)))
        and runs_forward_of(modulated, _CONVOLUTIONS)
        and isinstance(slope, (int, float))
        and getattr(modulated, "demodulate", True) is True
        and getattr(modulated, "eps", _EPSILON) == _EPSILON
        and not getattr(modulated, "downsample", False)
        and getattr(modulated, "sample_mode", None) in (None, "upsample")
    )


def _listening(layer: Any, modulated: Any) -> Iterator[torch.nn.Module]:
    for module in (modulated, blur_of(modulated), getattr(layer, "noise", None), layer.activate):
        if isinstance(module, torch.nn.Module):
            yield module


def _run(layer: Any, x: Any, w: torch.Tensor, noise: Optional[torch.Tensor]) -> torch.Tensor:
    layout: Layout = layer.lineage
    modulated, activate = getattr(layer, layout.modulated), layer.activate
    blur = blur_of(modulated)
    upsamples = blur is not None or getattr(modulated, "sample_mode", None) == "upsample"
    n, _, *sides = _tensor_of(x).shape
    noise = _scaled_noise(layer, noise, [n, 1, *(side * (2 if upsamples else 1) for side in sides)])
    bias = get(layer, layout.bias).flatten()
    gain = float(getattr(activate, "scale", math.sqrt(2)))
    if layout.plain_upsampling:  # leaky ReLU commutes with its gain, which these hosts have ahead of noise and bias
        noise, bias = noise / gain, bias / gain
        x = _enlarged(x, modulated.weight[0]) if upsamples else x
    finish = Finish(bias, noise, gain, float(activate.negative_slope))
    style, scale = modulated.modulation(w), float(getattr(modulated, "scale", 1.0))
    if blur is None:
        return fused_layer(x, modulated.weight[0], style, finish, weight_gain=scale)
    resample = None if blur.kernel.shape == (4, 4) else blur
    return fused_layer(x, modulated.weight[0], style, finish, blur.kernel / 4, resample, scale)


def _scaled_noise(layer: Any, noise: Optional[torch.Tensor], shape: Any) -> torch.Tensor:
    """Noise times its strength, drawn as the host does where it is not given: [1 or N, 1, H, W]."""
    path: str = layer.lineage.noise
    strength: torch.Tensor = get(layer, path)
    if noise is not None:
        return strength * noise
    holder = path.rpartition(".")[0]
    if holder:  # a module of the host's, which adds it to what it is given
        drawn: torch.Tensor = get(layer, holder)(strength.new_zeros(shape), noise=None)
        return drawn
    return strength * strength.new_empty(shape).normal_()


def _enlarged(x: Any, weight: torch.Tensor) -> Any:
    """Upsampled, which commutes with excite: both are linear, and weights of bilinear interpolation sum to one."""
    if isinstance(x, Handed) and not x.was_read:
        f = x.squeezed
        if pays(weight, f.shape[1], 4 * f.shape[2] * f.shape[3]):
            return Handed(_twice(f), x.excite)
    return _twice(read(x))


def _twice(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
