"""One block of the generator that is being squeezed, fitted to what the dense one does on the same samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Optional

import torch

from squeeze_patch.adapters.content import Affine, BlockShape, ConvWeights, Kept, SqueezedStart
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.regression import fit_excite, fit_image, refit_conv, refit_torgb
from squeeze_patch.initialization.simulation import DenseStep

#: ("outputs" or "inner", dense channels at all positions [p, c], how many) -> the channels to keep, ascending
Choose = Callable[[str, torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Student:
    """The squeezed generator up to a block.

    Attributes:
        x: features that the next block reads [n, inputs, h, w]; None = the dense ones.
        image: so far [n, img_channels, h, w]; None = there is none yet.
        inputs: which of the dense channels those are; None = all of them.
    """

    x: Optional[torch.Tensor] = None
    image: Optional[torch.Tensor] = None
    inputs: Optional[torch.Tensor] = None

    @property
    def drawn(self) -> torch.Tensor:
        """The image so far, of which there has to be one."""
        assert self.image is not None
        return self.image

    def below(self, step: DenseStep) -> torch.Tensor:
        """The image so far at the size of the next block."""
        if self.image is None:
            return torch.zeros_like(step.image)
        return simulation.upsample(self.image, step.block, step.window)

    def through(self, step: DenseStep, ws: torch.Tensor) -> Student:
        """Behind a block that stays dense."""
        y = step.y if self.x is None else simulation.run(step.block, self.x, ws, step.window)
        return Student(y, self.below(step) + simulation.torgb(step.block, y, ws))


class BlockFit:
    """Fits one block.

    Args:
        step: the dense block at work.
        shape: sizes of the block to be.
        student: the squeezed generator in front of it.
        ws: style vectors of the samples [n, w_dim].
    """

    def __init__(self, step: DenseStep, shape: BlockShape, student: Student, ws: torch.Tensor) -> None:
        self.step, self.shape, self.student, self.ws = step, shape, student, ws
        self.block = step.block
        self.next = student

    def start(self, given: Optional[Kept], choose: Choose) -> SqueezedStart:
        """The start of the block; `after` is then what comes behind it.

        Args:
            given: channels to keep, where they are.
            choose: chooses them where they are not.
        """
        inner = self._inner(given, choose)
        kept_inputs = self.student.inputs
        conv0 = self._conv0(inner, kept_inputs)
        styled = self._styled(inner, conv0)
        rows = simulation.rows(self.step.y)
        outputs = choose("outputs", rows, self.shape.width) if given is None else given.outputs
        conv1 = self._conv1(inner, outputs, styled)
        f = self._outer(conv1, inner, outputs, styled)  # [n, q, h, w]
        below = self.student.below(self.step)
        start = self._readers(Kept(outputs, inner, kept_inputs), rows, f, self.step.image - below)
        self.next = self._behind(start, f, below)
        return replace(start, conv0=conv0, conv1=conv1)

    def after(self) -> Student:
        """The squeezed generator up to and with this block."""
        return self.next

    def _inner(self, given: Optional[Kept], choose: Choose) -> Optional[torch.Tensor]:
        """Channels of conv0's that stay, None = all."""
        if self.shape.inner == self.block.spec.channels:
            return None
        if given is not None and given.inner is not None:
            return given.inner
        return choose("inner", simulation.rows(self._positions(self.step.styled)), self.shape.inner)

    def _positions(self, styled: torch.Tensor) -> torch.Tensor:
        return simulation.without_margin(styled, self.step.window)

    def _conv0(self, inner: Optional[torch.Tensor], inputs: Optional[torch.Tensor]) -> Optional[ConvWeights]:
        """Where it reads what is left of a narrowed block's channels, and is built anew."""
        spec = self.block.spec
        stays = (self.shape.inputs, self.shape.inner) == (spec.dense_inputs, spec.channels)
        if inputs is None or self.block.conv0 is None or stays:
            return None
        assert self.step.x is not None
        assert self.student.x is not None
        style = self.block.conv0.style(self.ws)[:, :, None, None]  # [n, c, 1, 1]
        n = len(self.ws)
        dense = simulation.rows(self.step.x[:n] * style).double()
        read = simulation.rows(self.student.x[:n] * style[:, inputs]).double()
        mix, offset = fit_excite(dense, read, inputs)
        return refit_conv(self.block.conv0, inner, inputs, mix, offset, self.ws.double())

    def _styled(self, inner: Optional[torch.Tensor], conv0: Optional[ConvWeights]) -> torch.Tensor:
        """What conv1 reads in the squeezed generator: [n, p, h, w], or with a margin."""
        every = slice(None) if inner is None else inner
        if self.student.x is None or (self.block.spec.in_channels == 0 and conv0 is None):
            return self.step.styled[:, every]
        conv = conv0
        if conv is None and self.block.conv0 is not None:
            conv = _outputs(self.block.conv0, inner)
        style = _rows_of(self.block.conv1.style, inner)
        block = replace(self.block, conv0=conv, conv1=replace(self.block.conv1, style=style))
        return simulation.run_inner(block, self.student.x, self.ws, self.step.window)

    def _conv1(
        self, inner: Optional[torch.Tensor], outputs: torch.Tensor, styled: torch.Tensor
    ) -> Optional[ConvWeights]:
        """Where what it reads is not what it was; else its rows stay."""
        if inner is None and self.student.x is None:
            return None
        kept = torch.arange(self.block.spec.channels) if inner is None else inner
        dense, read = (simulation.rows(self._positions(x)).double() for x in (self.step.styled, styled))
        mix, offset = fit_excite(dense, read, kept)
        return refit_conv(self.block.conv1, outputs, inner, mix, offset, self.ws.double())

    def _outer(
        self, conv1: Optional[ConvWeights], inner: Optional[torch.Tensor], outputs: torch.Tensor, styled: torch.Tensor
    ) -> torch.Tensor:
        if conv1 is None and self.student.x is None:
            return self.step.y[:, outputs]
        conv = _outputs(self.block.conv1, outputs) if conv1 is None else conv1
        return simulation.run_outer(replace(self.block, conv1=conv), styled, self.ws, self.step.window)

    def _readers(self, kept: Kept, dense: torch.Tensor, f: torch.Tensor, image: torch.Tensor) -> SqueezedStart:
        """excite, and toRGB for the share of the image [n, img_channels, h, w] that it should make."""
        ws, features = self.ws.double(), simulation.rows(f).double()  # [p, q]
        mix, offset = fit_excite(dense.double(), features, kept.outputs)
        weight, style, bias = refit_torgb(self.block, mix, offset, kept.outputs, ws)
        positions = simulation.positions(self.block)
        styles = style(ws).repeat_interleave(positions, dim=0)  # [p, q]
        has_bias = self.shape.excite or self.block.rgb_has_bias
        bias = bias if has_bias else torch.zeros_like(bias)
        weight, bias = fit_image(weight, bias, features * styles, simulation.rows(image).double(), has_bias)
        has_excite = self.shape.excite and not self.block.spec.is_last
        return SqueezedStart(
            kept=kept,
            excite_weight=mix.float() if has_excite else None,
            excite_bias=offset.float() if has_excite else None,
            rgb_weight=weight.float(),
            rgb_style=Affine(style.weight.float(), style.bias.float()),
            rgb_bias=bias.float(),
        )

    def _behind(self, start: SqueezedStart, f: torch.Tensor, below: torch.Tensor) -> Student:
        image = below + simulation.torgb(start, f, self.ws)
        if self.block.spec.is_last:
            return Student(None, image)
        if self.shape.excite:
            return Student(simulation.excite(start, f), image)
        every = self.shape.width == self.block.spec.channels
        return Student(f, image, None if every else start.kept.outputs)


def _outputs(conv: ConvWeights, kept: Optional[torch.Tensor]) -> ConvWeights:
    """The rows of kept outputs."""
    if kept is None:
        return conv
    noise = conv.noise_strength
    strength = noise[kept] if isinstance(noise, torch.Tensor) else noise
    return replace(conv, weight=conv.weight[kept], bias=conv.bias[kept], noise_strength=strength)


def _rows_of(style: Affine, kept: Optional[torch.Tensor]) -> Affine:
    return style if kept is None else Affine(style.weight[kept], style.bias[kept])
