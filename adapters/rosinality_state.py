"""rosinality's generator from its state dict alone: a body of our own, to be squeezed and run in the host's place.

It runs by the formulas of Karras et al. 2020 (StyleGAN2). Names and shapes say everything but one number, the mapping
network's learning-rate multiplier, which multiplies its weights at run time: it is taken to be the host's default of
0.01, and weights of another magnitude are refused where it matters, when latents are mapped to styles.
"""

from __future__ import annotations

import math
from typing import Any, Collection, List, Mapping, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.flat import ROSINALITY, FlatBlock, get, places, stored_noise, write_block
from squeeze_patch.connection import Excite, upsample2d
from squeeze_patch.errors import UnsupportedModelError

MARKS = {"input.input", "conv1.conv.weight", "conv1.noise.weight", "to_rgb1.conv.weight", "style.1.weight"}
LR_MLP = 0.01
_OTHER = "this looks like the state of rosinality's generator, but is another network's"

State = Mapping[str, torch.Tensor]


def from_state(state: State, squeezed: Optional[Collection[str]] = None) -> Optional[torch.nn.Module]:
    """A stand-in for the generator of ``state``, dense or squeezed; None where it is no state of rosinality's.

    Args:
        state: of the whole generator.
        squeezed: names of the squeezed blocks, where they are known; else told from shapes.

    Raises:
        UnsupportedModelError: it has tensors that rosinality's generator does not have, or lacks some.
    """
    if not set(state) >= MARKS:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            G = Generator(state, squeezed)
    except KeyError as error:
        raise UnsupportedModelError(f"{_OTHER}: it has no {error.args[0]}") from error
    try:
        G.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise UnsupportedModelError(f"{_OTHER}: {' '.join(str(error).split())[:300]}") from error
    return G


class Generator(torch.nn.Module):
    """Parameters and buffers under the host's names, in the host's order."""

    def __init__(self, state: State, squeezed: Optional[Collection[str]]) -> None:
        super().__init__()
        w_dim = state["conv1.conv.modulation.weight"].shape[1]
        self.style = MappingLayers(_count(state, "style."), w_dim)
        self.input = _Holder(input=torch.nn.Parameter(torch.empty(state["input.input"].shape)))
        self.conv1 = Conv(*_conv_shape(state, "conv1"), w_dim)
        self.to_rgb1 = ToRGB(state["to_rgb1.conv.weight"].shape[2], w_dim, False)
        self.convs, self.to_rgbs = torch.nn.ModuleList(), torch.nn.ModuleList()
        for i in range(_count(state, "convs.")):
            kernel = state.get(f"convs.{i}.conv.blur.kernel")
            self.convs.append(Conv(*_conv_shape(state, f"convs.{i}"), w_dim, kernel))
        for k in range(_count(state, "to_rgbs.")):
            self.to_rgbs.append(ToRGB(state[f"to_rgbs.{k}.conv.weight"].shape[2], w_dim, True))
            self.to_rgbs[k].upsample = _Kernel(state[f"to_rgbs.{k}.upsample.kernel"])
        self.noises = torch.nn.Module()
        for name, noise in state.items():
            if name.startswith("noises."):
                self.noises.register_buffer(name[len("noises.") :], torch.empty(noise.shape))
        self.to(state["input.input"].dtype)
        _squeeze_as(self, state, squeezed)

    def forward(
        self, styles: Sequence[torch.Tensor], input_is_latent: bool = False, noise: Any = None
    ) -> Tuple[torch.Tensor, None]:
        """The part of the host's call that this family is run by.

        Args:
            styles: a list of one: latents z [N, w_dim], or styles [N, w_dim] or [N, layers, w_dim].
            input_is_latent: they are styles.
            noise: inputs [1 or N, 1, R, R] of every convolution; default the stored ones.

        Returns:
            images [N, 3, R, R], None.
        """
        w = styles[0] if input_is_latent else self.style(styles[0])
        w = w if w.ndim == 3 else w[:, None].expand(-1, 2 * len(self.to_rgbs) + 2, -1)
        inputs = stored_noise(self) if noise is None else noise
        const: Any = self.input.input
        x = self.conv1(const.expand(len(w), -1, -1, -1), w[:, 0], inputs[0])
        image = self.to_rgb1(x, w[:, 1], None)
        for k, to_rgb in enumerate(self.to_rgbs):
            x = self.convs[2 * k](x, w[:, 2 * k + 1], inputs[2 * k + 1])
            x = self.convs[2 * k + 1](x, w[:, 2 * k + 2], inputs[2 * k + 2])
            image = to_rgb(x, w[:, 2 * k + 3], image)
        return image, None


def _squeeze_as(G: Generator, state: State, squeezed: Optional[Collection[str]]) -> None:
    """Mark the squeezed blocks, and give them the excite that ``state`` has."""
    found: List[str] = []
    for place in places(G, ROSINALITY):
        conv1: Any = get(G, place.conv1)
        width, channels = conv1.conv.weight.shape[1:3]
        name = f"{place.reader}.excite.weight"
        # The last block has no excite: at full width nothing in it tells squeezed from dense, but its fellows do.
        alike = place.reader is None and len(found) > 0 and len(found) == len(G.to_rgbs)
        if name in state or width < channels or (alike if squeezed is None else place.conv1 in squeezed):
            found.append(place.conv1)
            conv1.squeezed = True
            excite = Excite(width, channels).to(conv1.conv.weight.dtype) if name in state else None
            write_block(G, FlatBlock(place, conv1, get(G, place.torgb), excite))


