"""Costs and comparisons."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import squeeze_patch
from squeeze_patch import handing_on
from squeeze_patch.adapters import locate
from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.demo import trained_generator
from squeeze_patch.demo.network import Generator
from squeeze_patch.planning.cost import LEGEND, amount, fused_multiply_adds, multiply_adds, report, table
from squeeze_patch.planning.plans import BlockPlan
from squeeze_patch.planning.shapes import shapes_of
from tests.helpers import squeezed_to
from tests.hosts import Host

#: resolution, channel_base: multiply-adds of the squeezed generator (ratio 1.5) as a share of the dense one
SHARES = {(32, 32768): 0.75, (256, 16384): 0.80, (256, 32768): 0.80, (512, 32768): 0.80, (1024, 32768): 0.82}


@pytest.mark.parametrize("size", SHARES)
def test_multiply_adds_of_official_sizes(size: tuple[int, int]) -> None:
    resolution, base = size
    G = Generator(512, 0, 512, resolution, 3, synthesis_kwargs={"channel_base": base})
    result = report(locate(G), squeeze_patch.plan(G, ratio=1.5))
    assert round(result.multiply_adds_after / result.multiply_adds_before, 2) == SHARES[size]


@pytest.mark.parametrize(("size", "share"), [((256, 16384), 0.72), ((1024, 32768), 0.69)])
def test_multiply_adds_of_official_sizes_fused(size: tuple[int, int], share: float) -> None:
    resolution, base = size
    specs = locate(Generator(512, 0, 512, resolution, 3, synthesis_kwargs={"channel_base": base})).specs
    widths = {spec.name: squeezed_to(spec, round(spec.channels / 1.5)) for spec in specs}
    dense = sum(multiply_adds(spec, None) for spec in specs)
    assert round(sum(fused_multiply_adds(specs, widths)) / dense, 2) == share
    # a dense reader, or a dense block in front of it, leaves both as they are
    alone = squeezed_to(specs[3], 64)
    assert fused_multiply_adds(specs, {specs[3].name: alone}) == [
        multiply_adds(spec, alone if spec is specs[3] else None) for spec in specs
    ]


def test_bilinear_upsampling_is_of_what_is_folded() -> None:
    """conv0 reads, and upsampling makes, 64 + 1 and 64 instead of 128 channels; folding costs 9 x 128 x 128 x 65."""
    sizes = {"channels": 128, "w_dim": 512, "img_channels": 3, "kernel_size": 3, "upsampling": "bilinear"}
    specs = [
        BlockSpec("a", 32, 0, width=64, is_last=False, **sizes),  # type: ignore[arg-type]
        BlockSpec("b", 64, 128, width=64, is_last=True, **sizes),  # type: ignore[arg-type]
    ]
    shapes = {spec.name: squeezed_to(spec, 64) for spec in specs}
    plain = [multiply_adds(spec, spec.shape) for spec in specs]
    first, second = fused_multiply_adds(specs, shapes)
    assert plain[0] - first == 32 * 32 * 128 * 64
    assert plain[1] - second == 64 * 64 * (9 * 128 * 63 + 4 * 64) - 9 * 128 * 128 * 65
    assert sum(fused_multiply_adds(specs, shapes, folds=False)) == sum(plain)


@pytest.mark.parametrize("narrow", [0, 1])
def test_what_is_narrowed_is_not_folded(narrow: int) -> None:
    """Neither what a narrowed block hands on, nor what one reads: excite is a layer there, or is none."""
    found = locate(trained_generator())
    first, second = found.specs[2:]
    blocks = [BlockPlan(s.name, s.resolution, s.channels, s.channels // 2) for s in (first, second)]
    blocks[narrow] = replace(blocks[narrow], excite=False)
    shapes = shapes_of(found.specs, blocks)
    plain = [multiply_adds(spec, shapes.get(spec.name)) for spec in found.specs]
    assert fused_multiply_adds(found.specs, shapes) == plain


@pytest.mark.parametrize("ratio", [None, 1.5])
def test_multiply_adds_are_those_of_the_convolutions(ratio: float | None, host: Host) -> None:
    """Counted from the shapes that run. Filters are counted as 16 taps by definition and left out here."""
    G = host.generator().eval()
    if ratio is not None:
        squeeze_patch.apply(G, ratio=ratio, init="random")
    counted = 0

    def conv(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        up = getattr(module, "up", 1)
        pixels = output.shape[2] * output.shape[3] // up**2
        counted += pixels * module.weight.numel()  # type: ignore[operator, union-attr]

    for name, module in G.synthesis.named_modules():
        if name.split(".")[-1] in ("conv0", "conv1", "torgb", "excite"):
            module.register_forward_hook(conv)
    G(torch.randn(1, 32), torch.zeros(1, 0))
    filters = sum(r * r * 16 * (G.synthesis.img_channels + getattr(G.synthesis, f"b{r}").conv0.weight.shape[0])
                  for r in (8, 16, 32))  # fmt: skip
    assert report(locate(G)).multiply_adds_after == counted + filters


def test_report_of_a_squeezed_generator_is_that_of_its_plan() -> None:
    G = trained_generator()
    planned = report(locate(G), squeeze_patch.plan(G))
    some = squeeze_patch.plan(G, widths={8: 10})
    assert report(locate(G), some).parameters_after == some.parameters_after
    assert report(locate(squeeze_patch.apply(G))) == planned
    text = table(planned)
    assert len(text.splitlines()) == 1 + 4 + 1 + 2
    assert LEGEND in text
    assert "up-convolutions count at input resolution" in text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (1234, "1.23 k"), (12_345_678, "12.35 M"), (9_876_543_210, "9.88 G")]
)
def test_amounts(value: int, text: str) -> None:
    assert amount(value) == text


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1.13 has no flop counter")
@pytest.mark.parametrize("ratio", [None, 1.5])
def test_multiply_adds_are_those_that_torch_counts(ratio: float | None, host: Host) -> None:
    """Block by block, filters included; a multiply-add is two operations there. The linear layers of the styles (addmm)
    are no convolutions and are left out."""
    from torch.utils.flop_counter import FlopCounterMode

    G = host.generator().eval()
    if ratio is not None:
        squeeze_patch.apply(G, ratio=ratio, init="random")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        G(torch.randn(1, 32), torch.zeros(1, 0), noise_mode="const")
    counts = counter.get_flop_counts()
    for row in report(locate(G)).blocks:
        where = next(name for name in counts if name.endswith(f"synthesis.b{row.resolution}"))
        operations = {str(operator): count for operator, count in counts[where].items()}
        styles = operations.get("aten.addmm", 0)
        assert (sum(operations.values()) - styles) // 2 == row.multiply_adds_after, operations


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1.13 has no flop counter")
def test_fused_multiply_adds_are_those_that_torch_counts(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for styles (addmm), and the sums of squares of demodulation, inputs x outputs of each convolution."""
    from torch.utils.flop_counter import FlopCounterMode

    G = squeeze_patch.fuse(squeeze_patch.apply(draggan.generator().eval(), ratio=2, init="random"))
    monkeypatch.setattr(
        handing_on, "_HEARD_BY_ALL", ()
    )  # the counter listens to all modules, and nothing runs fused then
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        G.synthesis(torch.randn(1, G.num_ws, 32), noise_mode="const")
    operations = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    operations.pop("aten.addmm")
    found = locate(G)
    layers = [layer for name, layer in G.named_modules() if name.endswith(("conv0", "conv1"))]
    squares = sum(layer.weight[:, :, 0, 0].numel() for layer in layers)  # type: ignore[operator, index, union-attr]
    counted = sum(fused_multiply_adds(found.specs, {spec.name: spec.shape for spec in found.specs}))
    assert sum(operations.values()) // 2 == counted + squares, operations
