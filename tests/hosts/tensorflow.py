"""Pickles as the TensorFlow StyleGAN2 wrote them, made without TensorFlow: its objects by their pickled state alone."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Optional, Tuple
from unittest import mock

import numpy as np

Shapes = Dict[str, Tuple[int, ...]]
#: what every network here was made with unless a test says otherwise; configuration F is 16384, E is 8192, both of 512
SIZES: Dict[str, Any] = {"resolution": 32, "fmap_base": 256, "fmap_max": 32, "latent_size": 24, "dlatent_size": 24}
#: small enough to be read some hundred times
TINY = {"resolution": 8, "fmap_base": 16, "fmap_max": 8, "latent_size": 4, "dlatent_size": 4, "mapping_layers": 2}
#: options that a discriminator does not have
OF_GENERATORS = ("latent_size", "dlatent_size", "mapping_layers", "mapping_fmaps", "mapping_lrmul", "label_fmaps")
OF_GENERATORS += ("use_noise",)
#: source in the file, which shall not run
SOURCE = "import os\nos.system('echo the source of a network has run > {mark}')\n"


class Network:
    """One of dnnlib.tflib's, by what it pickles."""

    def __init__(self, name: str, function: str, options: Dict[str, Any], variables: List[Any], **parts: Any) -> None:
        self.state: Dict[str, Any] = {
            "version": 4,
            "name": name,
            "static_kwargs": options,
            "components": parts,
            "build_module_src": SOURCE.format(mark="mark"),
            "build_func_name": function,
            "variables": variables,
        }

    def __getstate__(self) -> Dict[str, Any]:
        return self.state


Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"


