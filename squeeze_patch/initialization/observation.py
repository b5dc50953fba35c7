"""What a dense generator does on random latents, which plans and the calibrated start go by.

How much an error in a channel changes the image is told by a Gauss-Newton matrix, how channels vary together by their
covariances; the two rank channels by what the image loses without them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import ContextManager, Dict, List, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.content import BlockSpec, DenseBlock
from squeeze_patch.adapters.located import Located
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.selection import rank_channels
from squeeze_patch.initialization.simulation import BlockWindow
from squeeze_patch.progress import Tell, nothing, one_thread

#: positions of a block, per channel, behind the covariances that say how many channels it needs; and at least
PER_CHANNEL = 16
MIN_ROWS = 8192
#: samples of a block, at least: positions of one sample are alike
MIN_SAMPLES = 64
#: samples whose gradients are taken, in all and at a time
GRADIENTS, GRADIENT_BATCH = 32, 8
#: weight of what all channels count alike for, beside the image's error, when they are chosen
RIDGE = 1e-3
#: multiply-adds for one image below which one thread is the fastest
SMALL = 1 << 29


@dataclass(frozen=True)
class Matrices:
    """{block name: matrix [c, c], float64} of conv1's activations (``outer``), and of what conv1 reads, conv0's
    activations times the style (``inner``)."""

    outer: Dict[str, torch.Tensor]
    inner: Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Ranking:
    """Channels of one layer.

    Attributes:
        order: all of them [c], best first.
        left: error of the image without all but the first 0, 1, ... c of them [c + 1].
    """

    order: torch.Tensor
    left: torch.Tensor

    def best(self, width: int) -> torch.Tensor:
        """The first ``width`` channels, ascending: [q]."""
        return self.order[:width].sort().values


@dataclass(frozen=True)
class Rankings:
    """{block name: ranking} of the same activations as in `Matrices`."""

    outer: Dict[str, Ranking]
    inner: Dict[str, Ranking]


class Observation:
    """A dense generator on random latents. What takes long is computed once, when it is first asked for: a plan and the
    start that follows it share one.

    Args:
        found: dense; its weights have to stay what they are as long as this is used.
        seed: of the latents.
    """

    #: seed of noise inputs and positions
    positions_seed = 0

    def __init__(self, found: Located, seed: int) -> None:
        self.found, self.seed = found, seed

    @cached_property
    def blocks(self) -> List[DenseBlock]:
        """All of them, in running order."""
        with torch.inference_mode(False), one_thread():
            return self.found.dense_blocks()

    def sample_w(self, n: int) -> torch.Tensor:
        """Style vectors [n, w_dim] of random latents."""
        return self.found.sample_w(n, self.seed)

    def threads(self) -> ContextManager[None]:
        """Small generators get one thread, where more of them only wait for each other."""
        return contextlib.nullcontext() if is_large(self.found.specs) else one_thread()

    def look(self, tell: Tell = nothing) -> Rankings:
        """`rankings`, of which ``tell`` hears: once for the gradients, and for each block."""
        _ = self.gradients  # first, when nothing else is in memory
        tell()
        if "covariances" not in vars(self):
            self.covariances = self._covariances(tell)
        return self.rankings

    @cached_property
    def gradients(self) -> Matrices:
        """Gauss-Newton matrices of the image's squared error, summed over a block's positions."""
        with torch.inference_mode(False), self.threads():
            return gauss_newton(self.blocks, self.sample_w(GRADIENTS), self.positions_seed)

    @cached_property
    def covariances(self) -> Matrices:
        return self._covariances(nothing)

    def _covariances(self, tell: Tell) -> Matrices:
        found = Matrices({}, {})
        with torch.inference_mode(False), self.threads():
            counts = simulation.counts(self.blocks, PER_CHANNEL, MIN_SAMPLES, MIN_ROWS)
            for step in simulation.dense_run(self.blocks, counts, self.sample_w(max(counts)), self.positions_seed):
                name, styled = step.block.spec.name, simulation.without_margin(step.styled, step.window)
                found.outer[name] = covariance_of(simulation.rows(step.y))
                found.inner[name] = covariance_of(simulation.rows(styled))
                tell()
        return found

    @cached_property
    def rankings(self) -> Rankings:
        gradients = self.gradients  # first, when nothing else is in memory
        return Rankings(
            {name: _ranking(seen, gradients.outer[name]) for name, seen in self.covariances.outer.items()},
            {name: _ranking(seen, gradients.inner[name]) for name, seen in self.covariances.inner.items()},
        )


def is_large(specs: Sequence[BlockSpec]) -> bool:
    """Whether the work on a dense generator of these blocks takes more than a moment."""
    return sum(map(_multiply_adds, specs)) >= SMALL


def weighed(covariance: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The Gauss-Newton matrix [c, c], and by a little all channels alike, which ranks what few gradients miss."""
    power = (gradient * covariance).sum()
    ridge = RIDGE * (power if power > 0 else 1) / covariance.trace().clamp_min(1e-300)
    return gradient + ridge * torch.eye(len(gradient), dtype=gradient.dtype)


