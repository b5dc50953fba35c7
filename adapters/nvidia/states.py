"""State dicts with the NVIDIA family's names (forks save them by torch.save): which they are, and bodies for them.

A state dict says nothing but names and shapes. What else a generator has is taken to be as published (Karras et al.
2020): leaky ReLU, a mapping network that learns at a hundredth of the rate, no clamp.
"""

from __future__ import annotations

import math
import re
from typing import Any, Collection, Dict, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.content import Kept
from squeeze_patch.adapters.interchange import MAPPING_LR
from squeeze_patch.adapters.nvidia.block import SqueezedBlock
from squeeze_patch.adapters.nvidia.body import ACTIVATIONS, BODIES
from squeeze_patch.adapters.nvidia.wellformed import fault
from squeeze_patch.adapters.roles import StateDict, StateDicts
from squeeze_patch.connection import Excite
from squeeze_patch.errors import UnsupportedModelError

#: names that a generator of the family has, and no other
MARKS = frozenset({"mapping.fc0.weight", "synthesis.b4.conv1.affine.weight", "synthesis.b4.torgb.affine.weight"})
#: what is no parameter
BUFFERS = ("resample_filter", "noise_const", "w_avg")
#: {path of a module: class of its body}; blocks beside
_CLASSES = {
    r"": "Generator",
    r"mapping": "MappingNetwork",
    r"mapping\.(fc\d+|embed)": "FullyConnectedLayer",
    r"synthesis": "SynthesisNetwork",
    r"synthesis\.b\d+\.conv[01]": "SynthesisLayer",
    r"synthesis\.b\d+\.torgb": "ToRGBLayer",
    r"synthesis\.b\d+\.(conv[01]|torgb)\.affine": "FullyConnectedLayer",
    r"synthesis\.b\d+\.excite": "Excite",
}
#: {parameter of a block: [(dimension, which of the kept channels lie along it)]}
_PLACES = {
    "const": [(0, "inner")],
    "conv0.weight": [(0, "inner"), (1, "inputs")],
    "conv0.bias": [(0, "inner")],
    "conv0.affine.weight": [(0, "inputs")],
    "conv0.affine.bias": [(0, "inputs")],
    "conv1.weight": [(0, "outputs"), (1, "inner")],
    "conv1.bias": [(0, "outputs")],
    "conv1.affine.weight": [(0, "inner")],
    "conv1.affine.bias": [(0, "inner")],
    "torgb.weight": [(1, "outputs")],
    "torgb.affine.weight": [(0, "outputs")],
    "torgb.affine.bias": [(0, "outputs")],
}
_BLOCK = re.compile(r"synthesis\.(b\d+)")
_WORDS = "this looks like the state of a generator of the NVIDIA family, but is another network's: "


class NvidiaStates(StateDicts):
    """The role of files of state dicts."""

    def from_state(self, state: StateDict, blocks: Optional[Mapping[str, bool]] = None) -> Optional[torch.nn.Module]:
        return generator_from_state(state, blocks) if self.is_of_family(state) else None

    def is_of_family(self, state: StateDict) -> bool:
        return set(state) >= MARKS

    def kept_entries(
        self, network: torch.nn.Module, kept: Mapping[str, Kept]
    ) -> Dict[str, List[Tuple[int, torch.Tensor]]]:
        found: Dict[str, List[Tuple[int, torch.Tensor]]] = {}
        for block, channels in kept.items():
            for name, places in _PLACES.items():
                chosen = [(dim, getattr(channels, which)) for dim, which in places]
                found[f"synthesis.{block}.{name}"] = [(dim, which) for dim, which in chosen if which is not None]
        return {name: places for name, places in found.items() if places}


