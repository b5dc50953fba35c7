"""Whether a body that was made of a state dict is a generator: its layers follow one another, and noise and filters are
of the sizes that they need. What this lets pass can be run.
"""

from __future__ import annotations

from typing import Any, Iterator

import torch

from squeeze_patch.adapters.rosinality.block import read_block
from squeeze_patch.adapters.rosinality.body import FlatBody
from squeeze_patch.adapters.rosinality.layout import filter_of, get, layer_paths

#: taps of a filter along a side; the hosts' has 4
MOST_TAPS = 16
#: of resolutions: 4x4 to 65536x65536
MOST_BLOCKS = 15


def fault(G: FlatBody) -> str:
    """What is wrong with a body, in words; "" where nothing is."""
    return next(_faults(G), "")


def _faults(G: FlatBody) -> Iterator[str]:
    layout, rgbs = G.layout, len(G.to_rgbs)
    const, convs = get(G, layout.const), len(get(G, layout.convs))
    if const.dim() != 4 or const.shape[0] != 1 or 0 in const.shape:
        yield f"{layout.const} has shape {list(const.shape)}"
        return
    if convs != 2 * rgbs or rgbs >= MOST_BLOCKS:
        yield f"it has {convs} convolutions in {layout.convs} for {rgbs} layers in to_rgbs"
        return
    channels, images = const.shape[1], get(G.to_rgb1, layout.modulated).weight.shape[1]
    for paths in layer_paths(G, layout):
        block: Any = read_block(G, paths)
        conv1, torgb = (get(layer, layout.modulated).weight for layer in (block.conv1, block.torgb))
        if paths.up is not None:
            up = get(G, paths.up)
            weight = get(up, layout.modulated).weight
            yield from _faults_of_shape(paths.up, weight, (1, weight.shape[1], channels, 3, 3))
            yield from _faults_of_filter(paths.up, filter_of(up, layout))
            channels = weight.shape[1]
        yield from _faults_of_shape(paths.conv1, conv1, (1, conv1.shape[1], channels, 3, 3))
        yield from _faults_of_shape(paths.torgb, torgb, (1, images, conv1.shape[1], 1, 1))
        yield from _faults_of_filter(paths.torgb, getattr(getattr(block.torgb, "upsample", None), "kernel", None))
        if hasattr(block, "excite"):
            excite = block.excite.weight
            yield from _faults_of_shape(f"{paths.reader}.excite", excite, (excite.shape[0], conv1.shape[1], 1, 1))
        channels = excite.shape[0] if hasattr(block, "excite") else conv1.shape[1]
    yield from _faults_of_noise(G, *const.shape[2:])


def _faults_of_shape(where: str, weight: torch.Tensor, wanted: Any) -> Iterator[str]:
    if tuple(weight.shape) != wanted or 0 in wanted:
        yield f"{where} has shape {list(weight.shape)}, not {list(wanted)}"


def _faults_of_filter(where: str, kernel: Any) -> Iterator[str]:
    if isinstance(kernel, torch.Tensor) and not (
        kernel.dim() == 2 and 0 < kernel.shape[0] == kernel.shape[1] <= MOST_TAPS
    ):
        yield f"{where} has a filter of shape {list(kernel.shape)}"


def _faults_of_noise(G: FlatBody, height: int, width: int) -> Iterator[str]:
    """Of stored noise, as far as it is there: maps of the sizes of the convolutions' outputs."""
    for name, noise in G.noises.named_buffers():
        digits = name[len(G.layout.stored_noise.partition(".")[2]) :]
        if not digits.isdecimal() or len(digits) > 2:
            yield f"noises.{name} is no noise of a convolution"
            return
        times = 2 ** ((int(digits) + 1) // 2)
        yield from _faults_of_shape(f"noises.{name}", noise, (1, 1, height * times, width * times))
