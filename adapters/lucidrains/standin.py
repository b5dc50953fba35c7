"""lucidrains' generators from the training wrapper's state dict alone: bodies of our own, to be squeezed in the host's
place.

Names and shapes say everything but two numbers: the slope of the leaky ReLUs, 0.2 in every version of the host, and the
learning-rate multiplier of the mapping network (the host's ``--lr-mlp``), which multiplies its weights at run time. It
is taken to be the host's default of 0.1.
"""

from __future__ import annotations

from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence

import torch

from squeeze_patch.adapters.lucidrains.block import SqueezedGeneratorBlock
from squeeze_patch.adapters.lucidrains.layers import SLOPE, Block
from squeeze_patch.adapters.roles import StateDicts
from squeeze_patch.connection import Excite
from squeeze_patch.errors import StateError, UnsupportedModelError
from squeeze_patch.process_settings import random_kept

LR_MLP = 0.1
#: {generator: {prefix of names in its own state: prefix in the wrapper's}}
PARTS = {"GE": {"S.": "SE.", "G.": "GE."}, "G": {"S.": "S.", "G.": "G."}}
_MARKS = ("net.0.weight", "initial_conv.weight")
#: what the blocks of a generator alone are known by
_BLOCK = frozenset(f"blocks.0.{name}.weight" for name in ("to_style1", "conv1", "conv2", "to_rgb.conv"))

State = Mapping[str, torch.Tensor]


def fork_without(parts: Sequence[str]) -> str:
    """Why a generator of this host's blocks, which lacks parts that the host's has, is refused."""
    return (
        f"this generator has the blocks of lucidrains' stylegan2-pytorch, but no {' and no '.join(parts)}: it is "
        "a fork's, or of an early version, and squeeze_patch does not know its forward. It needs an adapter of its own "
        "(docs/adding-a-family.md)"
    )


class LucidrainsStates(StateDicts):
    """The role of files of state dicts."""

    def from_state(self, state: State, blocks: Optional[Mapping[str, bool]] = None) -> Optional[torch.nn.Module]:
        return from_state(state, blocks)

    def is_of_family(self, state: State) -> bool:
        return _is_own(state) or set(state) >= _BLOCK

    def parts_of_state(self, state: State) -> Dict[str, Dict[str, str]]:
        return parts_of_state(state)


def parts_of_state(state: State) -> Dict[str, Dict[str, str]]:
    """`PARTS` where ``state`` is a training wrapper's, else nothing."""
    marks = {outer + mark for part in PARTS.values() for outer, mark in zip(part.values(), _MARKS)}
    return PARTS if marks <= set(state) else {}


def _is_own(state: State) -> bool:
    marks = {f"S.{_MARKS[0]}", f"G.{_MARKS[1]}"}
    return marks <= set(state) and all(name.startswith(("S.", "G.")) for name in state)


