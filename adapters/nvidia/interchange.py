"""Generators of the NVIDIA family to and from common names (`adapters.interchange`).

What is no tensor does not come along: the clamp of activations at +-256 that hosts have beside float16, and which
blocks compute in float16. A generator that is made here has its host's defaults for both.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.interchange import (
    MAPPING_LR,
    SLOPE,
    CommonState,
    channels,
    mapping_layers,
    resolutions,
    shapes,
)
from squeeze_patch.adapters.layers import missing_tensors
from squeeze_patch.adapters.nvidia.hosted import built, channel_options, synthesis_options
from squeeze_patch.adapters.nvidia.portable import shaped_block
from squeeze_patch.adapters.roles import Interchange
from squeeze_patch.errors import UnsupportedModelError

_LAYER = {
    "weight": "weight",
    "bias": "bias",
    "style.weight": "affine.weight",
    "style.bias": "affine.bias",
    "noise_strength": "noise_strength",
    "noise": "noise_const",
}


class NvidiaInterchange(Interchange):
    """The role of carrying generators to and from other families."""

    def to_common(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.Tensor]:
        return to_common(root, network)

    def from_common(self, state: CommonState) -> torch.nn.Module:
        G: Any = dense_generator(state)
        full, narrowed = channels(state), []
        for resolution, shape in shapes(state).items():
            block = getattr(G.synthesis, f"b{resolution}")
            made = shaped_block(block, [shape.inputs, shape.inner, shape.width, shape.excite])
            setattr(G.synthesis, f"b{resolution}", made.requires_grad_(False))
            if not shape.excite:
                narrowed.append({"name": f"b{resolution}", "channels": full[resolution], "excite": False})
        if narrowed:  # until a Plan takes its place
            G.synthesis.squeeze_plan = {"blocks": narrowed}
        load(G, state)
        return G  # type: ignore[no-any-return]

    def make_checkpoint(self, generators: Mapping[str, torch.nn.Module], w_avg: torch.Tensor) -> Dict[str, Any]:
        return make_checkpoint(generators)


def names(state: CommonState) -> Iterator[Tuple[str, str]]:
    """(common name, the family's name) of every tensor in ``state``."""
    for name in state:
        head, _, tail = name.partition(".")
        if head == "mapping":
            index, what = tail.split(".")
            yield name, f"mapping.fc{index}.{what}"
        elif head == "w_avg":
            yield name, "mapping.w_avg"
        elif head == "const":
            yield name, "synthesis.b4.const"
        else:
            layer, _, what = tail.partition(".")
            yield name, f"synthesis.b{head}.{layer}.{what if layer == 'excite' else _LAYER[what]}"


def to_common(root: torch.nn.Module, network: Any) -> Dict[str, torch.Tensor]:
    """The tensors of a generator, dense or squeezed.

    Raises:
        UnsupportedModelError: it is not StyleGAN2 as published, so that no other family has the same network.
    """
    mapping: Any = getattr(root, "mapping", None)
    whole: Any = getattr(root, "synthesis", None)
    if mapping is None or whole is not network:
        raise UnsupportedModelError(f"{type(root).__name__} is no whole generator (mapping and synthesis)")
    _check_mapping(mapping)
    found = {}
    for index in range(mapping.num_layers):
        layer = getattr(mapping, f"fc{index}")
        found[f"mapping.{index}.weight"], found[f"mapping.{index}.bias"] = layer.weight, layer.bias
    if getattr(mapping, "w_avg", None) is not None:
        found["w_avg"] = mapping.w_avg
    found["const"] = network.b4.const
    for size in network.block_resolutions:
        block = getattr(network, f"b{size}")
        for part in ("conv0", "conv1", "torgb"):
            if part in block._modules:
                _check_layer(getattr(block, part), f"b{size}.{part}")
                own = dict(getattr(block, part).state_dict())
                found.update({f"{size}.{part}.{to}": own[name] for to, name in _LAYER.items() if name in own})
        if "excite" in block._modules:
            _check_tensors(block.excite, ("weight", "bias"), f"b{size}.excite")
            found.update({f"{size}.excite.{name}": value for name, value in block.excite.state_dict().items()})
    return {name: tensor.detach().to(device="cpu", dtype=torch.float32) for name, tensor in found.items()}


def dense_generator(state: CommonState) -> torch.nn.Module:
    """A dense generator of the host whose folder can be imported from, of the sizes of ``state``, random weights.

    Raises:
        UnsupportedModelError: no such host, or one that cannot have these sizes.
    """
    w_dim = state["mapping.0.weight"].shape[1]
    return built(
        "Generator",
        z_dim=w_dim,
        c_dim=0,
        w_dim=w_dim,
        img_resolution=resolutions(state)[-1],
        img_channels=len(state["4.torgb.bias"]),
        mapping_kwargs={"num_layers": mapping_layers(state)},
        **synthesis_options(channel_options(channels(state))),
    )


def load(G: torch.nn.Module, state: CommonState) -> None:
    """Every tensor of ``state`` into a generator of its sizes; filters, and w_avg where it is not known, stay."""
    own = G.state_dict()
    new = {name: state[common].reshape(own[name].shape) for common, name in names(state)}
    G.load_state_dict({**own, **new})


def make_checkpoint(generators: Mapping[str, Any], D: Optional[torch.nn.Module] = None) -> Dict[str, Any]:
    """A checkpoint as the hosts' scripts read it. They refuse one without a discriminator: where there is none to give,
    it has one that is untrained, as wide as the generator."""
    only = next(iter(generators.values()))
    if D is None:
        sides = only.synthesis.block_resolutions
        widest = {side: getattr(only.synthesis, f"b{side}").conv1.weight.shape[1] for side in sides}
        image = {"img_resolution": only.img_resolution, "img_channels": only.img_channels}
        D = built("Discriminator", c_dim=only.c_dim, **image, **channel_options(widest))
    entries = {"training_set_kwargs": None, "G": only, "D": D, "G_ema": only}
    return {**entries, **generators, "augment_pipe": None}


def _check_mapping(mapping: Any) -> None:
    if mapping.c_dim:
        raise UnsupportedModelError("the generator has classes (c_dim above 0), which the other families do not know")
    if mapping.z_dim != mapping.w_dim:
        raise UnsupportedModelError(f"latents have {mapping.z_dim} numbers and styles {mapping.w_dim}; others want one")
    for index in range(mapping.num_layers):
        layer = getattr(mapping, f"fc{index}")
        _check_tensors(layer, ("weight", "bias"), f"mapping layer {index}")
        if tuple(layer.weight.shape) != (mapping.w_dim, mapping.w_dim):
            raise UnsupportedModelError(f"mapping layer {index} has weights of {tuple(layer.weight.shape)}")
        if not math.isclose(layer.weight_gain * math.sqrt(mapping.w_dim), MAPPING_LR, rel_tol=1e-6):
            raise UnsupportedModelError(f"the mapping network learns at another rate than {MAPPING_LR} of the others'")


def _check_tensors(layer: Any, wanted: Iterable[str], where: str) -> None:
    missing = missing_tensors(layer, list(wanted))
    if missing:
        raise UnsupportedModelError(f"{where} has no {missing[0]}, which others' layers have")


def _check_layer(layer: Any, where: str) -> None:
    _check_tensors(layer, ("weight", "bias", "affine.weight", "affine.bias"), where)
    if getattr(layer, "activation", "lrelu") != "lrelu":
        raise UnsupportedModelError(f"{where} has the activation {layer.activation}, others have leaky ReLU ({SLOPE})")
    if not getattr(layer, "use_noise", True):
        raise UnsupportedModelError(f"{where} has no noise, which others' layers have")
    taps = getattr(layer, "resample_filter", None)
    if taps is not None:
        one = torch.tensor([1.0, 3.0, 3.0, 1.0], device=taps.device)
        if taps.shape != (4, 4) or not torch.allclose(taps.float(), torch.outer(one, one) / 64):
            raise UnsupportedModelError(f"{where} upsamples with another filter than [1, 3, 3, 1]")