def generator_from_state(state: StateDict, known: Optional[Mapping[str, bool]] = None) -> torch.nn.Module:
    """A generator (`body.Generator`) of the tensors of ``state``, which it takes over as they are.

    Args:
        state: of the whole generator; names that say where each tensor belongs.
        known: {squeezed or narrowed block: whether it has excite}, where they are known; else told from shapes.

    Raises:
        UnsupportedModelError: it has tensors that no such generator has, lacks some, or their shapes do not fit.
    """
    blocks = _squeezed_blocks(state, known)
    G = _module("", blocks)
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        layer = _at(G, path, blocks)
        if leaf in BUFFERS:
            layer.register_buffer(leaf, tensor.detach())
        elif tensor.is_floating_point():
            layer.register_parameter(leaf, torch.nn.Parameter(tensor.detach()))
        else:
            raise UnsupportedModelError(f"{_WORDS}{name} holds {tensor.dtype}, not floating-point numbers")
    try:
        _describe(G)
        _note_narrowed(G.synthesis, blocks)
    except (AttributeError, IndexError, ValueError) as error:
        raise UnsupportedModelError(f"{_WORDS}its layers are of other kinds or shapes ({error})") from error
    wrong = fault(G)
    if wrong:
        raise UnsupportedModelError(f"{_WORDS}{wrong}")
    return G


def _squeezed_blocks(state: StateDict, known: Optional[Mapping[str, bool]]) -> List[str]:
    """Names of the squeezed blocks. In the last one nothing but a smaller conv1 tells squeezed from dense; at full
    width the other blocks do: where all others are squeezed, it is, too."""
    names = sorted({found.group(1) for found in map(_BLOCK.match, state) if found}, key=lambda name: int(name[1:]))
    squeezed = [name for name in names if f"synthesis.{name}.excite.weight" in state]
    for name, reader in zip(names, [*names[1:], ""]):
        conv1, conv0 = (state.get(f"synthesis.{place}.weight") for place in (f"{name}.conv1", f"{reader}.conv0"))
        width, channels = conv1.shape[:2] if conv1 is not None and conv1.ndim == 4 else (0, 0)
        narrow = width < channels
        is_read = conv0 is not None and conv0.ndim == 4 and conv0.shape[1] == width  # it is narrowed: no excite
        if narrow and name != names[-1] and name not in squeezed and not is_read:
            raise UnsupportedModelError(
                f"synthesis.{name}.conv1 is squeezed from {channels} to {width} channels, but there is "
                f"no synthesis.{name}.excite.weight: the tool that wrote this file has dropped it. Convert the dense "
                "file after that tool, not before"
            )
        if name == names[-1] and known is not None and name in known:
            squeezed += [name] if known[name] else []
        elif name == names[-1]:
            alike = known is None and len(squeezed) == len(names) - 1 > 0
            squeezed += [name] if narrow or alike else []
    return squeezed


def _note_narrowed(network: Any, squeezed: Collection[str]) -> None:
    """What shapes tell of blocks that are narrowed, until the file's Plan takes its place."""
    sides = {name: block.conv1.weight.shape[:2] for name, block in network.named_children() if name not in squeezed}
    changed = {name: max(out, into) for name, (out, into) in sides.items() if out != into}
    if changed:
        blocks = [{"name": name, "channels": channels, "excite": False} for name, channels in changed.items()]
        network.squeeze_plan = {"blocks": blocks}


def _module(path: str, squeezed: Collection[str]) -> torch.nn.Module:
    """An empty module of the class that belongs at ``path``."""
    block = _BLOCK.fullmatch(path)
    name = next((cls for pattern, cls in _CLASSES.items() if re.fullmatch(pattern, path)), None)
    if block is None and name is None:
        raise UnsupportedModelError(f"{_WORDS}no StyleGAN2 generator has {path}")
    cls: Any = Excite if name == "Excite" else BODIES.get(name or "SynthesisBlock")
    cls = SqueezedBlock if block is not None and block.group(1) in squeezed else cls
    module: torch.nn.Module = cls.__new__(cls)
    torch.nn.Module.__init__(module)
    return module


def _at(G: torch.nn.Module, path: str, squeezed: Collection[str]) -> torch.nn.Module:
    """The module at ``path``, with those above it, made where they are missing: in the order of the names."""
    module, parts = G, path.split(".") if path else []
    for depth, part in enumerate(parts, 1):
        if part not in module._modules:
            module.add_module(part, _module(".".join(parts[:depth]), squeezed))
        module = module._modules[part]  # type: ignore[assignment]
    return module