def from_state(state: State, squeezed: Optional[Collection[str]] = None) -> Optional[torch.nn.Module]:
    """A stand-in for ``ModuleDict({"S": mapping, "G": generator})``, dense or squeezed; None where ``state`` is none's.

    Args:
        state: of both.
        squeezed: names of the blocks in the Plan beside it; those that have nothing of a squeezed one are narrowed.

    Raises:
        UnsupportedModelError: it has tensors that this host's generator does not have, or lacks some; or it is of a
            generator without its mapping network, or of a fork's.
    """
    if not _is_own(state):
        if not set(state) >= _BLOCK:
            return None
        if _MARKS[1] not in state:
            raise UnsupportedModelError(fork_without(["initial_conv"]))
        raise UnsupportedModelError(
            "this is the state of lucidrains' Generator alone, whose mapping network is missing. Save the training "
            "wrapper (StyleGAN2), as the host does, or {'GAN': torch.nn.ModuleDict({'S': GAN.SE, 'G': GAN.GE})"
            ".state_dict()}"
        )
    try:
        with random_kept():
            body = torch.nn.ModuleDict(
                {"S": StyleVectorizer(_below(state, "S.")), "G": Generator(_below(state, "G."), squeezed or ())}
            )
        body.load_state_dict(dict(state), strict=True)
    except KeyError as error:
        raise UnsupportedModelError(
            f"this looks like the state of lucidrains' generator, but it has no {error.args[0]}"
        ) from error
    except RuntimeError as error:
        raise UnsupportedModelError(
            "this looks like the state of lucidrains' generator, but is another network's: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    return body


class StyleVectorizer(torch.nn.Module):
    """z -> w: normalisation to length one, then linear layers with leaky ReLU."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.net = _tree(_below(state, "net."))
        width: List[int] = []  # [w_dim], once it is known
        for name, layer in self.net._modules.items():
            shapes = {part: list(tensor.shape) for part, tensor in layer.state_dict().items()}  # type: ignore[union-attr]
            width = width or shapes.get("bias", [])
            if not name.isdecimal() or len(width) != 1 or shapes != {"weight": width * 2, "bias": width}:
                raise RuntimeError(f"S.net.{name} is none of the mapping network's linear layers")
        if self.net._parameters:
            raise RuntimeError(f"S.net has {', '.join(self.net._parameters)}")

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[N, w_dim] -> [N, w_dim]."""
        x = torch.nn.functional.normalize(z, dim=1)
        for _, layer in sorted(self.net._modules.items(), key=lambda item: int(item[0])):
            parameters: Any = layer
            x = torch.nn.functional.linear(x, parameters.weight * LR_MLP, parameters.bias * LR_MLP)
            x = torch.nn.functional.leaky_relu(x, SLOPE)
        return x


class Generator(torch.nn.Module):
    """Parameters and buffers under the host's names; run by the host's arithmetic."""

    def __init__(self, state: State, squeezed: Collection[str]) -> None:
        super().__init__()
        if "initial_block" in state:
            self.initial_block = torch.nn.Parameter(torch.empty(state["initial_block"].shape))
        else:
            self.to_initial_block = _tree(_below(state, "to_initial_block."))
        out, into, size, _ = state["initial_conv.weight"].shape
        self.initial_conv = torch.nn.Conv2d(into, out, size, padding=size // 2)
        count = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        self.blocks = torch.nn.ModuleList(_block(state, k, count, squeezed) for k in range(count))
        attention = [_below(state, f"attns.{k}.") for k in range(count)]
        self.attns = torch.nn.ModuleList([_tree(part) if part else None for part in attention])  # type: ignore[misc]

    def forward(self, styles: torch.Tensor, input_noise: torch.Tensor) -> torch.Tensor:
        """Styles [N, blocks, w_dim], noise [N, R, R, 1] -> images [N, img_channels, R, R].

        Raises:
            StateError: the generator has attention layers or ``no_const``, which only the host computes.
        """
        if not hasattr(self, "initial_block") or any(part is not None for part in self.attns):
            raise StateError(
                "a state dict with attention layers or no_const makes no images: build the host's StyleGAN2 and load "
                "the file with squeeze_patch.load"
            )
        x, rgb = self.initial_conv(self.initial_block.expand(len(styles), -1, -1, -1)), None
        for w, block in zip(styles.unbind(dim=1), self.blocks):
            x, rgb = block(x, rgb, w, input_noise)
        assert rgb is not None
        return rgb  # type: ignore[no-any-return]


def _block(whole: State, index: int, count: int, squeezed: Collection[str]) -> torch.nn.Module:
    """A block, squeezed where it has what only squeezed ones have, narrowed where it has not, but should."""
    state = _below(whole, f"blocks.{index}.")
    first, second, rgb = (state[f"{name}.weight"].shape for name in ("conv1", "conv2", "to_rgb.conv"))
    dense = Block(state["to_style1.weight"].shape[1], first, second, rgb, index == 0, index == count - 1)
    if "rgb_bias" not in state:
        dense.narrowed = f"blocks.{index}" in squeezed
        return dense
    block: Any = SqueezedGeneratorBlock(rgb[0])
    for name, child in dense._modules.items():
        setattr(block, name, child)
    if index == 0:
        block.upsample = None
    if "excite.weight" in state:
        out, into = state["excite.weight"].shape[:2]
        block.excite, block.out_channels = Excite(into, out), out
        block.excite.weight_gain = 1.0
    return block  # type: ignore[no-any-return]


def _tree(state: State) -> torch.nn.Module:
    """Nested modules that hold parameters under the names of ``state``."""
    root = torch.nn.Module()
    children: List[str] = []
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        if rest:
            children += [] if head in children else [head]
        else:
            root.register_parameter(head, torch.nn.Parameter(torch.empty(tensor.shape)))
    for child in children:
        root.add_module(child, _tree(_below(state, f"{child}.")))
    return root


def _below(state: State, prefix: str) -> Dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
