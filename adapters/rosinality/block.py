"""What of a flat generator is replaced, gathered, and how excite gets in.

Such a generator has no block to replace. Of each resolution some layers are: conv1, toRGB and, where its size changes,
the up-convolution or the constant. excite becomes a child of the layer that reads it, the up-convolution of the next
resolution, and works on that layer's input. So the names of modules, attributes and state-dict entries stay the host's,
and nothing refers from one module to another.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import torch

from squeeze_patch.adapters.layers import refuse_hooks
from squeeze_patch.adapters.rosinality.layout import LayerPaths, get

#: key of excite among a layer's forward pre-hooks. A word, not one of torch's numbers: those start anew in every
#: process, and a hook of the user's on a loaded generator could get the number of ours
HOOK = "squeeze_patch.excite"


class FlatBlock(torch.nn.Module):
    """The layers of one resolution, gathered: ``constant`` or ``conv0``, ``conv1``, ``torgb``, and ``excite`` where
    there is one. It is made on demand and no part of the generator.

    The excite inside of ``conv0`` is another block's, and no module of this one.

    Args:
        paths: where they belong.
        first: the module that holds the constant, or the up-convolution.
        conv1, torgb: dense or squeezed layers of the host's classes.
        excite: of a squeezed block that has a reader.
    """

    def __init__(
        self,
        paths: LayerPaths,
        first: torch.nn.Module,
        conv1: torch.nn.Module,
        torgb: torch.nn.Module,
        excite: Optional[torch.nn.Module] = None,
    ) -> None:
        super().__init__()
        self.layer_paths = paths
        self.add_module("conv0" if paths.up else "constant", first)
        self.conv1 = conv1
        self.torgb = torgb
        if excite is not None:
            self.excite = excite
        self.training = conv1.training

    @property
    def paths(self) -> Dict[str, str]:
        """{child: its path within the generator}."""
        paths = self.layer_paths
        known = {"constant": paths.constant, "conv0": paths.up, "conv1": paths.conv1, "torgb": paths.torgb}
        return {name: known.get(name) or f"{paths.reader}.excite" for name in self._modules}

    @property
    def first(self) -> Any:
        """The module that holds the constant, or the up-convolution."""
        return next(iter(self.children()))

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[Any]:
        """Without the other block's excite: parameters() counts by this, too."""
        others = f"{prefix}{'.' if prefix else ''}conv0.excite"
        for name, module in super().named_modules(memo, prefix, remove_duplicate):
            if name != others:
                yield name, module


def read_block(network: torch.nn.Module, paths: LayerPaths) -> FlatBlock:
    """What is at ``paths`` now."""
    first, conv1, torgb = (get(network, str(path)) for path in (paths.up or paths.constant, paths.conv1, paths.torgb))
    reader = get(network, paths.reader) if paths.reader else None
    return FlatBlock(paths, first, conv1, torgb, getattr(reader, "excite", None))


def write_block(network: torch.nn.Module, block: FlatBlock) -> None:
    """Put the layers of ``block`` to where they belong. An up-convolution takes over the excite of the block before."""
    paths = block.layer_paths
    if paths.up is not None:
        _move_excite(get(network, paths.up), block.first)
    for name, path in block.paths.items():
        if name != "excite":
            parent, _, leaf = path.rpartition(".")
            setattr(get(network, parent), leaf, getattr(block, name))
    if paths.reader is not None:
        _give_excite(get(network, paths.reader), getattr(block, "excite", None), excite_input)


def check_hooks(block: FlatBlock) -> None:
    """Raise `StateError` where hooks hang on layers of the block that are replaced, or were."""
    for name, path in block.paths.items():
        layer = getattr(block, name)
        if name not in ("constant", "conv0") or (name == "conv0" and getattr(layer, "resized", False)):
            refuse_hooks(layer, path, ours=(HOOK,))


def _move_excite(old: Any, new: Any) -> None:
    if old is not new:
        _give_excite(new, getattr(old, "excite", None), old._forward_pre_hooks.get(HOOK, excite_input))
        _give_excite(old, None, excite_input)


def _give_excite(reader: Any, excite: Optional[torch.nn.Module], hook: Callable[..., Any]) -> None:
    if excite is None:
        reader._modules.pop("excite", None)
        reader._forward_pre_hooks.pop(HOOK, None)
    else:
        reader.excite = excite
        reader._forward_pre_hooks[HOOK] = hook
        reader._forward_pre_hooks.move_to_end(HOOK, last=False)  # hooks of the user's go on seeing c channels


def excite_input(layer: Any, inputs: Tuple[Any, ...]) -> Tuple[Any, ...]:
    """Forward pre-hook of an up-convolution: its features [N, q, H, W] become excite's [N, c, H, W]."""
    return (layer.excite(inputs[0]), *inputs[1:])
