"""Networks of the host's own classes, for tensors that are in no host's pickle yet.

The host is the one whose folder can be imported from. Tensors have the family's names, and all of them have a place.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Dict, Mapping, Optional

import torch

from squeeze_patch.errors import UnsupportedModelError, module_cure
from squeeze_patch.process_settings import random_kept

#: modules of the family's repositories that have a StyleGAN2 Generator
MODULES = ("training.networks", "training.networks_stylegan2")
#: modules at the top of a checkout, which what is imported from there imports in turn
OF_A_CHECKOUT = ("torch_utils", "dnnlib", "training", "legacy", "pg_modules")

Module = torch.nn.Module


def missing_module(name: str) -> Optional[str]:
    """What to do where a host's code misses the module ``name`` (dotted), None where it is not this family's."""
    top = name.split(".")[0]
    if top in OF_A_CHECKOUT:
        return f"The pickle was made in a host's checkout and needs its {top}: name that folder with --host DIR"
    return None


def host_module() -> Any:
    """The host's module with Generator and Discriminator.

    Raises:
        UnsupportedModelError: there is none, or it cannot be imported.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                continue
            cure = missing_module(error.name or "") or module_cure(error.name) or f"Install {error.name}"
            raise UnsupportedModelError(f"{name} of the host cannot be imported: {error}. {cure}") from error
        if hasattr(module, "Generator") and hasattr(module, "Discriminator"):
            return module
    raise UnsupportedModelError(
        "a pickle of the NVIDIA family is made with a host's own classes: name its checkout with --host DIR "
        f"(looked for a Generator in {' and '.join(MODULES)})"
    )


def built(name: str, **options: Any) -> Module:
    """A network of the host's class ``name``, of random weights, in evaluation mode, without gradients."""
    with random_kept():
        try:
            made: Module = getattr(host_module(), name)(**options)
        except (TypeError, AssertionError) as error:
            raise UnsupportedModelError(f"the host's {name} does not take these sizes: {error}") from error
    return made.eval().requires_grad_(False)


def channel_options(widths: Mapping[int, int]) -> Dict[str, int]:
    """channel_base and channel_max of a network with these channels, {resolution: channels}."""
    top = max(widths.values())
    base = max([count * side for side, count in widths.items() if count < top] or [top * max(widths)])
    wanted = {side: min(base // side, top) for side in widths}
    if wanted != dict(widths):
        raise UnsupportedModelError(
            f"channels {dict(widths)} are none that the NVIDIA family's channel_base and channel_max make ({wanted})"
        )
    return {"channel_base": base, "channel_max": top}


def synthesis_options(options: Dict[str, Any]) -> Dict[str, Any]:
    """Options of the synthesis network as the host's Generator takes them: together, or, in stylegan3 and its
    relatives, one by one."""
    classes = host_module().Generator.__mro__[:-1]  # the subclass that the decorator makes does not say which
    nested = any("synthesis_kwargs" in inspect.getfullargspec(cls.__init__).args for cls in classes)
    return {"synthesis_kwargs": options} if nested else options


def hosted_generator(body: Any, w_avg_beta: float) -> Module:
    """The host's generator with the settings and tensors of a dense one of our own (`body.Generator`).

    Raises:
        UnsupportedModelError: there is no host, or it has no such generator.
    """
    mapping, network = body.mapping, body.synthesis
    widths = {side: getattr(network, f"b{side}").conv1.weight.shape[0] for side in network.block_resolutions}
    alike = {"conv_clamp": network.b4.conv1.conv_clamp, "use_noise": network.b4.conv1.use_noise}
    layers = synthesis_options({**channel_options(widths), "num_fp16_res": 0, **alike})
    embedded = {"embed_features": mapping.embed.weight.shape[0]} if mapping.c_dim else {}
    options = {"num_layers": mapping.num_layers, "lr_multiplier": mapping.fc0.bias_gain, "w_avg_beta": w_avg_beta}
    hidden = {"layer_features": mapping.fc0.weight.shape[0]} if mapping.num_layers > 1 else {}
    sizes = {"z_dim": body.z_dim, "c_dim": body.c_dim, "w_dim": body.w_dim}
    image = {"img_resolution": body.img_resolution, "img_channels": body.img_channels}
    G = built("Generator", **sizes, **image, mapping_kwargs={**options, **hidden, **embedded}, **layers)
    return _filled(G, body.state_dict())


def hosted_discriminator(
    state: Mapping[str, torch.Tensor],
    architecture: str,
    group_size: Optional[int],
    clamp: Optional[float],
    mapping_rate: float,
) -> Module:
    """The host's discriminator with the tensors of ``state``.

    Args:
        group_size: of the minibatch standard deviation, None = the whole minibatch.
        clamp: of its layers' activations, None = none.
        mapping_rate: learning rate of its mapping network.

    Raises:
        UnsupportedModelError: as for `hosted_generator`.
    """
    sides = sorted({int(name.split(".")[0][1:]) for name in state if name[0] == "b"})
    widths = {side: state[f"b{side}.conv0.weight"].shape[1] for side in sides[1:]}
    widths[4] = state["b4.conv.weight"].shape[0]
    colours = state[f"b{sides[-1]}.fromrgb.weight"].shape[1]
    embed = state.get("mapping.embed.weight", torch.empty(0, 0))
    layers = sum(name.startswith("mapping.fc") and name.endswith("weight") for name in state)
    statistics = state["b4.conv.weight"].shape[1] - widths[4]
    D = built(
        "Discriminator",
        c_dim=embed.shape[1],
        img_resolution=sides[-1],
        img_channels=colours,
        architecture=architecture,
        **channel_options(widths),
        num_fp16_res=0,
        conv_clamp=clamp,
        cmap_dim=embed.shape[0],
        mapping_kwargs={"num_layers": layers, "lr_multiplier": mapping_rate},
        epilogue_kwargs={"mbstd_group_size": group_size, "mbstd_num_channels": statistics},
    )
    return _filled(D, state)


def _filled(module: Module, state: Mapping[str, torch.Tensor]) -> Module:
    """``module`` with all tensors of ``state``; filters, which are constant, may be missing there."""
    own = module.state_dict()
    needed = [name for name in own if name in state or not name.endswith("resample_filter")]
    for name in [*needed, *state]:
        there, here = (list(tensors[name].shape) if name in tensors else "missing" for tensors in (own, state))
        if there != here:
            raise UnsupportedModelError(
                f"the host's {type(module).__name__} is another network: {name} is {there} there, {here} in the file"
            )
    module.load_state_dict({**own, **state})
    return module
