"""The squeezed block itself: the paper's identity, and the parts that hosts do not have."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch import connection
from squeeze_patch.adapters.nvidia.block import rebuild_layer
from squeeze_patch.adapters.nvidia.portable import portable_source
from squeeze_patch.demo.network import Generator
from squeeze_patch.testing import float_error, trained
from tests.helpers import latents
from tests.hosts import Host


def styled_features(G: Any) -> List[Tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Per block what torgb gets: (features [N, C, R, R], its weight [3, C], its bias [3]), features styled."""
    found: List[Tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def hook(layer: Any, inputs: Any, _output: Any) -> None:
        x, w = inputs[:2]
        style = layer.affine(w) * layer.weight_gain
        found.append((x * style[:, :, None, None], layer.weight[:, :, 0, 0], layer.bias))

    handles = [getattr(G.synthesis, f"b{r}").torgb.register_forward_hook(hook) for r in G.synthesis.block_resolutions]
    found.append(G(*latents(G), noise_mode="const"))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("ratio", [None, 1.5, 4.0])
def test_sum_of_torgb_is_one_convolution_over_concatenated_features(host: Host, ratio: Any) -> None:
    """The paper's analysis: the image is a single 1x1 convolution over all styled, upsampled features."""
    G = trained(host.generator())
    if ratio is not None:
        squeeze_patch.apply(G, ratio=ratio, init="random")
    *blocks, image = styled_features(G)
    columns, weights, biases = [], [], []
    for features, weight, bias in blocks:
        share = bias[None, :, None, None].expand(1, 3, *features.shape[2:])
        while features.shape[-1] < image.shape[-1]:  # upsampling and 1x1 convolution commute
            features = connection.upsample2d(features, G.synthesis.b4.resample_filter)
            share = connection.upsample2d(share, G.synthesis.b4.resample_filter)
        columns.append(features)
        weights.append(weight)
        biases.append(share)
    concatenated = torch.cat(columns, dim=1)
    once = torch.nn.functional.conv2d(concatenated, torch.cat(weights, dim=1)[:, :, None, None])
    once = once + torch.stack(biases).sum(dim=0)
    assert (once - image).abs().max() <= float_error(G, image)
    dense_channels = 32 * 3 + 16
    assert concatenated.shape[1] == dense_channels if ratio is None else concatenated.shape[1] < dense_channels


def test_own_upsampling_is_the_hosts(host: Host) -> None:
    from torch_utils.ops import upfirdn2d  # the host's

    image = torch.randn(2, 3, 8, 8)
    fir = upfirdn2d.setup_filter([1, 3, 3, 1])
    expected = upfirdn2d.upsample2d(image, fir)
    # 16 products an output
    tolerance = torch.finfo(torch.float32).eps * 16**0.5 * expected.abs().max()
    assert (connection.upsample2d(image, fir) - expected).abs().max() <= tolerance


@pytest.mark.parametrize("taps", [2, 3, 4, 6])
def test_own_upsampling_is_zero_insertion_and_filtering(taps: int) -> None:
    image = torch.randn(1, 2, 5, 7)
    fir = torch.rand(taps, taps)
    spread = torch.zeros(1, 2, 10, 14)
    spread[:, :, ::2, ::2] = image
    before, after = (taps + 1) // 2, (taps - 2) // 2
    padded = torch.nn.functional.pad(spread, [before, after, before, after])
    kernel = fir.flip([0, 1])[None, None].expand(2, 1, taps, taps) * 4
    expected = torch.nn.functional.conv2d(padded, kernel, groups=2)
    assert torch.allclose(connection.upsample2d(image, fir), expected, atol=1e-5)


def test_excite_is_equalised_and_linear() -> None:
    excite = connection.Excite(64, 128)
    x = torch.randn(4, 64, 5, 5)
    with torch.no_grad():
        excite.bias.normal_()
        zero = excite(torch.zeros_like(x))
        assert torch.allclose(excite(2 * x) - zero, 2 * (excite(x) - zero), atol=1e-4)
    # unit weights and the run-time gain keep the variance: 64 x 128 products of unit normals, 4 standard errors
    assert abs((excite(x) - zero).var().item() - 1) <= 4 * (2 / 64) ** 0.5
    assert sum(p.numel() for p in excite.parameters()) == 64 * 128 + 128


def test_source_is_self_contained() -> None:
    """Hosts store the file's text in pickles and append it to their own: torch and the standard library only."""
    source = portable_source()
    namespace: Dict[str, Any] = {"__name__": "anywhere"}
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].partition(".")[0] for line in imports}
    assert modules == {"functools", "inspect", "math", "torch", "types", "typing"}
    exec(compile("x = 1\n" + source, "appended", "exec"), namespace)
    assert {"Excite", "SqueezedBlock", "RebuildSqueezed", "squeeze_block"} <= set(namespace)


def test_layers_without_a_record_of_their_arguments() -> None:
    """The demo generator's layers keep no init_kwargs; they are rebuilt from their attributes."""
    G = trained(Generator(32, 0, 32, 16, 3, synthesis_kwargs={"channel_base": 512, "channel_max": 32}))
    layer = rebuild_layer(G.synthesis.b8.conv1, out_channels=7)
    assert layer.weight.shape == (7, 32, 3, 3)
    assert layer.noise_const.shape == (8, 8)
    image = G(*latents(G), noise_mode="const")
    squeeze_patch.apply(G, ratio=1)
    assert (G(*latents(G), noise_mode="const") - image).abs().max() <= float_error(G, image)
