"""The adapter of `lumen` for squeeze_patch, found through the entry point in pyproject.toml.

What is patched: a `lumen.Stage` is replaced by a `SqueezedStage`. ``grow`` or ``seed`` stay the same objects;
``refine`` and ``ink`` are lumen's own layers, narrower; ``spread`` is new. Where a Plan wants fewer channels behind
``grow``, too, that is another one of lumen's; a narrowed stage is a `lumen.Stage`, without ``spread``.
"""

from __future__ import annotations

import math
from typing import Any, List, Optional, Tuple

import lumen
import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.adapters.layers import as_large_as, copy_flags, fill_excite, refuse_hooks, value
from squeeze_patch.connection import Excite


class SqueezedStage(torch.nn.Module):
    """A stage whose ``ink`` reads the q channels of ``refine``, and whose ``spread`` makes all c of them again."""

    def __init__(self, dense: Any, shape: BlockShape, is_last: bool) -> None:
        super().__init__()
        self.channels = len(dense.refine.strokes)
        if not is_last:
            self.spread = Excite(shape.width, self.channels)
        put_layers(self, dense, shape)

    def forward(
        self, x: Optional[torch.Tensor], picture: Optional[torch.Tensor], mood: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        x = self.seed.expand(len(mood), -1, -1, -1) if x is None else self.grow(x, mood)
        f = self.refine(x, mood)
        picture = lumen.add(picture, self.ink(f, mood))
        return (self.spread(f) if hasattr(self, "spread") else x), picture


def put_layers(stage: Any, dense: Any, shape: BlockShape) -> Any:
    """Layers of the dense stage that keep their size, and fresh ones of lumen's own classes in the place of others."""
    mood_size = dense.refine.mood.in_features
    stage.size = dense.size
    if not hasattr(dense, "grow"):
        same = len(dense.seed) == shape.inner
        stage.seed = dense.seed if same else torch.nn.Parameter(torch.randn(shape.inner, dense.size, dense.size))
    elif dense.grow.strokes.shape[:2] == (shape.inner, shape.inputs):
        stage.grow = dense.grow
    else:
        stage.grow = lumen.Brush(shape.inputs, shape.inner, mood_size, dense.size, double=True)
    stage.refine = lumen.Brush(shape.inner, shape.width, mood_size, dense.size)
    stage.ink = lumen.Ink(shape.width, len(dense.ink.tint), mood_size)
    copy_flags(stage, dense, dense.refine.strokes)
    return stage


class LumenSurgery(Surgery):
    """``network`` is the `lumen.Lumen` itself; a block's name is its number among the stages."""

    def find(self, root: torch.nn.Module) -> List[torch.nn.Module]:
        return [module for module in root.modules() if isinstance(module, lumen.Lumen)]

    def refuse(self, root: torch.nn.Module) -> Optional[str]:
        return None  # every Lumen can be squeezed

    def specs(self, network: Any) -> List[BlockSpec]:
        return [self._spec(network, str(index)) for index in range(len(network.stages))]

    def _spec(self, network: Any, name: str) -> BlockSpec:
        stage = self.get_block(network, name)
        width, inner, kernel_size, _ = stage.refine.strokes.shape
        squeezed = isinstance(stage, SqueezedStage)
        channels = stage.channels if squeezed else width
        return BlockSpec(
            name=name,
            resolution=stage.size,
            in_channels=stage.grow.strokes.shape[1] if hasattr(stage, "grow") else 0,
            channels=channels,
            width=width if squeezed else None,
            w_dim=stage.refine.mood.in_features,
            img_channels=len(stage.ink.tint),
            kernel_size=kernel_size,
            is_last=int(name) == len(network.stages) - 1,
            inner=None if inner == channels else inner,
        )

    def dense_block(self, network: Any, name: str) -> DenseBlock:
        stage = self.get_block(network, name)
        style = _affine(stage.ink.mood)
        return DenseBlock(
            spec=self._spec(network, name),
            const=None if hasattr(stage, "grow") else value(stage.seed),
            conv0=_conv(stage.grow) if hasattr(stage, "grow") else None,
            fir=lumen.smoothing(),
            conv1=_conv(stage.refine),
            rgb_weight=value(stage.ink.strokes),
            rgb_style=Affine(style.weight * stage.ink.gain, style.bias * stage.ink.gain),
            rgb_bias=value(stage.ink.tint),
        )

    def sample_w(self, root: torch.nn.Module, network: Any, n: int, seed: int) -> torch.Tensor:
        z = torch.randn([n, network.z_dim], generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return value(network.dream(z.to(next(network.parameters()))))

    def build(self, network: torch.nn.Module, name: str, shape: BlockShape) -> Any:
        stage = self.get_block(network, name)
        self.check_replaceable(stage, name)
        if shape.excite:
            return SqueezedStage(stage, shape, is_last=self._spec(network, name).is_last)
        colours, mood_size = len(stage.ink.tint), stage.refine.mood.in_features
        return put_layers(lumen.Stage(shape.inputs, shape.inner, colours, mood_size, stage.size), stage, shape)

    def check_replaceable(self, block: torch.nn.Module, name: str) -> None:
        refuse_hooks(block, f"stages.{name}")

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        kept = start.kept
        with torch.no_grad():
            if hasattr(new, "seed") and kept.inner is not None:
                new.seed.copy_(dense.seed[kept.inner.to(dense.seed.device)])
            if hasattr(new, "grow") and new.grow is not dense.grow:
                _load_brush(new.grow, dense.grow, start.conv0, kept.inner, kept.inputs)
            _load_brush(new.refine, dense.refine, start.conv1, kept.outputs, kept.inner)
            new.ink.strokes.copy_(start.rgb_weight)
            new.ink.mood.weight.copy_(start.rgb_style.weight / new.ink.gain)
            new.ink.mood.bias.copy_(start.rgb_style.bias / new.ink.gain)
            new.ink.tint.copy_(start.rgb_bias)
            fill_excite(getattr(new, "spread", None), start)

    def get_block(self, network: Any, name: str) -> Any:
        return network.stages[int(name)]

    def set_block(self, network: Any, name: str, block: torch.nn.Module) -> None:
        network.stages[int(name)] = block


def _affine(layer: torch.nn.Linear) -> Affine:
    return Affine(value(layer.weight), value(layer.bias))


def _conv(brush: Any) -> ConvWeights:
    strength = brush.grain.detach().item()
    return ConvWeights(value(brush.strokes), _affine(brush.mood), value(brush.tint), strength, 0.2, math.sqrt(2))


def _load_brush(
    new: Any,
    dense: Any,
    refitted: Optional[ConvWeights],
    outputs: Optional[torch.Tensor],
    inputs: Optional[torch.Tensor],
) -> None:
    """What is kept of a dense brush, or what was fitted in its place, into a smaller one; None = all channels."""
    state = dense.state_dict()
    places = [("strokes", 0, outputs), ("tint", 0, outputs)]
    places += [("strokes", 1, inputs), ("mood.weight", 0, inputs), ("mood.bias", 0, inputs)]
    for name, dim, kept in places:
        if kept is not None:
            state[name] = state[name].index_select(dim, kept.to(state[name].device))
    if refitted is not None:
        strokes = as_large_as(refitted.weight, state["strokes"])
        state.update(strokes=strokes, tint=refitted.bias, grain=torch.as_tensor(refitted.noise_strength))
    new.load_state_dict(state)


#: only the required role: enough for apply, remove, status and plan
ADAPTER = Adapter("lumen", LumenSurgery())