def _describe(G: Any) -> None:
    """The attributes that hosts' constructors set, as the shapes say them."""
    mapping, network = G.mapping, G.synthesis
    blocks = {int(name[1:]): block for name, block in network.named_children()}
    network.block_resolutions = sorted(blocks)
    last = network.block_resolutions[-1]
    for resolution in network.block_resolutions:
        _describe_block(blocks[resolution], resolution, resolution == last)
    network.w_dim = blocks[last].conv1.affine.weight.shape[1]
    network.img_resolution, network.img_channels = last, blocks[last].torgb.weight.shape[0]
    network.num_ws = sum(block.num_conv for block in blocks.values()) + 1
    _describe_mapping(mapping, network)
    G.z_dim, G.c_dim, G.w_dim, G.num_ws = mapping.z_dim, mapping.c_dim, mapping.w_dim, network.num_ws
    G.img_resolution, G.img_channels = network.img_resolution, network.img_channels
    G.eval()


def _describe_mapping(mapping: Any, network: Any) -> None:
    layers = [layer for name, layer in mapping.named_children() if name.startswith("fc")]
    embedded, mapping.c_dim = mapping.embed.weight.shape if "embed" in mapping._modules else (0, 0)
    mapping.z_dim = layers[0].weight.shape[1] - embedded
    mapping.w_dim, mapping.num_layers, mapping.num_ws = network.w_dim, len(layers), network.num_ws
    for layer in layers:
        _describe_linear(layer, "lrelu", MAPPING_LR)
    if embedded:
        _describe_linear(mapping.embed, "linear", 1.0)


def _describe_linear(layer: Any, activation: str, lr_multiplier: float) -> None:
    layer.out_features, layer.in_features = layer.weight.shape
    layer.activation, layer.bias_gain = activation, lr_multiplier
    layer.weight_gain = lr_multiplier / math.sqrt(layer.in_features)
    if "bias" not in layer._parameters:  # hosts build such layers, too
        layer.register_parameter("bias", None)


def _describe_block(block: Any, resolution: int, is_last: bool) -> None:
    first = "conv0" not in block._modules
    channels = block.const.shape[0] if first else block.conv0.weight.shape[0]
    block.resolution, block.is_last, block.architecture, block.use_fp16 = resolution, is_last, "skip", False
    block.in_channels = 0 if first else block.conv0.weight.shape[1]
    block.w_dim, block.img_channels = block.conv1.affine.weight.shape[1], block.torgb.weight.shape[0]
    block.num_conv, block.num_torgb = (1 if first else 2), 1
    if isinstance(block, SqueezedBlock):
        made = block.excite.weight.shape[0] if "excite" in block._modules else channels
        block.out_channels, block.squeezed_channels = made, block.conv1.weight.shape[0]
        block.channels_last, block.fp16_on_cpu, block.fused_modconv_default = False, True, None
        block.fused = block.defers = False
    for layer in (block.conv1, *([] if first else [block.conv0])):
        layer.out_channels, layer.in_channels, size = layer.weight.shape[:3]
        layer.up = 2 if not first and layer is block.conv0 else 1
        layer.resolution, layer.w_dim, layer.padding = resolution, block.w_dim, size // 2
        layer.use_noise = "noise_strength" in layer._parameters
        layer.activation, layer.conv_clamp, layer.act_gain = "lrelu", None, ACTIVATIONS["lrelu"][1]
    torgb = block.torgb
    torgb.out_channels, torgb.in_channels, size = torgb.weight.shape[:3]
    torgb.w_dim, torgb.conv_clamp = block.w_dim, None
    torgb.weight_gain = 1 / math.sqrt(torgb.in_channels * size**2)
    for layer in (torgb, block.conv1, *([] if first else [block.conv0])):
        _describe_linear(layer.affine, "linear", 1.0)
    if "excite" in block._modules:
        excite = block.excite
        excite.out_channels, excite.in_channels = excite.weight.shape[:2]
        excite.conv_clamp = None
        excite.weight_gain = 1 / math.sqrt(excite.in_channels)
