"""Whether a generator out of a file is one: its layers have the attributes that they compute with, of the right kinds,
and tensors whose shapes belong together. What this lets pass can be run."""

from __future__ import annotations

import math
import numbers
import re
from typing import Any, Collection, Dict, List, Optional, Tuple

import torch

from squeeze_patch.adapters.layers import own_tensors
from squeeze_patch.adapters.nvidia.body import ACTIVATIONS

#: no network has more of anything: layers, channels, pixels along a side
MOST, MOST_BLOCKS = 1 << 14, 16
MOST_STYLES = 256
#: largest ratio of an image's sides; the resolution of layers is the longer one in some forks
LONGEST_IMAGE = 16
_OPTIONAL_NUMBER = ("number", "none")
#: {class: {attribute: kinds that it may be of}}
ATTRIBUTES: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "FullyConnectedLayer": {"activation": ("activation",), "weight_gain": ("gain",), "bias_gain": ("gain",)},
    "MappingNetwork": {
        "z_dim": ("count",),
        "c_dim": ("count",),
        "w_dim": ("count",),
        "num_ws": ("count", "none"),
        "num_layers": ("count",),
    },
    "SynthesisLayer": {
        "resolution": ("count",),
        "up": ("count",),
        "use_noise": ("flag",),
        "activation": ("activation",),
        "conv_clamp": _OPTIONAL_NUMBER,
        "padding": ("count",),
        "act_gain": ("number",),
    },
    "ToRGBLayer": {"conv_clamp": _OPTIONAL_NUMBER, "weight_gain": ("gain",)},
    "Excite": {"conv_clamp": _OPTIONAL_NUMBER, "weight_gain": ("gain",)},
    "SynthesisBlock": {
        "in_channels": ("count",),
        "resolution": ("count",),
        "img_channels": ("count",),
        "is_last": ("flag",),
        "num_conv": ("count",),
        "num_torgb": ("count",),
    },
    "SynthesisNetwork": {"block_resolutions": ("counts",), "num_ws": ("count",)},
    "Generator": {"z_dim": ("count",), "c_dim": ("count",), "img_resolution": ("count",), "num_ws": ("count",)},
}
ATTRIBUTES["SqueezedBlock"] = {**ATTRIBUTES["SynthesisBlock"], "out_channels": ("count",)}
#: {class: {tensor: names of its dimensions}}; one name is one number within a layer, * is any
SHAPES: Dict[str, Dict[str, str]] = {
    "FullyConnectedLayer": {"weight": "out in", "bias": "out"},
    "SynthesisLayer": {
        "weight": "out in k k",
        "bias": "out",
        "affine.weight": "in w",
        "affine.bias": "in",
        "noise_strength": "",
        "noise_const": "* *",
        "resample_filter": "four four",
    },
    "ToRGBLayer": {"weight": "out in k k", "bias": "out", "affine.weight": "in w", "affine.bias": "in"},
    "Excite": {"weight": "out in one one", "bias": "out"},
    "SynthesisBlock": {"const": "c * *", "resample_filter": "four four"},
    "SqueezedBlock": {"const": "c * *", "resample_filter": "four four"},
    "MappingNetwork": {"w_avg": "w"},
}
#: {class: children that it cannot be without}
CHILDREN = {
    "Generator": ("mapping", "synthesis"),
    "SynthesisLayer": ("affine",),
    "ToRGBLayer": ("affine",),
}
#: {class: pattern of the names of its tensors and children}
PARTS = {
    "FullyConnectedLayer": r"weight|bias",
    "MappingNetwork": r"w_avg|embed|fc\d+",
    "SynthesisLayer": r"affine|weight|bias|noise_strength|noise_const|resample_filter",
    "ToRGBLayer": r"affine|weight|bias",
    "SynthesisBlock": r"const|resample_filter|conv0|conv1|torgb|skip",
    "SynthesisNetwork": r"b\d+",
    "Generator": r"mapping|synthesis",
}
#: tensors that a layer may lack
OPTIONAL = ("bias", "const", "noise_strength", "noise_const", "w_avg")


def fault(G: torch.nn.Module) -> str:
    """What is wrong with a generator, "" where nothing is."""
    for path, module in G.named_modules():
        wrong = _fault_of(module)
        if wrong:
            return f"{path}{'.' if path else ''}{wrong}"
    return _wrong_styles(G) if type(G._modules.get("mapping")).__name__ == "MappingNetwork" else ""


def surplus(G: torch.nn.Module, classes: Collection[str]) -> Optional[Tuple[str, List[str]]]:
    """A layer of one of those classes that holds more than its namesake in StyleGAN2, and what; else None."""
    for path, module in G.named_modules():
        name = type(module).__name__
        if name in classes and name in PARTS:
            held = [*module._parameters, *module._buffers, *module._modules]
            others = [part for part in held if not re.fullmatch(PARTS[name], part)]
            if others:
                return f"{path or 'the generator'} ({name})", others
    return None


