"""Pickles of the TensorFlow StyleGAN2 (NVlabs/stylegan2, stylegan2-ada), read without TensorFlow and without a run.

Such a file holds G, D and Gs, the moving average, as objects of dnnlib.tflib: names and values of variables, options,
and the source of the module that builds the network, of which nothing is run. What the options and variables do not say
to be a StyleGAN2 as published is refused by its name.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Tuple

import torch

from squeeze_patch.adapters.interchange import MAPPING_LR
from squeeze_patch.adapters.nvidia.hosted import hosted_discriminator, hosted_generator
from squeeze_patch.adapters.nvidia.interchange import make_checkpoint
from squeeze_patch.adapters.nvidia.states import generator_from_state
from squeeze_patch.adapters.nvidia.tensorflow_names import Variables, discriminator_parts, filters, generator_parts
from squeeze_patch.adapters.nvidia.tensorflow_options import check_options, number
from squeeze_patch.adapters.records import Global, Inert, state_of
from squeeze_patch.errors import UnsupportedModelError, shown

NETWORK = Global("dnnlib.tflib.network", "Network")
#: the version of the pickles' form since StyleGAN2
VERSION = 4
#: a file has three networks, a network the two that it consists of
MOST_NETWORKS = 8
#: {function that builds a network: what it is}
OTHERS = {
    "G_style": "StyleGAN, the first",
    "D_basic": "StyleGAN, the first",
    "G_paper": "ProGAN",
    "D_paper": "ProGAN",
    "G_synthesis_stylegan_revised": "StyleGAN2 in one of its configurations B to D, which grow progressively",
    "D_stylegan": "StyleGAN2 in one of its configurations B to D, which grow progressively",
}


@dataclass(frozen=True)
class Network:
    """One network, its parts' variables among its own: "synthesis/4x4/Const/const".

    Attributes:
        functions: names of the functions that built it and its parts.
    """

    name: str
    functions: Tuple[str, ...]
    options: Mapping[str, Any]
    variables: Mapping[str, Any]
    parts: FrozenSet[str]

    @property
    def is_generator(self) -> bool:
        return "synthesis" in self.parts or any(function.startswith("G_") for function in self.functions)

    def number(self, option: str, usual: float) -> float:
        """An option that is a positive number."""
        return number(self.options, option, usual)

    @property
    def clamp(self) -> Optional[float]:
        return None if self.options.get("conv_clamp") is None else self.number("conv_clamp", 0)


class TensorFlowFile:
    """The networks of a file: `adapters.roles.Foreign`.

    Raises:
        ValueError: a network is damaged.
        UnsupportedModelError: a generator is no StyleGAN2.
    """

    def __init__(self, networks: List[Any]) -> None:
        self.networks = _named([_network(value) for value in networks])
        self.entries: Dict[str, Any] = {}
        self._discriminator: Any = None
        for entry, network in self.networks.items():
            try:
                made = generator(network) if network.is_generator else self._inert_discriminator(network)
            except UnsupportedModelError as error:
                raise UnsupportedModelError(f"{entry}: {error}") from error
            except ValueError as error:
                raise ValueError(f"{entry}: {error}") from error
            self.entries[entry] = made

    @property
    def words(self) -> str:
        classes = any(getattr(entry, "c_dim", 0) for entry in self.entries.values())
        other = "" if classes else ", or carry the generators over with --to rosinality, and squeeze the result"
        other += "; --format pt writes the squeezed moving average alone"
        return (
            "this is a TensorFlow pickle. squeeze-patch convert makes a PyTorch file of it with a host's own classes: "
            f"name the checkout of one (stylegan2-ada-pytorch, stylegan3, ...) with --host DIR{other}"
        )

    def _inert_discriminator(self, network: Network) -> Any:
        """Tensors of the discriminator for those who look; one that no host has is no reason not to read the rest."""
        try:
            self._discriminator = discriminator_state(network)
            tensors = self._discriminator
        except UnsupportedModelError as error:
            self._discriminator = error
            shapes = {name: getattr(value, "shape", ()) for name, value in network.variables.items()}
            tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        made = object.__new__(_discriminator_class())
        vars(made).update(_parameters=tensors)
        return made

    def hosted(self) -> Dict[str, Any]:
        """The entries of a checkpoint with networks of the host's own classes, whose modules can be imported.

        Raises:
            UnsupportedModelError: they cannot, or do not have this network.
        """
        if isinstance(self._discriminator, UnsupportedModelError):
            raise UnsupportedModelError(
                f"D: {self._discriminator}; no host's discriminator is the same. --to rosinality goes without"
            )
        generators = {
            entry: hosted_generator(self.entries[entry], self.networks[entry].number("dlatent_avg_beta", 0.995))
            for entry in self.entries
            if self.networks[entry].is_generator
        }
        return make_checkpoint(generators, None if self._discriminator is None else self._hosted_discriminator())

    def _hosted_discriminator(self) -> torch.nn.Module:
        network = self.networks["D"]
        usual = None if "D_main" in network.functions else 4  # stylegan2-ada's, stylegan2's
        group = network.options.get("mbstd_group_size", usual)
        return hosted_discriminator(
            self._discriminator,
            architecture=network.options.get("architecture", "resnet"),
            group_size=None if group is None else int(network.number("mbstd_group_size", 4)),
            clamp=network.clamp,
            mapping_rate=network.number("mapping_lrmul", 0.1),
        )


def networks_of(data: Any) -> Optional[List[Any]]:
    """The stored networks that a file consists of, None where it is no such file.

    Raises:
        UnsupportedModelError: it holds something else beside them.
    """
    values = list(data.values()) if isinstance(data, dict) else data if isinstance(data, (tuple, list)) else [data]
    found = [value for value in values if isinstance(value, network_class())]
    if not found:
        return None
    if len(found) < len(values) or len(found) > MOST_NETWORKS:
        raise UnsupportedModelError(f"a TensorFlow pickle with {len(values)} entries, {len(found)} of them networks")
    return found


def _named(networks: List[Network]) -> Dict[str, Network]:
    """{"G", "D", "G_ema": network}, by what they are: the last of several generators is the average."""
    generators = sorted(filter(lambda one: one.is_generator, networks), key=lambda one: one.name == "Gs")
    others = [network for network in networks if not network.is_generator]
    if not generators or len(generators) > 2 or len(others) > 1:
        names = ", ".join(network.name[:40] for network in networks)
        raise UnsupportedModelError(f"a TensorFlow pickle of other networks than G, D and Gs ({names})")
    last = {"G" if len(generators) == 1 and generators[0].name == "G" else "G_ema": generators[-1]}
    return {**({"G": generators[0]} if len(generators) == 2 else {}), **({"D": others[0]} if others else {}), **last}


def _network(value: Any, depth: int = 0) -> Network:
    state = state_of(value)
    words, tables = ("name", "build_func_name"), ("static_kwargs", "components")
    good = all(isinstance(state.get(key), str) for key in words) and isinstance(state.get("version"), int)
    good = good and all(isinstance(state.get(key), dict) for key in tables) and isinstance(state.get("variables"), list)
    if not good:
        raise ValueError("a network without name, version, options, parts or variables")
    options, parts = state["static_kwargs"], state["components"]
    if not (all(isinstance(key, str) for key in (*options, *parts)) and len(parts) <= MOST_NETWORKS >> depth):
        raise ValueError("a network of networks that no StyleGAN2 is")
    inner = {}
    for name, part in parts.items():
        if depth or not isinstance(part, network_class()):
            raise ValueError(f"{name[:40]} is no part that a network has")
        inner[name] = _network(part, depth + 1)
    variables = _variables(state["variables"])
    for name, part in inner.items():
        variables.update({f"{name}/{key}": value for key, value in part.variables.items()})
    functions = [state["build_func_name"], *(part.functions[0] for part in inner.values())]
    _check_kind(functions, state["version"])
    shared = {key: item for part in inner.values() for key, item in part.options.items()}
    return Network(state["name"], tuple(functions), {**shared, **options}, variables, frozenset(parts))


def _variables(pairs: List[Any]) -> Dict[str, Any]:
    good = all(isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs)
    found = dict(pairs) if good else {}
    if not good or len(found) < len(pairs):
        raise ValueError("its variables are no pairs of names and values")
    return found


def _check_kind(functions: List[str], version: int) -> None:
    for function in functions:
        if function in OTHERS and not function.startswith("D_"):
            raise UnsupportedModelError(f"this is {OTHERS[function]} ({function}), which has no toRGB per resolution")
    if version < VERSION:
        raise UnsupportedModelError(f"this is a network of StyleGAN, the first, or of ProGAN (version {version})")


def generator(network: Network) -> torch.nn.Module:
    """A generator of our own (`body.Generator`).

    Raises:
        ValueError: variables are missing, or do not belong together.
        UnsupportedModelError: it is no StyleGAN2 of architecture 'skip'.
    """
    architecture = network.options.get("architecture", "skip")
    if architecture != "skip":
        raise UnsupportedModelError(
            f"the generator has architecture {shown(architecture)}; the squeeze connection replaces the image skip "
            "connection, so only 'skip' can be squeezed (the default)"
        )
    if "mapping/LabelConcat/weight" in network.variables:
        raise UnsupportedModelError(
            "the generator has classes as the first StyleGAN2 had them (LabelConcat: joined to the latents before both "
            "are normalised), which none of the PyTorch hosts computes; those of stylegan2-ada can be read"
        )
    variables = Variables(network.variables)
    resolutions = variables.resolutions("synthesis/")
    layers = variables.count("mapping/Dense")
    state = variables.take(generator_parts(variables))
    size = variables.sizes
    sizes = {"label_size": size.get("c", 0), "label_fmaps": size.get("e"), "dlatent_size": size["w"]}
    sizes.update(latent_size=size["z"] - size.get("e", 0), mapping_fmaps=size.get("h"), mapping_layers=layers)
    sizes.update(resolution=resolutions[-1], num_channels=size["i"])
    check_options(network.options, {**sizes, "architecture": "skip"})
    G = generator_from_state({**state, **filters(resolutions)})
    _describe(G, network)
    return G


def _describe(G: Any, network: Network) -> None:
    """What shapes do not say."""
    rate, clamp = network.number("mapping_lrmul", MAPPING_LR), network.clamp
    for name, layer in G.mapping.named_children():
        if name.startswith("fc"):
            layer.bias_gain, layer.weight_gain = rate, rate / math.sqrt(layer.in_features)
    for layer in G.synthesis.modules():
        if hasattr(layer, "conv_clamp"):
            layer.conv_clamp = clamp


def discriminator_state(network: Network) -> Dict[str, torch.Tensor]:
    """The tensors of a discriminator under the names of the hosts' Discriminator.

    Raises:
        ValueError: variables are missing, or do not belong together.
        UnsupportedModelError: no host's has such layers.
    """
    for function in network.functions:
        if function in OTHERS:
            raise UnsupportedModelError(f"the discriminator is of {OTHERS[function]} ({function})")
    architecture = network.options.get("architecture", "resnet")
    if architecture not in ("resnet", "skip", "orig"):
        raise UnsupportedModelError(f"the discriminator has architecture {shown(architecture)}")
    classes = network.options.get("label_size", 0)
    variables = Variables(network.variables)
    if classes and not variables.has("LabelEmbed"):
        raise UnsupportedModelError("the discriminator has classes as the first StyleGAN2 had them")
    resolutions, layers = variables.resolutions(), variables.count("Mapping")
    state = variables.take(discriminator_parts(variables, architecture))
    size = variables.sizes
    if size["l"] != 16 * size["c4"]:
        raise ValueError(f"4x4/Dense0/weight has shape [{size['l']}, {size['d']}] behind {size['c4']} channels")
    sizes = {"label_size": size.get("c", 0), "resolution": (resolutions or [4])[-1], "num_channels": size.get("i")}
    sizes.update(mapping_layers=layers, mapping_fmaps=size.get("e"), mbstd_num_features=size["s"] - size["c4"])
    check_options(network.options, {**sizes, "architecture": architecture})
    return state


@functools.cache
def network_class() -> Any:
    """The class of stored networks."""
    return type("Network", (Inert,), {"origin": NETWORK})


@functools.cache
def _discriminator_class() -> Any:
    return type("Discriminator", (Inert,), {"origin": Global("training.networks", "Discriminator")})
