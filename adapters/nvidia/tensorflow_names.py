"""Variables of the TensorFlow StyleGAN2's networks, as tensors under the names of the NVIDIA family's PyTorch networks.

TensorFlow keeps weights of linear layers as [in, out] and of convolutions as [height, width, in, out]; a convolution
that upsamples has them turned by half a turn; the bias of a style is stored less its one.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence

import numpy as np
import torch

from squeeze_patch.adapters.nvidia.body import binomial_filter
from squeeze_patch.errors import UnsupportedModelError

#: no network has more: pixels along a side and channels, layers of a mapping network
MOST, MOST_LAYERS = 1 << 14, 64
#: variables that are no part of a StyleGAN2: how far progressive growing has come, which it does without
IDLE = frozenset({"lod", "mapping/lod", "synthesis/lod"})

Form = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """One tensor: our name, TensorFlow's, TensorFlow's shape (a number, or a word for a size that is the same wherever
    the word stands), and how the one becomes the other."""

    name: str
    variable: str
    dims: str
    form: Form


def as_is(x: torch.Tensor) -> torch.Tensor:
    return x


def linear(x: torch.Tensor) -> torch.Tensor:
    """[in, out] -> [out, in]"""
    return x.t().contiguous()


def convolution(x: torch.Tensor) -> torch.Tensor:
    """[k, k, in, out] -> [out, in, k, k]"""
    return x.permute(3, 2, 0, 1).contiguous()


def upsampling(x: torch.Tensor) -> torch.Tensor:
    """The same of a transposed convolution."""
    return convolution(x.flip((0, 1)))


def style_bias(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def only(x: torch.Tensor) -> torch.Tensor:
    """[1, c, h, w] -> [c, h, w]"""
    return x[0]


def plane(x: torch.Tensor) -> torch.Tensor:
    """[1, 1, h, w] -> [h, w]"""
    return x[0, 0]


class Variables:
    """What a network stores, every variable of which is taken once.

    Attributes:
        sizes: {word in `Part.dims`: the size that it has turned out to be}.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in found.items() if name not in IDLE}
        self.sizes: Dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def resolutions(self, prefix: str = "") -> List[int]:
        """4, 8, ... up to the largest one that a name has."""
        sides = [1 << power for power in range(2, MOST.bit_length())]
        heads = {name[len(prefix) :].split("/")[0] for name in self._left if name.startswith(prefix)}
        found = [side for side in sides if f"{side}x{side}" in heads]
        return sides[: sides.index(found[-1]) + 1] if found else []

    def has(self, layer: str) -> bool:
        """Whether there is a variable of a layer."""
        return any(name.startswith(f"{layer}/") for name in self._left)

    def count(self, layer: str) -> int:
        """How many layers there are of a name with their number behind it."""
        return max((index + 1 for index in range(MOST_LAYERS) if self.has(f"{layer}{index}")), default=0)

    def take(self, parts: Iterator[Part]) -> Dict[str, torch.Tensor]:
        """{our name: tensor, float32} of all parts, whose shapes fit each other; nothing is left behind.

        Raises:
            ValueError: a variable is missing, holds something else than numbers, or has another shape.
            UnsupportedModelError: there are more variables.
        """
        found = {part.name: self._take(part) for part in parts}
        if self._left:
            raise UnsupportedModelError(f"it has {next(iter(self._left))[:80]}, which is no part of a StyleGAN2")
        return found

    def _take(self, part: Part) -> torch.Tensor:
        if part.variable not in self._left:
            raise ValueError(f"{part.variable} is missing")
        value = self._left.pop(part.variable)
        if not (isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"):
            kind = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"{part.variable} holds {kind}, not floating-point numbers")
        words = part.dims.split()
        fits = len(words) == value.ndim and all(map(self._is, words, value.shape))
        if not fits:
            wanted = ", ".join(word if word.isdigit() else str(self.sizes.get(word, "any")) for word in words)
            raise ValueError(f"{part.variable} has shape {list(value.shape)}, not [{wanted}]")
        return part.form(torch.from_numpy(np.array(value, dtype=np.float32, order="C")))

    def _is(self, word: str, size: int) -> bool:
        wanted = int(word) if word.isdigit() else self.sizes.setdefault(word, size)
        return size == wanted and 0 < size <= MOST