def covariance_of(rows: torch.Tensor) -> torch.Tensor:
    """[p, c] -> [c, c]; its products are float32's, which is enough to rank channels by."""
    centred = rows - rows.mean(dim=0)
    return (centred.t() @ centred).double() / len(rows)


def gauss_newton(blocks: Sequence[DenseBlock], ws: torch.Tensor, seed: int) -> Matrices:
    """The gradient of a random projection of the image, with independent standard normals, has the Gauss-Newton matrix
    as the expected product with itself. Where there are windows, the image is the last one's."""
    none = {block.spec.name: torch.zeros([block.spec.channels] * 2, dtype=torch.float64) for block in blocks}
    sums = Matrices(none, {name: matrix.clone() for name, matrix in none.items()})
    windows = simulation.sample_windows(blocks, [len(ws)] * len(blocks), seed)
    random = torch.Generator().manual_seed(seed)
    for start in range(0, len(ws), GRADIENT_BATCH):
        some = slice(start, start + GRADIENT_BATCH)
        parts = [window.part(some) for window in windows]
        with torch.set_grad_enabled(True):
            outer, inner, image = differentiable(blocks, ws[some], parts)
            direction = torch.randn(image.shape, generator=random)
            gradients = torch.autograd.grad((image * direction).sum(), [*outer, *inner])
        kinds = [sums.outer, sums.inner]
        for (matrices, block), gradient in zip(((kind, block) for kind in kinds for block in blocks), gradients):
            rows = simulation.rows(gradient)  # [p, c]
            matrices[block.spec.name] += (rows.t() @ rows).double() / len(ws)
    return sums


def differentiable(
    blocks: Sequence[DenseBlock], ws: torch.Tensor, windows: Sequence[BlockWindow]
) -> Tuple[List[torch.Tensor], List[torch.Tensor], torch.Tensor]:
    """conv1's activations of every block, what conv1 reads, and the image that depends on them."""
    outer: List[torch.Tensor] = []
    inner: List[torch.Tensor] = []
    image: Optional[torch.Tensor] = None
    for block, window in zip(blocks, windows):
        styled = simulation.inner(block, outer[-1] if outer else None, ws, window)
        inner.append(styled if outer else styled.requires_grad_())
        outer.append(simulation.outer(block, styled, ws, window))
        rgb = simulation.torgb(block, outer[-1], ws)
        image = rgb if image is None else simulation.upsample(image, block, window) + rgb
    assert image is not None
    return outer, inner, image


def _ranking(covariance: torch.Tensor, gradient: torch.Tensor) -> Ranking:
    return Ranking(*rank_channels(covariance, weighed(covariance, gradient), len(covariance)))


def _multiply_adds(spec: BlockSpec) -> int:
    """Of both convolutions of a dense block for one image."""
    outputs = spec.channels * spec.positions
    return spec.kernel_size**2 * (outputs * spec.channels + outputs * spec.in_channels // 4)
