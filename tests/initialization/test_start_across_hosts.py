"""One trained generator in the classes of four hosts: the same images, and starts that are as near to them."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate
from squeeze_patch.demo import trained_generator
from squeeze_patch.evaluation.compare import compare
from squeeze_patch.testing import float_error
from tests.helpers import FLAT_HOSTS, transplant
from tests.hosts import Host
from tests.hosts.flat import FlatHost

#: sizes of the demo's generator of digits, its one image channel made three, as the flat hosts' generators have
SIZES: Dict[str, Any] = {"resolution": 32, "w_dim": 64, "layers": 2, "channel_base": 1024, "channel_max": 64}


@pytest.fixture
def theirs(draggan: Host) -> Any:
    """In NVIDIA's class."""
    G = draggan.generator(**SIZES).eval().requires_grad_(False)
    state = trained_generator().state_dict()
    for name in state:
        if ".torgb." in name and "affine" not in name and "filter" not in name:
            state[name] = state[name].repeat_interleave(3, dim=0)
    G.load_state_dict({**G.state_dict(), **state}, strict=True)
    return G


def in_rosinality(theirs: Any) -> Any:
    with FLAT_HOSTS["draggan-rosinality"].active():
        G = FLAT_HOSTS["draggan-rosinality"].generator(**SIZES).eval().requires_grad_(False)
    transplant(theirs, G)
    return G


def as_wide(host: FlatHost) -> Any:
    """A generator of basicsr or gfpgan: their ``narrow`` makes 64 channels everywhere, so the last block is remade."""
    G = host.generator(**SIZES).eval()
    layers = importlib.import_module(host.networks)
    G.style_convs[4] = layers.StyleConv(64, 32, 3, 64, sample_mode="upsample")
    G.style_convs[5], G.to_rgbs[2] = layers.StyleConv(32, 32, 3, 64), layers.ToRGB(32, 64)
    return G.eval().requires_grad_(False)


def in_basicsr(rosinality: Any) -> Any:
    """The same tensors under other names."""
    renamed = {
        "input.input": "constant_input.weight",
        "noises.noise_": "noises.noise",
        "style.": "style_mlp.",
        ".conv.": ".modulated_conv.",
        "convs.": "style_convs.",
        "conv1.": "style_conv1.",
        ".noise.weight": ".weight",
    }
    with FLAT_HOSTS["basicsr"].active():
        G = as_wide(FLAT_HOSTS["basicsr"])
    state = {}
    for name, value in rosinality.state_dict().items():
        if not name.endswith(".kernel"):
            for old, new in renamed.items():
                inside = old[0] == "."
                name = name.replace(old, new, 1) if inside or name.startswith(old) else name
            state[name] = value
    G.load_state_dict(state, strict=True)
    return G


def in_clean(basicsr: Any) -> Any:
    """Every run-time gain multiplied into the weights; kernels of up-convolutions turned round."""
    layers = {name: layer for name, layer in basicsr.named_modules() if hasattr(layer, "scale")}
    state = {}
    for name, value in basicsr.state_dict().items():
        path, leaf = name.rpartition(".")[::2]
        layer: Any = layers.get(path)
        gain = math.sqrt(2) if path.startswith("style_mlp") or (path.startswith("style_conv") and not layer) else 1.0
        if leaf == "weight" and layer is not None:
            gain *= layer.scale
        if leaf == "bias" and layer is not None:
            gain *= getattr(layer, "lr_mul", math.sqrt(2) / gain)
        if getattr(layer, "sample_mode", None) == "upsample" and leaf == "weight":
            value = value.flip([3, 4])
        if path.startswith("style_mlp"):
            name = f"style_mlp.{2 * int(path.split('.')[1]) - 1}.{leaf}"
        if path.endswith(".activate"):
            name, value = name.replace(".activate", ""), value.reshape(1, -1, 1, 1)
        state[name] = value if path == "noises" else value * gain
    with FLAT_HOSTS["gfpgan"].active():
        G = as_wide(FLAT_HOSTS["gfpgan"])
    G.load_state_dict(state, strict=True)
    return G


def effective(G: Any) -> List[torch.Tensor]:
    """Every trained tensor that the adapter reads of a generator, run-time gains included."""
    found: List[torch.Tensor] = []
    for block in locate(G).dense_blocks():
        found += [block.rgb_weight * block.rgb_style.bias, block.rgb_weight @ block.rgb_style.weight, block.rgb_bias]
        for conv in (block.conv0, block.conv1):
            found += [conv.weight, conv.bias, conv.style.weight, conv.style.bias] if conv else []
    return found


def psnr_of_start(G: Any) -> float:
    """Of the calibrated start to the dense generator's own images, noise off."""
    squeezed = squeeze_patch.apply(copy.deepcopy(G), allocate="uniform", keep_original=False)
    return compare(G, squeezed, samples=128, noise_mode="none").psnr


def test_starts_are_equally_good(theirs: Any, draggan: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Within half a decibel. gfpgan's images are other ones: where the others see zeros around a map that they
    upsample, it repeats the border, and of 4x4 positions most are border. Its weights are the same.
    """
    flat = {"rosinality": in_rosinality(theirs)}
    flat["basicsr"] = in_basicsr(flat["rosinality"])
    flat["gfpgan"] = in_clean(flat["basicsr"])
    z, c = draggan.latents(theirs, n=8)
    images = draggan.images(theirs, z, c, noise="none")
    for name, G in flat.items():
        for one, other in zip(effective(theirs), effective(G)):
            # a few products of a gain and a weight, each rounded by half an epsilon, and sums of 64 for toRGB
            assert (one - other).abs().max() <= 32 * torch.finfo(torch.float32).eps * one.abs().max(), name
        if name != "gfpgan":
            own = FLAT_HOSTS["basicsr"].images(G, z, c, noise="none")
            assert (own - images).abs().max() <= float_error(theirs, images), name
    found = {name: psnr_of_start(G) for name, G in {"NVIDIA": theirs, **flat}.items()}
    with capsys.disabled():
        print(f"\nPSNR of the start in the classes of { ({name: round(psnr, 2) for name, psnr in found.items()}) }")
    assert found["NVIDIA"] > 20  # the mean image has 13.0 dB
    for name, psnr in found.items():
        assert psnr == pytest.approx(found["NVIDIA"], abs=0.5), name
