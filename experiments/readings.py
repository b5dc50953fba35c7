"""Other readings of the image squeeze connection, as variants for benchmarks/quality.py's trainings."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import torch

import squeeze_patch
from benchmarks.variants import Dense, Variant, as_large_as, count, squeezed
from squeeze_patch.connection import Excite


def excites(G: Any) -> Iterator[Excite]:
    return (module for module in G.modules() if isinstance(module, Excite))


def changed(change: Callable[[Excite], None]) -> Variant:
    """The squeezed generator with another start of every excite."""

    def build(dense: Dense) -> Any:
        G = squeezed()(dense)
        with torch.no_grad():
            for excite in excites(G):
                change(excite)
        return G

    return build


def scaled(factor: float) -> Variant:
    def change(excite: Excite) -> None:
        excite.weight.mul_(factor)

    return changed(change)


def learning_rate(factor: float) -> Variant:
    """Adam moves every weight by about the learning rate, whatever its gradient: a smaller weight behind a larger gain
    learns faster."""

    def change(excite: Excite) -> None:
        excite.weight.div_(factor)
        excite.weight_gain *= factor

    return changed(change)


def identity_like(excite: Excite) -> None:
    """Output i starts as squeezed channel i modulo q."""
    channels = torch.arange(excite.out_channels)
    excite.weight.zero_()
    excite.weight[channels, channels % excite.in_channels] = math.sqrt(excite.in_channels)


def orthogonal(excite: Excite) -> None:
    """Columns are orthogonal and all features keep their mean power."""
    torch.nn.init.orthogonal_(excite.weight, gain=math.sqrt(excite.out_channels))


class DemodulatedToRGB(torch.nn.Module):
    """toRGB whose modulated weights are demodulated, with a learned gain for each image channel."""

    def __init__(self, torgb: Any) -> None:
        super().__init__()
        self.affine, self.weight, self.bias = torgb.affine, torgb.weight, torgb.bias
        self.gain = torch.nn.Parameter(torch.ones([len(torgb.bias)]))

    def forward(self, x: torch.Tensor, w: torch.Tensor, **_: Any) -> torch.Tensor:
        style = self.affine(w)
        weight = self.weight[None, :, :, 0, 0] * style[:, None, :]
        weight = weight * (weight.square().sum(dim=2, keepdim=True) + 1e-8).rsqrt() * self.gain[None, :, None]
        return (weight @ x.flatten(2)).unflatten(2, x.shape[2:]) + self.bias[None, :, None, None]


def demodulated_torgb(variant: Variant) -> Variant:
    def build(dense: Dense) -> Any:
        G = variant(dense)
        for block in blocks(G):
            block.torgb = DemodulatedToRGB(block.torgb)
        return G

    return build


def torgb_learning_rate(factor: float) -> Variant:
    """The dense generator whose toRGB, style included, learns slower; see `learning_rate`."""

    def build(dense: Dense) -> Any:
        G = dense()
        with torch.no_grad():
            for block in blocks(G):
                for layer in (block.torgb, block.torgb.affine):
                    layer.weight.div_(factor)
                    layer.weight_gain *= factor
        return G

    return build


class FewChannels(torch.nn.Module):
    """A host's toRGB layer that reads the first ``channels`` of the features."""

    def __init__(self, torgb: Any, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.torgb = type(torgb)(channels, len(torgb.bias), w_dim=torgb.affine.weight.shape[1])

    def forward(self, x: torch.Tensor, w: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.torgb(x[:, : self.channels], w, **kwargs)


def few_channels(part: int, ratio: float = 1) -> Variant:
    """toRGB reads 1/``part`` of a block's channels; conv1 hands c/``ratio`` on. Nobody else reads the last block's."""

    def build(dense: Dense) -> Any:
        G = dense()
        channels = {block.resolution: out_channels(block) for block in blocks(G)}
        widths = {resolution: max(round(c / ratio), 1) for resolution, c in channels.items()}
        widths[G.img_resolution] = channels[G.img_resolution] // part
        narrower = {resolution: q for resolution, q in widths.items() if q < channels[resolution]}
        squeeze_patch.apply(G, widths=narrower, init="random", keep_original=False)
        for block in blocks(G)[:-1]:
            block.torgb = FewChannels(block.torgb, channels[block.resolution] // part)
        return G

    return build


def blocks(G: Any) -> List[Any]:
    return [block for block in G.synthesis.children() if hasattr(block, "torgb")]


def out_channels(block: Any) -> int:
    """Of a dense block."""
    return int(block.conv1.weight.shape[0])


def searched(family: Callable[[float], Variant], values: Sequence[float], to: Callable[[Dense], int]) -> Variant:
    """That variant of a ``family`` whose parameter count is nearest to what ``to`` says; ``values`` in the order of
    growing counts."""
    return lambda dense: nearest(family, values, to(dense), dense)[1]


def nearest(family: Callable[[float], Variant], values: Sequence[float], target: int, dense: Dense) -> Tuple[int, Any]:
    """(parameters too many or too few, generator), by bisection: what is counted has to be built."""

    def measured(value: float) -> Tuple[int, Any]:
        G = family(value)(dense)
        return count(G) - target, G

    low, high = 0, len(values) - 1
    found = [measured(values[low]), measured(values[high])]
    while high - low > 1:
        middle = (low + high) // 2
        found.append(measured(values[middle]))
        low, high = (middle, high) if found[-1][0] < 0 else (low, middle)
    return min(found, key=lambda pair: abs(pair[0]))


def widened(variant: Variant) -> Callable[[float], Variant]:
    """The variant of a dense generator whose channels are ``scale`` times as many: what is saved is spent on width."""

    def scaled_to(scale: float) -> Variant:
        def build(dense: Dense) -> Any:
            G = dense()
            cap, last = (round(out_channels(block) * scale) for block in (blocks(G)[0], blocks(G)[-1]))
            base = last * G.img_resolution
            return variant(lambda **changes: dense(**{"channel_max": cap, "channel_base": base, **changes}))

        return build

    return scaled_to


def widened_quarter(dense: Dense) -> Any:
    """At the parameter count of the definition. Channels come whole, so it tries ratios beside 4, too."""
    target, scales = as_large_as(squeezed())(dense), [1 + step / 100 for step in range(1, 60)]
    found = [nearest(widened(whatever_channels(ratio)), scales, target, dense) for ratio in (3.9, 4, 4.1)]
    return min(found, key=lambda pair: abs(pair[0]))[1]


def whatever_channels(ratio: float) -> Variant:
    """One ratio where channel counts are no multiples of 8."""
    return lambda dense: squeezed(plan=squeeze_patch.plan(dense(), ratio=ratio, multiple=1))(dense)


def squeezed_blocks(G: Any) -> Dict[str, Any]:
    return {name: block for name, block in G.synthesis.named_children() if hasattr(block, "squeezed_channels")}


class RgbBehindExcite(torch.nn.Module):
    """A squeezed block whose toRGB reads the excited features, as wide as the dense block's."""

    def __init__(self, block: Any, torgb: Any) -> None:
        super().__init__()
        self.block, self.torgb = block, torgb
        block.torgb = torch.nn.Identity()
        self.num_conv, self.num_torgb, self.in_channels = block.num_conv, block.num_torgb, block.in_channels

    def forward(self, x: Any, img: Any, ws: torch.Tensor, update_emas: bool = False, **kwargs: Any) -> Any:
        block = self.block
        w = iter(ws.unbind(dim=1))
        h = block.const.expand(len(ws), -1, -1, -1) if self.in_channels == 0 else block.conv0(x, next(w), **kwargs)
        excited = block.excite(block.conv1(h, next(w), **kwargs))
        rgb = self.torgb(excited, next(w))
        return excited, rgb if img is None else block._upsample(img) + rgb


def rgb_behind_excite(dense: Dense) -> Any:
    """At the parameter count of the definition: toRGB is wider, so conv1 has to be narrower."""
    target = count(squeezed()(dense))

    def build(ratio: float) -> Any:
        source, G = dense(), dense()
        squeeze_patch.apply(G, plan=squeeze_patch.plan(G, ratio=ratio, multiple=1), init="random", keep_original=False)
        for name, block in squeezed_blocks(G).items():
            if not block.is_last:
                wrapped = RgbBehindExcite(block, getattr(source.synthesis, name).torgb)
                setattr(G.synthesis, name, wrapped)
        return G

    ratios = [1 + step / 20 for step in range(4, 40)]
    return build(min(ratios, key=lambda ratio: abs(count(build(ratio)) - target)))


class Activated(Excite):
    """Excite with a leaky ReLU behind it, at the hosts' gain."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(super().forward(x), 0.2) * math.sqrt(2)


class Sloped(Excite):
    """Excite with a leaky ReLU behind it whose slope is learned for each channel; at slope 1 it is the plain excite."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.slope = torch.nn.Parameter(torch.full([out_channels], 0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = (2 / (1 + self.slope.square())).sqrt()[:, None, None]
        return torch.nn.functional.prelu(super().forward(x), self.slope) * gain


def activated(kind: type = Activated) -> Variant:
    def build(dense: Dense) -> Any:
        G = squeezed()(dense)
        for block in squeezed_blocks(G).values():
            if not block.is_last:
                block.excite = kind(block.excite.in_channels, block.excite.out_channels)
        return G

    return build


def placed(strengths: Callable[[int, int], float]) -> Variant:
    """Widths per resolution at the default parameter count: block i of n is squeezed ``1 + s * strengths(i, n)`` times,
    with the s that comes nearest."""

    def build(dense: Dense) -> Any:
        G = dense()
        uniform = squeeze_patch.plan(G, allocate="uniform")

        def widths(s: float) -> Mapping[int, int]:
            n = len(uniform.blocks)
            ratios = [1 + s * strengths(i, n) for i in range(n)]
            chosen = {b.resolution: max(round(b.channels / r), 1) for b, r in zip(uniform.blocks, ratios) if r > 1}
            return chosen or {uniform.blocks[-1].resolution: uniform.blocks[-1].channels}

        def miss(s: float) -> float:
            return abs(squeeze_patch.plan(G, widths=widths(s)).parameters_after - uniform.parameters_after)

        return squeezed(widths=widths(min((step / 20 for step in range(1, 200)), key=miss)))(dense)

    return build


READINGS: Dict[str, Variant] = {
    "excite starts at half scale": scaled(0.5),
    "excite starts at scale 1.41": scaled(math.sqrt(2)),
    "excite learns at a tenth": learning_rate(0.1),
    "excite learns threefold": learning_rate(3),
    "excite starts identity-like": changed(identity_like),
    "excite starts orthogonal": changed(orthogonal),
    "excite activated": activated(),
    "excite activated with learned slope": activated(Sloped),
    "torgb reads behind excite": rgb_behind_excite,
    "torgb demodulated": demodulated_torgb(squeezed()),
    "first block dense": placed(lambda i, n: float(i > 0)),
    "last block dense": placed(lambda i, n: float(i < n - 1)),
    "ratio 1.33": squeezed(ratio=4 / 3),
    "ratio 2": squeezed(ratio=2),
    "ratio 8": squeezed(ratio=8),
    "dense torgb demodulated": demodulated_torgb(lambda dense: dense()),
    "dense torgb learns at half": torgb_learning_rate(0.5),
    "dense torgb learns at a quarter": torgb_learning_rate(0.25),
    "torgb reads half": few_channels(2),
    "torgb reads a quarter": few_channels(4),
    "torgb reads an eighth": few_channels(8),
    "torgb reads a quarter budget": searched(
        lambda ratio: few_channels(4, ratio), [1 + step / 50 for step in range(59, 0, -1)], as_large_as(squeezed())
    ),
    "ratio 4 widened": widened_quarter,
}