def generator_parts(variables: Variables) -> Iterator[Part]:
    """Of a generator of architecture 'skip'. Sizes: z latents and classes' embedding, e the latter, c classes, h hidden
    layers, w styles, i images' channels, c4, c8, ... channels."""
    yield Part("mapping.w_avg", "dlatent_avg", "w", as_is)
    if variables.has("mapping/LabelEmbed"):
        yield from _linear("mapping.embed", "mapping/LabelEmbed", "c", "e")
    layers = max(variables.count("mapping/Dense"), 1)
    for index in range(layers):
        into, out = "h" if index else "z", "w" if index == layers - 1 else "h"
        yield from _linear(f"mapping.fc{index}", f"mapping/Dense{index}", into, out)
    noise = "synthesis/noise0" in variables or "synthesis/4x4/Conv/noise_strength" in variables
    yield Part("synthesis.b4.const", "synthesis/4x4/Const/const", "1 c4 4 4", only)
    for index, side in enumerate(variables.resolutions("synthesis/") or [4]):
        own, theirs, channels = f"synthesis.b{side}", f"synthesis/{side}x{side}", f"c{side}"
        if index:
            yield from _modulated(f"{own}.conv0", f"{theirs}/Conv0_up", f"3 3 c{side // 2} {channels}", upsampling)
            yield from _noise(f"{own}.conv0", f"{theirs}/Conv0_up", 2 * index - 1, side) if noise else ()
        last = f"{theirs}/Conv1" if index else f"{theirs}/Conv"
        yield from _modulated(f"{own}.conv1", last, f"3 3 {channels} {channels}", convolution)
        yield from _noise(f"{own}.conv1", last, 2 * index, side) if noise else ()
        yield from _modulated(f"{own}.torgb", f"{theirs}/ToRGB", f"1 1 {channels} i", convolution)


def filters(resolutions: Sequence[int]) -> Dict[str, torch.Tensor]:
    """The buffers of a generator that are no variables in TensorFlow."""
    blocks = [f"synthesis.b{side}" for side in resolutions]
    owners = [f"{block}{part}." for block in blocks for part in ("", ".conv0", ".conv1")]
    return {f"{owner}resample_filter": binomial_filter() for owner in owners if owner != "synthesis.b4.conv0."}


def _linear(own: str, theirs: str, into: str, out: str) -> Iterator[Part]:
    yield Part(f"{own}.weight", f"{theirs}/weight", f"{into} {out}", linear)
    yield Part(f"{own}.bias", f"{theirs}/bias", out, as_is)


def _modulated(own: str, theirs: str, dims: str, form: Form) -> Iterator[Part]:
    into, out = dims.split()[2:]
    yield Part(f"{own}.weight", f"{theirs}/weight", dims, form)
    yield Part(f"{own}.bias", f"{theirs}/bias", out, as_is)
    yield Part(f"{own}.affine.weight", f"{theirs}/mod_weight", f"w {into}", linear)
    yield Part(f"{own}.affine.bias", f"{theirs}/mod_bias", into, style_bias)


def _noise(own: str, theirs: str, index: int, side: int) -> Iterator[Part]:
    yield Part(f"{own}.noise_const", f"synthesis/noise{index}", f"1 1 {side} {side}", plane)
    yield Part(f"{own}.noise_strength", f"{theirs}/noise_strength", "", as_is)


def discriminator_parts(variables: Variables, architecture: str) -> Iterator[Part]:
    """Of a discriminator. Sizes: i images' channels, c4, c8, ... channels, s what the last convolution reads, l and d
    what the linear layer reads and makes, c classes, e their embedding."""
    sides = variables.resolutions()[::-1] or [4]
    classes = variables.has("LabelEmbed")
    for side in sides[:-1]:
        own, theirs, below = f"b{side}", f"{side}x{side}", f"c{side // 2}"
        if architecture == "skip" or side == sides[0]:
            yield from _convolution(f"{own}.fromrgb", f"{theirs}/FromRGB", f"1 1 i c{side}")
        yield from _convolution(f"{own}.conv0", f"{theirs}/Conv0", f"3 3 c{side} c{side}")
        yield from _convolution(f"{own}.conv1", f"{theirs}/Conv1_down", f"3 3 c{side} {below}")
        if architecture == "resnet":
            yield Part(f"{own}.skip.weight", f"{theirs}/Skip/weight", f"1 1 c{side} {below}", convolution)
    if architecture == "skip":
        yield from _convolution("b4.fromrgb", "4x4/FromRGB", "1 1 i c4")
    yield from _convolution("b4.conv", "4x4/Conv", "3 3 s c4")
    yield from _linear("b4.fc", "4x4/Dense0", "l", "d")
    yield from _linear("b4.out", "Output", "d", "e" if classes else "1")
    if classes:
        yield from _linear("mapping.embed", "LabelEmbed", "c", "e")
        for index in range(variables.count("Mapping")):
            yield from _linear(f"mapping.fc{index}", f"Mapping{index}", "e", "e")


def _convolution(own: str, theirs: str, dims: str) -> Iterator[Part]:
    yield Part(f"{own}.weight", f"{theirs}/weight", dims, convolution)
    yield Part(f"{own}.bias", f"{theirs}/bias", dims.split()[-1], as_is)
