"""lucidrains' generators from the training wrapper's state dict alone: bodies of our own, to be squeezed in the host's
place.

Names and shapes say everything but two numbers: the slope of the leaky ReLUs, 0.2 in every version of the host, and the
learning-rate multiplier of the mapping network (the host's ``--lr-mlp``), which multiplies its weights at run time. It
is taken to be the host's default of 0.1.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

import torch

from squeeze_patch.adapters.lucidrains_block import SqueezedGeneratorBlock
from squeeze_patch.connection import Excite
from squeeze_patch.errors import StateError, UnsupportedModelError

LR_MLP = 0.1
SLOPE = 0.2
#: {generator: {beginning of a name in its own state: in the wrapper's}}
PARTS = {"GE": {"S.": "SE.", "G.": "GE."}, "G": {"S.": "S.", "G.": "G."}}
_MARKS = ("net.0.weight", "initial_conv.weight")

State = Mapping[str, torch.Tensor]


def parts_of_state(state: State) -> Dict[str, Dict[str, str]]:
    """`PARTS` where ``state`` is a training wrapper's, else nothing."""
    marks = {outer + mark for part in PARTS.values() for outer, mark in zip(part.values(), _MARKS)}
    return PARTS if marks <= set(state) else {}


def from_state(state: State) -> Optional[torch.nn.Module]:
    """A stand-in for ``ModuleDict({"S": mapping, "G": generator})``, dense or squeezed; None where ``state`` is none's.

    Raises:
        UnsupportedModelError: it has tensors that this host's generator does not have, or lacks some.
    """
    marks = {f"S.{_MARKS[0]}", f"G.{_MARKS[1]}"}
    if not marks <= set(state) or not all(name.startswith(("S.", "G.")) for name in state):
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            body = torch.nn.ModuleDict({"S": StyleVectorizer(_below(state, "S.")), "G": Generator(_below(state, "G."))})
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

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[N, w_dim] -> [N, w_dim]."""
        x = torch.nn.functional.normalize(z, dim=1)
        for _, layer in sorted(self.net._modules.items(), key=lambda item: int(item[0])):
            parameters: Any = layer
            x = torch.nn.functional.linear(x, parameters.weight * LR_MLP, parameters.bias * LR_MLP)
            x = torch.nn.functional.leaky_relu(x, SLOPE)
        return x


class Generator(torch.nn.Module):
    """Parameters and buffers under the host's names; no forward."""

    def __init__(self, state: State) -> None:
        super().__init__()
        if "initial_block" in state:
            self.initial_block = torch.nn.Parameter(torch.empty(state["initial_block"].shape))
        else:
            self.to_initial_block = _tree(_below(state, "to_initial_block."))
        out, into, size, _ = state["initial_conv.weight"].shape
        self.initial_conv = torch.nn.Conv2d(into, out, size, padding=size // 2)
        count = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        self.blocks = torch.nn.ModuleList(_block(state, f"blocks.{k}.", is_last=k == count - 1) for k in range(count))
        attention = [_below(state, f"attns.{k}.") for k in range(count)]
        self.attns = torch.nn.ModuleList([_tree(part) if part else None for part in attention])  # type: ignore[misc]

    def forward(self, *_: Any, **__: Any) -> Any:
        raise StateError(
            "a state dict makes no images: build the host's StyleGAN2 and load the file with squeeze_patch.load"
        )


def _block(whole: State, name: str, is_last: bool) -> torch.nn.Module:
    """A block, squeezed where it has what only squeezed ones have."""
    state = _below(whole, name)
    img_channels = state["to_rgb.conv.weight"].shape[0]
    block: Any = SqueezedGeneratorBlock(img_channels) if "rgb_bias" in state else torch.nn.Module()
    block.upsample = None
    block.to_style1, block.to_noise1 = _linear(state, "to_style1"), _linear(state, "to_noise1")
    block.conv1 = _conv(state, "conv1")
    block.to_style2, block.to_noise2 = _linear(state, "to_style2"), _linear(state, "to_noise2")
    block.conv2 = _conv(state, "conv2")
    block.activation = torch.nn.LeakyReLU(SLOPE)
    block.to_rgb = torch.nn.Module()
    block.to_rgb.input_channel = state["to_rgb.conv.weight"].shape[1]
    block.to_rgb.to_style = _linear(state, "to_rgb.to_style")
    block.to_rgb.conv = _conv(state, "to_rgb.conv")
    if not is_last:
        block.to_rgb.upsample = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Module())
        block.to_rgb.upsample[1].register_buffer("f", torch.empty(state["to_rgb.upsample.1.f"].shape))
    if "excite.weight" in state:
        out, into = state["excite.weight"].shape[:2]
        block.excite = Excite(into, out)
        block.excite.weight_gain = 1.0
    return block  # type: ignore[no-any-return]


def _linear(state: State, name: str) -> torch.nn.Linear:
    out, into = state[f"{name}.weight"].shape
    return torch.nn.Linear(into, out)


def _conv(state: State, name: str) -> torch.nn.Module:
    conv: Any = torch.nn.Module()
    conv.weight = torch.nn.Parameter(torch.empty(state[f"{name}.weight"].shape))
    conv.demod, conv.filters = True, conv.weight.shape[0]
    return conv  # type: ignore[no-any-return]


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


def _below(state: State, beginning: str) -> Dict[str, torch.Tensor]:
    return {name[len(beginning) :]: tensor for name, tensor in state.items() if name.startswith(beginning)}
