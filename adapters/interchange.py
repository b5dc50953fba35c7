"""A generator's tensors under names that no host uses, for carrying it from one family to another.

All families that speak them mean StyleGAN2 as published: equalised learning rates everywhere (mapping: 0.01), leaky
ReLU of slope 0.2 and gain sqrt(2), the filter [1, 3, 3, 1], toRGB with its gain of 1 / sqrt(channels).

================================  =======================================================================
``mapping.{i}.weight``, ``.bias``  layer i of the mapping network [w_dim, w_dim], [w_dim]
``w_avg``                          mean style [w_dim]; left out where it is not known
``const``                          [c, 4, 4]
``{R}.conv0.*``, ``{R}.conv1.*``   ``weight`` [out, in, 3, 3], ``bias`` [out], ``style.weight`` [in, w_dim],
                                   ``style.bias`` [in], ``noise_strength`` [], ``noise`` [R, R]; no conv0 at 4x4
``{R}.torgb.*``                    ``weight`` [img_channels, in, 1, 1], ``bias``, ``style.weight``, ``style.bias``
``{R}.excite.*``                   ``weight`` [c, q, 1, 1], ``bias`` [c] of a squeezed block that has a reader
================================  =======================================================================
"""

from __future__ import annotations

from typing import Dict, List, Mapping

import torch

from squeeze_patch.adapters.content import BlockShape

CommonState = Mapping[str, torch.Tensor]

MAPPING_LR = 0.01
SLOPE = 0.2


def resolutions(state: CommonState) -> List[int]:
    """4, 8, ... of the generator's blocks."""
    return sorted({int(name.split(".")[0]) for name in state if name.split(".")[0].isdigit()})


def mapping_layers(state: CommonState) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("mapping.")})


def widths(state: CommonState) -> Dict[int, int]:
    """{resolution: q} of the squeezed blocks.

    In the last one nothing but a smaller conv1 tells squeezed from dense; at full width the other blocks do: where all
    others are squeezed, it is, too. Where others are narrowed and none is squeezed, it is narrowed, too.
    """
    *others, last = resolutions(state)
    found = {size: len(state[f"{size}.conv1.bias"]) for size in others if f"{size}.excite.weight" in state}
    sides = {size: state[f"{size}.conv1.weight"].shape[:2] for size in (*others, last)}
    width, inner = sides[last]
    narrowed = [size for size in others if size not in found and sides[size][0] != sides[size][1]]
    unlike = width != inner and (len(found) > 0 or (width < inner and not narrowed))
    if unlike or len(found) == len(others) > 0:
        found[last] = width
    return found


def channels(state: CommonState) -> Dict[int, int]:
    """{resolution: c}, as far as it shows: of a narrowed block, or the last one, that is what is left of them."""
    made = {size: state.get(f"{size}.excite.weight") for size in resolutions(state)}
    left = {size: max(state[f"{size}.conv1.weight"].shape[:2]) for size in made}
    return {size: left[size] if excite is None else excite.shape[0] for size, excite in made.items()}


def shapes(state: CommonState) -> Dict[int, BlockShape]:
    """{resolution: sizes} of the blocks that are squeezed or narrowed, as far as it shows."""
    found: Dict[int, BlockShape] = {}
    squeezed, full, inputs = widths(state), channels(state), 0
    for size, c in full.items():
        width, inner = state[f"{size}.conv1.weight"].shape[:2]
        read = state[f"{size}.conv0.weight"].shape[1] if inputs else 0
        if size in squeezed or (read, inner, width) != (inputs, c, c):
            found[size] = BlockShape(read, inner, width, size in squeezed)
        inputs = c
    return found