def channels(options: Dict[str, Any], side: int) -> int:
    return int(min(2 * options.get("fmap_base", 16384) // side, options.get("fmap_max", 512)))


def sides(options: Dict[str, Any]) -> List[int]:
    return [1 << power for power in range(2, int(options["resolution"]).bit_length())]


def values(shapes: Shapes, seed: int, lrmul: float = 1.0) -> List[Tuple[str, Any]]:
    """Random variables as trained ones look: zero-dimensional ones are numpy's scalars, as TensorFlow returns them."""
    random = np.random.RandomState(seed)
    found = []
    for name, shape in shapes.items():
        value = random.randn(*shape) * (0.3 if "bias" in name or "strength" in name else 1)
        value = value / lrmul if name.startswith("Dense") else value
        found.append((name, np.float32(value) if shape == () else value.astype(np.float32)))
    return found


def mapping(seed: int, options: Dict[str, Any], ada: bool) -> Network:
    z, w = options["latent_size"], options["dlatent_size"]
    classes, layers = options.get("label_size", 0), options.get("mapping_layers", 8)
    shapes: Shapes = {}
    into = z
    if classes and ada:
        embedded = options.get("label_fmaps") or z
        shapes.update({"LabelEmbed/weight": (classes, embedded), "LabelEmbed/bias": (embedded,)})
        into += embedded
    elif classes:
        shapes["LabelConcat/weight"] = (classes, z)
        into += z
    for index in range(layers):
        out = w if index == layers - 1 else options.get("mapping_fmaps") or w
        shapes.update({f"Dense{index}/weight": (into, out), f"Dense{index}/bias": (out,)})
        into = out
    found = values(shapes, seed, options.get("mapping_lrmul", 0.01))
    return Network("G_mapping", "G_mapping", {**options, "dlatent_broadcast": 2 * len(sides(options))}, found)


def modulated(name: str, w: int, kernel: int, into: int, out: int) -> Shapes:
    shapes: Shapes = {f"{name}/weight": (kernel, kernel, into, out), f"{name}/bias": (out,)}
    return {**shapes, f"{name}/mod_weight": (w, into), f"{name}/mod_bias": (into,)}


def synthesis(seed: int, options: Dict[str, Any], ada: bool) -> Network:
    w, images = options["dlatent_size"], options.get("num_channels", 3)
    noise = options.get("use_noise", True)
    shapes: Shapes = {"4x4/Const/const": (1, channels(options, 4), 4, 4)}
    for index, side in enumerate(sides(options)):
        here, before = channels(options, side), channels(options, side // 2)
        above = {f"{side}x{side}/Conv0_up": before, f"{side}x{side}/Conv1": here}
        convolutions = above if index else {"4x4/Conv": here}
        for number, (name, into) in enumerate(convolutions.items()):
            shapes.update(modulated(name, w, 3, into, here))
            if noise:
                shapes[f"{name}/noise_strength"] = ()
                shapes[f"noise{2 * index - len(convolutions) + 1 + number}"] = (1, 1, side, side)
        shapes.update(modulated(f"{side}x{side}/ToRGB", w, 1, here, images))
    return Network("G_synthesis", "G_synthesis" if ada else "G_synthesis_stylegan2", options, values(shapes, seed))


def generator(name: str = "Gs", seed: int = 1, ada: bool = False, **options: Any) -> Network:
    options = {**SIZES, **options}
    random = np.random.RandomState(seed + 100)
    own = [("dlatent_avg", random.randn(options["dlatent_size"]).astype(np.float32))]
    own += [] if ada else [("lod", np.float32(0))]
    parts = {"synthesis": synthesis(seed, options, ada), "mapping": mapping(seed + 50, options, ada)}
    return Network(name, "G_main", options, own, **parts)


def discriminator(seed: int = 3, ada: bool = False, architecture: Optional[str] = None, **options: Any) -> Network:
    options = {key: value for key, value in {**SIZES, **options}.items() if key not in OF_GENERATORS}
    options.update({} if architecture is None else {"architecture": architecture})
    classes, images = options.get("label_size", 0), options.get("num_channels", 3)
    shapes: Shapes = {}
    every, narrow = sides(options)[::-1], channels(options, 4)
    for side in every:
        name, here, below = f"{side}x{side}", channels(options, side), channels(options, max(side // 2, 4))
        if side == every[0] or architecture == "skip":
            shapes.update({f"{name}/FromRGB/weight": (1, 1, images, here), f"{name}/FromRGB/bias": (here,)})
        if side > 4:
            shapes.update({f"{name}/Conv0/weight": (3, 3, here, here), f"{name}/Conv0/bias": (here,)})
            shapes.update({f"{name}/Conv1_down/weight": (3, 3, here, below), f"{name}/Conv1_down/bias": (below,)})
        if side > 4 and architecture in (None, "resnet"):
            shapes[f"{name}/Skip/weight"] = (1, 1, here, below)
    shapes.update({"4x4/Conv/weight": (3, 3, narrow + 1, narrow), "4x4/Conv/bias": (narrow,)})
    shapes.update({"4x4/Dense0/weight": (16 * narrow, narrow), "4x4/Dense0/bias": (narrow,)})
    out = 1
    if classes:
        out = narrow if ada else classes
        shapes.update({"LabelEmbed/weight": (classes, out), "LabelEmbed/bias": (out,)} if ada else {})
    shapes.update({"Output/weight": (narrow, out), "Output/bias": (out,)})
    return Network("D", "D_main" if ada else "D_stylegan2", options, values(shapes, seed))


def networks(ada: bool = False, architecture: Optional[str] = None, **options: Any) -> Tuple[Network, Network, Network]:
    """(G, D, Gs), as the training loop saves them; ``architecture``: the discriminator's."""
    D = discriminator(ada=ada, architecture=architecture, **options)
    return generator("G", 1, ada, **options), D, generator("Gs", 2, ada, **options)


def write(path: Path, data: Any, protocol: int = 4) -> Path:
    """Pickle with the class under the name that it has in the files."""
    names = ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network")
    modules = {name: ModuleType(name) for name in names}
    vars(modules[names[-1]])["Network"] = Network
    with mock.patch.dict(sys.modules, modules):
        path.write_bytes(pickle.dumps(data, protocol))
    return path