def _fault_of(module: Any) -> str:
    name = type(module).__name__
    for attribute, kinds in ATTRIBUTES.get(name, {}).items():
        value = getattr(module, attribute, _Missing)
        if not any(_is(kind, value) for kind in kinds):
            return f"{attribute} is {'missing' if value is _Missing else repr(value)[:40]}"
    for child in CHILDREN.get(name, ()):
        if child not in module._modules:
            return f"{child} is missing"
    if name == "MappingNetwork":
        wanted = [f"fc{index}" for index in range(module.num_layers)] + ["embed"] * (module.c_dim > 0)
        missing = [child for child in wanted if child not in module._modules]
        return f"{missing[0]} is missing" if missing else _wrong_tensor(module, name) or _wrong_mapping(module)
    if name == "Generator" and module.mapping.num_ws not in (None, module.synthesis.num_ws):
        return f"mapping.num_ws is {module.mapping.num_ws}, where synthesis takes {module.synthesis.num_ws}"
    if name in ("SynthesisBlock", "SqueezedBlock"):
        layers = (2 if module.in_channels else 1, 1)
        if (module.num_conv, module.num_torgb) != layers:
            return f"num_conv is {module.num_conv}, num_torgb is {module.num_torgb}"
        missing = [f"conv{index}" for index in (0, 1)[-layers[0] :] if f"conv{index}" not in module._modules]
        if missing:
            return f"{missing[0]} is missing"
    if name == "SynthesisNetwork":
        missing = [
            f"b{resolution}" for resolution in module.block_resolutions if f"b{resolution}" not in module._modules
        ]
        return f"{missing[0]} is missing" if missing else _wrong_noise(module)
    wrong = _wrong_tensor(module, name)
    return wrong or (_wrong_layer(module) if name == "SynthesisLayer" else "")


def _wrong_styles(G: torch.nn.Module) -> str:
    """A layer that reads styles of another size than most do, or than the mapping network makes."""
    affine = {path: layer.weight for path, layer in G.named_modules() if path.rpartition(".")[2] == "affine"}
    mapping: Any = G.mapping
    w_dim = len(getattr(mapping, f"fc{mapping.num_layers - 1}").weight) if mapping.num_layers > 0 else mapping.z_dim
    wrong = [f"{path}.weight has shape {list(w.shape)}" for path, w in affine.items() if w.shape[1] != w_dim]
    return f"{wrong[0]}, where styles have {w_dim} numbers" if wrong else ""


def _wrong_mapping(module: Any) -> str:
    """Sizes of latents and classes that its layers do not have."""
    classes = module.embed.weight.shape if module.c_dim > 0 else (0, 0)
    if module.c_dim != classes[1]:
        return f"c_dim is {module.c_dim}"
    if module.num_layers > 0 and module.fc0.weight.shape[1] != module.z_dim + classes[0]:
        return f"z_dim is {module.z_dim}"
    layers = [getattr(module, f"fc{index}").weight for index in range(module.num_layers)]
    for index, (before, layer) in enumerate(zip(layers, layers[1:]), 1):
        if layer.shape[1] != len(before):
            return f"fc{index}.weight has shape {list(layer.shape)}, where fc{index - 1} makes {len(before)} numbers"
    return "" if module.num_ws is None or module.num_ws <= MOST_STYLES else f"num_ws is {module.num_ws}"


def _wrong_layer(module: Any) -> str:
    """Numbers of a convolution that its tensors contradict."""
    if module.padding != module.weight.shape[2] // 2 or module.up not in (1, 2):
        return f"padding is {module.padding}, up is {module.up}"
    if not module.use_noise:
        return "" if module.resolution <= MOST else f"resolution is {module.resolution}"
    noise = own_tensors(module).get("noise_const")
    if noise is None or "noise_strength" not in own_tensors(module):
        return "noise_const or noise_strength is missing"
    # Layers are built anew with square noise of this side, so a small file must not ask for a large one.
    fits = module.resolution <= max(noise.shape) and module.resolution**2 <= LONGEST_IMAGE * noise.numel()
    return "" if fits else f"resolution is {module.resolution}"


def _wrong_noise(network: Any) -> str:
    """Stored noise of other sides than the features', which double from block to block."""
    first = network.block_resolutions[0]
    const = own_tensors(getattr(network, f"b{first}")).get("const")
    if const is None or const.dim() != 3:
        return ""
    for resolution in network.block_resolutions:
        sides = [side * resolution // first for side in const.shape[1:]]
        for name, layer in getattr(network, f"b{resolution}").named_children():
            noise = own_tensors(layer).get("noise_const")
            if noise is not None and list(noise.shape) != sides:
                return f"b{resolution}.{name}.noise_const has shape {list(noise.shape)}, not {sides}"
    return ""


class _Missing:
    """No such attribute."""


def _is(kind: str, value: Any) -> bool:
    if kind == "none":
        return value is None
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "activation":
        return isinstance(value, str) and value in ACTIVATIONS
    if kind == "gain":  # what is written is divided by it
        return _is("number", value) and abs(value) > 1e-30
    if kind == "number":
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "counts":
        known = isinstance(value, list) and 0 < len(value) <= MOST_BLOCKS and all(_is("count", item) for item in value)
        return known and value == sorted(set(value))
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and 0 <= int(value) <= MOST


def _wrong_tensor(module: Any, name: str) -> str:
    """A tensor of the layer that is missing, of another kind, or of a shape that does not belong to the others'."""
    known: Dict[str, int] = {"one": 1, "four": 4}
    children = {f"affine.{key}": tensor for key, tensor in own_tensors(getattr(module, "affine", _EMPTY)).items()}
    tensors = {**own_tensors(module), **children}
    for key, tensor in tensors.items():
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.is_complex()):
            return f"{key} holds {getattr(tensor, 'dtype', type(tensor).__name__)}, not floating-point numbers"
    for key, dims in SHAPES.get(name, {}).items():
        if key not in tensors:
            if key in OPTIONAL:
                continue
            return f"{key} is missing"
        names: List[str] = dims.split()
        shape = tuple(tensors[key].shape)
        fits = len(shape) == len(names) and all(
            size > 0 and (dim == "*" or known.setdefault(dim, size) == size) for dim, size in zip(names, shape)
        )
        if not fits:
            return f"{key} has shape {list(shape)}"
    return ""


_EMPTY = torch.nn.Module()
