"""What the stand-ins for flat generators have in common: a generator made of the names and shapes of a state dict."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Sequence, Sized, Tuple, Type

import torch

from squeeze_patch.adapters.rosinality.block import FlatBlock, read_block, write_block
from squeeze_patch.adapters.rosinality.layout import LayerPaths, Layout, get, layer_paths, stored_noise
from squeeze_patch.connection import Excite
from squeeze_patch.errors import UnsupportedModelError

State = Mapping[str, torch.Tensor]
#: as `StateDicts.from_state` has them
Blocks = Optional[Mapping[str, bool]]


class FlatBody(torch.nn.Module, abc.ABC):
    """Parameters and buffers under the names of one lineage, in its host's order.

    Subclasses name the lineage and its layers: ``conv_class(in, out, kernel size, w_dim, upsampling)``,
    ``torgb_class(in, w_dim, upsample, img_channels)`` and ``mapping_class(number of layers, w_dim)``.

    Args:
        state: of the whole generator.
        blocks: {squeezed or narrowed block: whether it has excite}, where they are known; else told from shapes.
    """

    layout: ClassVar[Layout]
    conv_class: ClassVar[Type[torch.nn.Module]]
    torgb_class: ClassVar[Type[torch.nn.Module]]
    mapping_class: ClassVar[Type[torch.nn.Module]]

    def __init__(self, state: State, blocks: Blocks) -> None:
        super().__init__()
        layout = self.layout
        w_dim = state[f"{layout.first_conv}.{layout.modulated}.modulation.weight"].shape[1]
        self.add_module(layout.mapping, self.mapping_class(_count(state, layout.mapping), w_dim))
        give_parameter(self, layout.const, torch.empty(state[layout.const].shape))
        self.add_module(layout.first_conv, self.conv_class(*self._conv_shape(state, layout.first_conv), w_dim, None))
        self.to_rgb1 = self._torgb(state, "to_rgb1", w_dim, False)
        convs = torch.nn.ModuleList()
        self.add_module(layout.convs, convs)
        self.to_rgbs = torch.nn.ModuleList()
        for i in range(_count(state, layout.convs)):
            shape = self._conv_shape(state, f"{layout.convs}.{i}")
            convs.append(self.conv_class(*shape, w_dim, self.upsampling(state, i)))
        for k in range(_count(state, "to_rgbs")):
            self.to_rgbs.append(self._torgb(state, f"to_rgbs.{k}", w_dim, True))
        self.noises = torch.nn.Module()
        for name, noise in state.items():
            if name.startswith("noises."):
                self.noises.register_buffer(name[len("noises.") :], torch.empty(noise.shape))
        self.to(state[layout.const].dtype)
        _mark_blocks(self, state, blocks)

    @abc.abstractmethod
    def upsampling(self, state: State, index: int) -> Any:
        """What makes convolution ``index`` of the list an up-convolution; None where it is none."""

    def forward(
        self, styles: Sequence[torch.Tensor], input_is_latent: bool = False, noise: Any = None
    ) -> Tuple[torch.Tensor, None]:
        """The part of the host's call that this family is run by.

        Args:
            styles: a list of one: latents z [N, w_dim], or styles [N, w_dim] or [N, layers, w_dim].
            input_is_latent: they are styles.
            noise: inputs [1 or N, 1, R, R] of every convolution; default the stored ones.

        Returns:
            images [N, img_channels, R, R], None.
        """
        layout = self.layout
        w = styles[0] if input_is_latent else get(self, layout.mapping)(styles[0])
        w = w if w.ndim == 3 else w[:, None].expand(-1, 2 * len(self.to_rgbs) + 2, -1)  # [N, layers, w_dim]
        inputs = stored_noise(self) if noise is None else noise
        convs = get(self, layout.convs)
        const = get(self, layout.const).expand(len(w), -1, -1, -1)  # [N, c, 4, 4]
        x = get(self, layout.first_conv)(const, w[:, 0], inputs[0])
        image = self.to_rgb1(x, w[:, 1], None)  # [N, img_channels, 4, 4]
        for k, to_rgb in enumerate(self.to_rgbs):
            x = convs[2 * k](x, w[:, 2 * k + 1], inputs[2 * k + 1])
            x = convs[2 * k + 1](x, w[:, 2 * k + 2], inputs[2 * k + 2])
            image = to_rgb(x, w[:, 2 * k + 3], image)
        return image, None

    def _conv_shape(self, state: State, name: str) -> Tuple[int, int, int]:
        """[in channels, out channels, kernel size]."""
        _, out, into, size, _ = state[f"{name}.{self.layout.modulated}.weight"].shape
        return into, out, size

    def _torgb(self, state: State, name: str, w_dim: int, upsample: bool) -> torch.nn.Module:
        _, img_channels, channels, _, _ = state[f"{name}.{self.layout.modulated}.weight"].shape
        return self.torgb_class(channels, w_dim, upsample, img_channels)


class Kernel(torch.nn.Module):
    """Holds a filter [k, k]; where the host stores it, so does the state dict."""

    kernel: torch.Tensor

    def __init__(self, kernel: torch.Tensor, stored: bool) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel.clone(), persistent=stored)


def give_parameter(module: torch.nn.Module, path: str, value: torch.Tensor) -> None:
    """A new parameter of ``module`` at a dotted path, inside plain modules that are made where they are missing."""
    *holders, leaf = path.split(".")
    for name in holders:
        if name not in module._modules:
            module.add_module(name, torch.nn.Module())
        module = get(module, name)
    module.register_parameter(leaf, torch.nn.Parameter(value))


def _mark_blocks(G: FlatBody, state: State, known: Blocks) -> None:
    """Mark the squeezed blocks, give them the excite that ``state`` has, and note which are narrowed, as far as shapes
    tell: nothing does of a block with as many channels behind conv0 as behind conv1."""
    squeezed: List[str] = []
    narrowed: Dict[str, int] = {}
    for paths in layer_paths(G, G.layout):
        block: Any = read_block(G, paths)
        width, inner = getattr(block.conv1, G.layout.modulated).weight.shape[1:3]
        excite = state.get(f"{paths.reader}.excite.weight")
        if excite is not None:
            channels = excite.shape[0] if excite.ndim == 4 else inner
            made = Excite(width, channels).to(excite.dtype)
            write_block(G, FlatBlock(paths, block.first, block.conv1, block.torgb, made))
        elif paths.reader:
            _check_not_dropped(G, paths, width)
        if excite is not None or (paths.reader is None and _is_squeezed(G, paths.conv1, known, squeezed, narrowed)):
            squeezed.append(paths.conv1)
            block.conv1.squeezed = True
        elif inner != width:
            narrowed[paths.conv1] = max(inner, width)
    if narrowed:  # until the file's Plan, or one made from shapes, takes its place
        blocks = [{"name": name, "channels": channels, "excite": False} for name, channels in narrowed.items()]
        vars(G)["squeeze_plan"] = {"blocks": blocks}


def _is_squeezed(G: FlatBody, last: str, known: Blocks, squeezed: Sized, narrowed: Sized) -> bool:
    """Of the last block, which has no excite in any case; ``squeezed`` and ``narrowed`` are the others that are."""
    if known is not None and last in known:
        return known[last]
    width, inner = getattr(get(G, last), G.layout.modulated).weight.shape[1:3]
    if width == inner:  # as where it is dense, unless all others are squeezed
        return known is None and len(squeezed) == len(G.to_rgbs) > 0
    return len(squeezed) > 0 or (width < inner and len(narrowed) == 0)


def _check_not_dropped(G: FlatBody, paths: LayerPaths, width: int) -> None:
    """Raise `UnsupportedModelError` where a block is smaller than what the next one reads, and has no excite."""
    read = getattr(get(G, str(paths.reader)), G.layout.modulated).weight.shape[2]
    if width < read:
        raise UnsupportedModelError(
            f"{paths.conv1} is squeezed from {read} to {width} channels, but there is no {paths.reader}.excite.weight: "
            "the tool that wrote this file has dropped it. Convert the dense file after that tool, not before"
        )


def _count(state: State, prefix: str) -> int:
    """How many numbered entries there are under ``prefix``."""
    return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})
