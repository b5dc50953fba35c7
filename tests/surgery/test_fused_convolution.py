"""The kernels of fused generators by themselves: what is folded, what rounds how, what hands features on."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable, List

import pytest
import torch

import squeeze_patch
from squeeze_patch import fused_convolution, handing_on
from squeeze_patch.adapters.nvidia import fused_layers
from squeeze_patch.handing_on import Deferred
from tests.fused import MODES, assert_same, count, images, squeezed_generator

HALVES = pytest.mark.skipif(
    torch.__version__.startswith(("1.", "2.0.")), reason="this torch convolves no halves on a CPU"
)


def test_folding_saves_multiply_adds() -> None:
    """At 512 channels and ratio 1.5 from 32x32 on, as counted by hand: 9 O (c - q) + c q a pixel, for 9 O c q."""
    weight = torch.empty([512, 512, 3, 3], device="meta")
    saved = 9 * 512 * (512 - 344) + 512 * 344
    for side in (16, 24, 28, 29, 32):
        assert fused_convolution.pays(weight, 344, side**2) == (side**2 * saved > 9 * 512 * 512 * 344)
    assert fused_convolution.pays(weight, 344, 32**2)
    assert not fused_convolution.pays(weight, 344, 16**2)


@HALVES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Errors to float32 no larger than twice those of the plain layers, which round as often; shape, dtype and format
    as they were."""
    G = squeezed_generator()
    fused = squeeze_patch.fuse(copy.deepcopy(G))
    block, other = G.synthesis.b32, fused.synthesis.b32
    random = torch.Generator().manual_seed(1)
    f, w = torch.randn([2, 16, 16, 16], generator=random), torch.randn([2, G.w_dim], generator=random)
    excite = G.synthesis.b16.excite
    with torch.no_grad():
        exact = block.conv0(excite(f), w, noise_mode="const")
        plain = copy.deepcopy(block).to(dtype).conv0(excite(f.to(dtype)), w.to(dtype), noise_mode="const")
        kwargs = {"noise_mode": "const"}
        found = fused_layers.run_layer(other.conv0, Deferred(f.to(dtype), excite), w, True, kwargs)
        unfolded = fused_layers.run_layer(other.conv0, excite(f).to(dtype), w, True, kwargs)
    for result in (found, unfolded):
        assert result.dtype == dtype
        assert result.shape == exact.shape
        assert (result - exact).abs().max() <= 2 * (plain - exact).abs().max()


@HALVES
def test_float16_stays_in_range() -> None:
    """Styles and weights whose products and sums leave float16's range; demodulated, they do not matter."""
    random = torch.Generator().manual_seed(1)
    x, weight = torch.randn([2, 8, 4, 4], generator=random), torch.randn([8, 8, 3, 3], generator=random) * 300
    style = torch.rand([2, 8], generator=random) * 1000
    finish = fused_convolution.Finish()
    expected = fused_convolution.fused_layer(x, weight, style, finish)
    for side in (1, 8):  # modulated inputs, and modulated weights
        wide = x.repeat([1, 1, side, side])
        found = fused_convolution.fused_layer(wide.half(), weight, style, finish)
        assert found.isfinite().all()
        reference = fused_convolution.fused_layer(wide, weight, style, finish)
        assert (found - reference).abs().max() <= 2**-8 * reference.abs().max()  # 11 bits, sums of 72
    assert expected.isfinite().all()


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_what_a_gpu_runs(n: int, kernels: bool, G: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways that are chosen on a GPU, with the hosts' operations for filters and activations, here on a CPU."""
    expected = {mode: images(G, n, *mode) for mode in MODES}
    squeeze_patch.fuse(G)
    for module in (handing_on, fused_convolution, fused_layers):
        monkeypatch.setattr(module, "on_gpu", lambda x: True)
    monkeypatch.setattr(fused_layers, "_has_kernels", lambda ops: kernels and ops is not None)
    folds = count(monkeypatch, fused_convolution, "_folded")
    for mode in MODES:
        assert_same(images(G, n, *mode), expected[mode], G)
    assert folds == []


def test_groups_are_as_good_as_one_by_one() -> None:
    """What runs on a GPU, groups of one convolution, beside what runs on a CPU."""
    random = torch.Generator().manual_seed(1)
    x, weights = torch.randn([3, 5, 6, 6], generator=random), torch.randn([3, 4, 5, 3, 3], generator=random)
    fir = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2) / 64
    for filtered in (None, fused_convolution._plain_filter(fir)):
        together = fused_convolution._convolve(x, weights, filtered)
        alone = [fused_convolution._convolve(x[n : n + 1], weights[n : n + 1], filtered) for n in range(3)]
        assert (together - torch.cat(alone)).abs().max() <= 1e-5 * together.abs().max()


def test_deferred_features_are_a_tensor(demo: Any) -> None:
    excite = demo.synthesis.b16.excite
    f = torch.randn([2, excite.in_channels, 4, 4])
    with torch.no_grad():
        expected = excite(f)

        def deferred() -> Any:
            return Deferred(f, excite)

        assert deferred().shape == expected.shape
        assert deferred().dtype == expected.dtype
        assert deferred().device == expected.device
        assert not deferred().was_read
        readings: List[Callable[[Any], torch.Tensor]] = [
            lambda x: x + 0,
            lambda x: x.detach().cpu(),
            lambda x: x.clone(),
            lambda x: x[:, :],
            lambda x: torch.cat([x])[:],
            lambda x: torch.from_numpy(x.numpy()),
            lambda x: torch.tensor(x.tolist()),
            copy.deepcopy,
            lambda x: pickle.loads(pickle.dumps(x)),
            lambda x: torch.stack(list(x.unbind())),
        ]
        for reading in readings:
            x = deferred()
            assert reading(x).equal(expected)
            assert x.was_read
        assert repr(deferred()) == repr(expected)
        x = deferred()
        x.mul_(2)
        assert (x + 0).equal(expected * 2)
