"""Other readings of the image squeeze connection, as variants for benchmarks/quality.py's trainings."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Iterator, Mapping

import torch

import squeeze_patch
from benchmarks.variants import Dense, Variant, count, squeezed
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


def demodulated_torgb(dense: Dense) -> Any:
    G = squeezed()(dense)
    for block in squeezed_blocks(G).values():
        block.torgb = DemodulatedToRGB(block.torgb)
    return G


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
        uniform = squeeze_patch.plan(G)

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
    "torgb demodulated": demodulated_torgb,
    "first block dense": placed(lambda i, n: float(i > 0)),
    "last block dense": placed(lambda i, n: float(i < n - 1)),
    "ratio 1.33": squeezed(ratio=4 / 3),
    "ratio 2": squeezed(ratio=2),
    "ratio 4": squeezed(ratio=4),
}
