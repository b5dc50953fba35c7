"""rosinality's and basicsr's generators to common names (`adapters.interchange`), and rosinality's from them."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, Mapping, Tuple

import torch

from squeeze_patch.adapters.interchange import MAPPING_LR, CommonState, channels, mapping_layers, resolutions
from squeeze_patch.adapters.roles import Interchange
from squeeze_patch.adapters.rosinality.layout import ROSINALITY, Layout, filter_of, get, known_layout, layer_paths
from squeeze_patch.adapters.rosinality.states import from_state
from squeeze_patch.errors import UnsupportedModelError

#: what the hosts' scripts build a generator with, beside its size: {resolution: channels / channel_multiplier} above 32
_WIDE = {64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}


class RosinalityInterchange(Interchange):
    """The role of carrying generators to and from other families."""

    def to_common(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.Tensor]:
        return to_common(network)

    def from_common(self, state: CommonState) -> torch.nn.Module:
        body = from_state(to_state(state))
        assert body is not None  # it has all of the names that tell the family
        return body

    def make_checkpoint(self, generators: Mapping[str, torch.nn.Module], w_avg: torch.Tensor) -> Dict[str, Any]:
        """No discriminator, no optimisers."""
        roles = {"G": "g", "G_ema": "g_ema"}
        only = next(iter(generators.values()))
        named = {roles[role]: body for role, body in generators.items()}
        return {"g": only, "g_ema": only, **named, "latent_avg": w_avg}

    def constructor_hint(self, state: CommonState) -> str:
        return arguments(state)


def names(sizes: Any, layers: int, squeezed: Any, layout: Layout = ROSINALITY) -> Iterator[Tuple[str, str]]:
    """(common name, the lineage's name) of a generator's tensors.

    Args:
        sizes: resolutions of the blocks, ascending.
        layers: of the mapping network.
        squeezed: resolutions that have an excite.
        layout: of the lineage.
    """
    convs, inner = layout.convs, layout.modulated
    weights = {"weight": f"{inner}.weight"}
    weights.update({f"style.{what}": f"{inner}.modulation.{what}" for what in ("weight", "bias")})
    of_conv = {**weights, "noise_strength": layout.noise, "bias": layout.bias}
    for index in range(layers):
        for what in ("weight", "bias"):
            yield f"mapping.{index}.{what}", f"{layout.mapping}.{index + 1}.{what}"
    yield "const", layout.const
    for k, size in enumerate(sizes):
        last = {"conv1": f"{convs}.{2 * k - 1}", "conv0": f"{convs}.{2 * k - 2}"}
        for part, path in last.items() if k else [("conv1", layout.first_conv)]:
            yield from ((f"{size}.{part}.{to}", f"{path}.{name}") for to, name in of_conv.items())
            yield f"{size}.{part}.noise", f"{layout.stored_noise}{2 * k - (part == 'conv0')}"
        torgb = f"to_rgbs.{k - 1}" if k else "to_rgb1"
        yield from ((f"{size}.torgb.{to}", f"{torgb}.{name}") for to, name in {**weights, "bias": "bias"}.items())
        if size in squeezed:
            yield from ((f"{size}.excite.{what}", f"{convs}.{2 * k}.excite.{what}") for what in ("weight", "bias"))


def to_common(G: Any) -> Dict[str, torch.Tensor]:
    """The tensors of a generator, or of the stand-in for its state dict, dense or squeezed.

    Raises:
        UnsupportedModelError: it is not StyleGAN2 as published, so that no other family has the same network.
    """
    layout = known_layout(G)
    if layout.plain_upsampling:
        raise UnsupportedModelError(
            f"{layout.host} cannot be carried to another family: it upsamples bilinearly, which the others do not"
        )
    found = layer_paths(G, layout)
    sizes = [paths.resolution for paths in found]
    squeezed = [paths.resolution for paths in found if paths.reader and hasattr(get(G, paths.reader), "excite")]
    layers = len(list(get(G, layout.mapping).children())) - 1
    own = G.state_dict()
    result = {}
    for common, name in names(sizes, layers, squeezed, layout):
        if name not in own:
            raise UnsupportedModelError(f"{type(G).__name__} has no {name}, which other families' generators have")
        tensor = own[name].detach().to(device="cpu", dtype=torch.float32)
        result[common] = tensor.reshape(_common_shape(common, tensor))
    _check(G, layout)
    return result


def to_state(state: CommonState) -> Dict[str, torch.Tensor]:
    """A state dict that the host's Generator loads, in the host's order.

    Raises:
        UnsupportedModelError: that Generator makes other images.
    """
    sizes = resolutions(state)
    if len(state["4.torgb.bias"]) != 3:
        raise UnsupportedModelError(
            f"the images have {len(state['4.torgb.bias'])} channels; rosinality's generator makes images of 3"
        )
    squeezed = [size for size in sizes if f"{size}.excite.weight" in state]
    found: Dict[str, torch.Tensor] = {}
    for common, name in names(sizes, mapping_layers(state), squeezed):
        found[name] = state[common].reshape(_own_shape(common, state[common])).clone()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 16  # of gain 4, as after zeros are inserted
    for k in range(len(sizes) - 1):
        found[f"convs.{2 * k}.conv.blur.kernel"] = kernel.clone()
        found[f"to_rgbs.{k}.upsample.kernel"] = kernel.clone()
    return found


def arguments(state: CommonState) -> str:
    """How the host's Generator of this size is built, or that its options cannot make it."""
    sizes = resolutions(state)
    w_dim = state["mapping.0.weight"].shape[1]
    for multiplier in (1, 2):
        if all(
            count == (512 if size <= 32 else _WIDE.get(size, 0) * multiplier) for size, count in channels(state).items()
        ):
            return f"Generator({sizes[-1]}, {w_dim}, {mapping_layers(state)}, channel_multiplier={multiplier})"
    return f"a Generator with the channels {channels(state)}, which no channel_multiplier makes"


def _own_shape(common: str, tensor: torch.Tensor) -> Tuple[int, ...]:
    shape = tuple(tensor.shape)
    what = common.split(".", 1)[-1]
    if common == "const" or what in ("conv0.weight", "conv1.weight", "torgb.weight"):
        return (1, *shape)
    if what == "torgb.bias":
        return (1, *shape, 1, 1)
    if what.endswith("noise"):
        return (1, 1, *shape)
    return (1,) if what.endswith("noise_strength") else shape


def _common_shape(common: str, tensor: torch.Tensor) -> Tuple[int, ...]:
    shape = tuple(tensor.shape)
    what = common.split(".", 1)[-1]
    if common == "const" or what in ("conv0.weight", "conv1.weight", "torgb.weight"):
        return shape[1:]
    if what == "torgb.bias":
        return (shape[1],)
    if what.endswith("noise"):
        return shape[2:]
    return () if what.endswith("noise_strength") else shape


def _check(G: Any, layout: Layout) -> None:
    one = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for paths in layer_paths(G, layout):
        taps = filter_of(get(G, paths.up), layout) if paths.up else None
        known = taps is not None and taps.shape == (4, 4) and torch.allclose(taps, torch.outer(one, one) / 16)
        if paths.up and not known:
            raise UnsupportedModelError(f"{paths.up} upsamples with another filter than [1, 3, 3, 1]")
    for layer in list(get(G, layout.mapping).children())[1:]:
        rate = float(getattr(layer, "lr_mul", math.nan))
        if not math.isclose(rate, MAPPING_LR):
            raise UnsupportedModelError(
                f"the mapping network learns at {rate:g} of the others' rate, not at {MAPPING_LR}"
            )
