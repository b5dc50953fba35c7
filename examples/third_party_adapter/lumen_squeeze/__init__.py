"""The adapter of `lumen` for squeeze_patch, found through the entry point in pyproject.toml.

What is patched: a `lumen.Stage` is replaced by a `SqueezedStage`. ``grow`` or ``seed`` stay the same objects;
``refine`` and ``ink`` are lumen's own layers, narrower; ``spread`` is new.
"""

from __future__ import annotations

import math
from typing import Any, List, Optional, Tuple

import lumen
import torch

from squeeze_patch.adapters.base import Adapter, Surgery
from squeeze_patch.adapters.content import Affine, BlockShape, BlockSpec, ConvWeights, DenseBlock, SqueezedStart
from squeeze_patch.adapters.layers import copy_flags, fill_excite, refuse_hooks, value, width_alone
from squeeze_patch.connection import Excite


class SqueezedStage(torch.nn.Module):
    """A stage whose ``ink`` reads the q channels of ``refine``, and whose ``spread`` makes all c of them again."""

    def __init__(self, dense: Any, width: int, is_last: bool) -> None:
        super().__init__()
        channels, mood_size = dense.refine.strokes.shape[1], dense.refine.mood.in_features
        reference = dense.refine.strokes
        self.size = dense.size
        if hasattr(dense, "grow"):
            self.grow = dense.grow
        else:
            self.seed = dense.seed
        self.refine = lumen.Brush(channels, width, mood_size, dense.size)
        self.ink = lumen.Ink(width, len(dense.ink.tint), mood_size)
        copy_flags(self.refine, dense.refine, reference)
        copy_flags(self.ink, dense.ink, reference)
        if not is_last:
            self.spread = Excite(width, channels)
            copy_flags(self.spread, dense.refine, reference)
        self.training = dense.training

    def forward(
        self, x: Optional[torch.Tensor], picture: Optional[torch.Tensor], mood: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        x = self.seed.expand(len(mood), -1, -1, -1) if x is None else self.grow(x, mood)
        f = self.refine(x, mood)
        picture = lumen.add(picture, self.ink(f, mood))
        return (self.spread(f) if hasattr(self, "spread") else x), picture


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
        width, channels, kernel_size, _ = stage.refine.strokes.shape
        return BlockSpec(
            name=name,
            resolution=stage.size,
            in_channels=stage.grow.strokes.shape[1] if hasattr(stage, "grow") else 0,
            channels=channels,
            width=width if isinstance(stage, SqueezedStage) else None,
            w_dim=stage.refine.mood.in_features,
            img_channels=len(stage.ink.tint),
            kernel_size=kernel_size,
            is_last=int(name) == len(network.stages) - 1,
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

    def build(self, network: torch.nn.Module, name: str, shape: BlockShape) -> SqueezedStage:
        stage = self.get_block(network, name)
        width = width_alone(self._spec(network, name), shape, "lumen")
        self.check_replaceable(stage, name)
        return SqueezedStage(stage, width, is_last=self._spec(network, name).is_last)

    def check_replaceable(self, block: torch.nn.Module, name: str) -> None:
        refuse_hooks(block, f"stages.{name}")

    def load_start(self, new: Any, dense: Any, start: SqueezedStart) -> None:
        with torch.no_grad():
            state = dense.refine.state_dict()
            kept = start.kept.outputs.to(state["strokes"].device)
            new.refine.load_state_dict({**state, "strokes": state["strokes"][kept], "tint": state["tint"][kept]})
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


#: only the required role: enough for apply, remove, status and plan
ADAPTER = Adapter("lumen", LumenSurgery())