class _Holder(torch.nn.Module):
    def __init__(self, **parameters: torch.nn.Parameter) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            setattr(self, name, parameter)


class _Kernel(torch.nn.Module):
    kernel: torch.Tensor

    def __init__(self, like: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.empty(like.shape))


class Linear(torch.nn.Module):
    """y = x W^T scale + b lr_mul, with scale = lr_mul / sqrt(in)."""

    def __init__(self, in_dim: int, out_dim: int, bias: float, lr_mul: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(out_dim, in_dim) / lr_mul)
        self.bias = torch.nn.Parameter(torch.full([out_dim], float(bias)))
        self.scale, self.lr_mul = lr_mul / math.sqrt(in_dim), lr_mul

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_dim] -> [N, out_dim]."""
        return torch.nn.functional.linear(x, self.weight * self.scale, self.bias * self.lr_mul)


class MappingLayers(torch.nn.Sequential):
    """z -> w: normalisation, then linear layers with leaky ReLU (Karras et al. 2019, StyleGAN, section 2)."""

    def __init__(self, entries: int, w_dim: int) -> None:
        super().__init__(torch.nn.Identity(), *(Linear(w_dim, w_dim, 0, LR_MLP) for _ in range(entries)))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[N, w_dim] -> [N, w_dim]."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in list(self)[1:]:
            size = float(layer.weight.detach().std()) * LR_MLP  # type: ignore[operator,arg-type]
            if not 0.1 < size < 10:
                raise UnsupportedModelError(
                    f"the mapping network's weights are {size:.2g} times what rosinality's lr_mlp={LR_MLP} makes, so "
                    "its styles cannot be told from the file alone. Load it into the host's Generator and go on with "
                    "that in Python (squeeze_patch.apply, recover, compare), or convert with init='random'"
                )
            x = torch.nn.functional.leaky_relu(layer(x), 0.2) * math.sqrt(2)
        return x


class Modulated(torch.nn.Module):
    """Convolution of styled features, upsampling by two where there is a blur kernel (its gain of four included)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, blur: Optional[torch.Tensor] = None
    ) -> None:
        super().__init__()
        if blur is not None:
            self.blur = _Kernel(blur)
        self.weight = torch.nn.Parameter(torch.randn(1, out_channels, in_channels, kernel_size, kernel_size))
        self.modulation = Linear(w_dim, in_channels, 1, 1)
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, demodulate: bool) -> torch.Tensor:
        """Features [N, in_channels, h, w] and styles [N, w_dim] -> [N, out_channels, h or 2h, w or 2w].

        Styles scale the inputs and demodulation the outputs, which are equations 1 and 3 without weights of every image
        of its own.
        """
        style, weight = self.modulation(w), self.weight[0] * self.scale
        x = x * style[:, :, None, None]
        if hasattr(self, "blur"):
            x = _up_convolve(x, weight, self.blur.kernel)
        else:
            x = torch.nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if not demodulate:
            return x
        power = style.square() @ weight.square().sum(dim=[2, 3]).t()
        return x * (power + 1e-8).rsqrt()[:, :, None, None]


def _up_convolve(x: torch.Tensor, weight: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Zeros between the pixels, convolution with ``weight`` [out, in, 3, 3], filter ``kernel`` [k, k], as large as 2h x
    2w: the transposed convolution makes one row more, and the filter takes k - 1."""
    x = torch.nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    n, c, height, width = x.shape
    taps = kernel.shape[-1]
    x = torch.nn.functional.pad(x, [(taps - 1) // 2, (taps - 2) // 2] * 2)
    x = x.reshape(n * c, 1, *x.shape[2:])
    return torch.nn.functional.conv2d(x, kernel.flip([0, 1])[None, None]).reshape(n, c, height - 1, width - 1)


class Conv(torch.nn.Module):
    """Modulated convolution, noise strength, bias with leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, blur: Optional[torch.Tensor] = None
    ) -> None:
        super().__init__()
        self.conv = Modulated(in_channels, out_channels, kernel_size, w_dim, blur)
        self.noise = _Holder(weight=torch.nn.Parameter(torch.zeros(1)))
        activate: Any = _Holder(bias=torch.nn.Parameter(torch.zeros(out_channels)))
        activate.negative_slope, activate.scale = 0.2, math.sqrt(2)
        self.activate = activate

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        strength: Any = self.noise.weight
        x = self.conv(x, w, demodulate=True) + strength * noise + self.activate.bias[:, None, None]
        return torch.nn.functional.leaky_relu(x, self.activate.negative_slope) * self.activate.scale


class ToRGB(torch.nn.Module):
    def __init__(self, in_channels: int, w_dim: int, upsample: bool) -> None:
        super().__init__()
        if upsample:
            self.upsample = _Kernel(torch.empty(4, 4))
        self.conv = Modulated(in_channels, 3, 1, w_dim)
        self.bias = torch.nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: torch.Tensor, w: torch.Tensor, image: Optional[torch.Tensor]) -> torch.Tensor:
        """The image so far [N, 3, h/2, w/2], None at first -> [N, 3, h, w]."""
        rgb = self.conv(x, w, demodulate=False) + self.bias
        return rgb if image is None else rgb + upsample2d(image, self.upsample.kernel / 4)  # its gain is in the kernel


def _conv_shape(state: State, name: str) -> Tuple[int, int, int]:
    """[in channels, out channels, kernel size]."""
    _, out, into, size, _ = state[f"{name}.conv.weight"].shape
    return into, out, size


def _count(state: State, prefix: str) -> int:
    """How many numbered entries there are under ``prefix``."""
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})
