"""rosinality's generator from its state dict alone: a body of our own, to be squeezed and run in the host's place.

It runs by the formulas of Karras et al. 2020 (StyleGAN2). Names and shapes say everything but one number, the mapping
network's learning-rate multiplier, which multiplies its weights at run time: it is taken to be the host's default of
0.01, and weights of another magnitude are refused where it matters, when latents are mapped to styles.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Optional, Type

import torch

from squeeze_patch.adapters.rosinality.body import Blocks, FlatBody, Kernel, State, give_parameter
from squeeze_patch.adapters.rosinality.layout import ROSINALITY, Layout, get
from squeeze_patch.connection import upsample2d
from squeeze_patch.errors import UnsupportedModelError

LR_MLP = 0.01
#: the hosts' default filter, of gain 4, as after zeros are inserted
FILTER = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 16


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
                    f"the mapping network's weights are {size:.2g} times what the host's lr_mlp={LR_MLP} makes, so "
                    "its styles cannot be told from the file alone. Load it into the host's Generator and go on with "
                    "that in Python (squeeze_patch.apply, recover, compare), or convert with init='random'"
                )
            x = torch.nn.functional.leaky_relu(layer(x), 0.2) * math.sqrt(2)
        return x


class Modulated(torch.nn.Module):
    """Convolution of styled features, upsampling by two where there is a filter (its gain of four included; True = the
    hosts' default)."""

    #: name of the module that holds the filter, and whether it is in the state dict
    holder: ClassVar[str] = "blur"
    stored: ClassVar[bool] = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, upsample: Any = None) -> None:
        super().__init__()
        if upsample is not None:
            self.add_module(self.holder, Kernel(FILTER if upsample is True else upsample, self.stored))
        self.weight = torch.nn.Parameter(torch.randn(1, out_channels, in_channels, kernel_size, kernel_size))
        self.modulation: torch.nn.Module = Linear(w_dim, in_channels, 1, 1)
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, demodulate: bool) -> torch.Tensor:
        """Features [N, in_channels, h, w] and styles [N, w_dim] -> [N, out_channels, h or 2h, w or 2w].

        Styles scale the inputs and demodulation the outputs, which are equations 1 and 3 without weights of every image
        of its own.
        """
        style, weight = self.modulation(w), self.weight[0] * self.scale  # [N, in], [out, in, k, k]
        x = self.convolve(x * style[:, :, None, None], weight)
        if not demodulate:
            return x
        power = style.square() @ weight.square().sum(dim=[2, 3]).t()  # [N, out]
        return x * (power + 1e-8).rsqrt()[:, :, None, None]

    def convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """With effective weights [out, in, k, k], between the two scalings."""
        up: Any = getattr(self, self.holder, None)
        if up is not None:
            return _up_convolve(x, weight, up.kernel)
        return torch.nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


def _up_convolve(x: torch.Tensor, weight: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Zeros between the pixels, convolution with ``weight`` [out, in, 3, 3], filter ``kernel`` [k, k], as large as 2h x
    2w: the transposed convolution makes one row more, and the filter takes k - 1."""
    x = torch.nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, out, 2h + 1, 2w + 1]
    channels, taps = x.shape[1], kernel.shape[-1]
    x = torch.nn.functional.pad(x, [(taps - 1) // 2, (taps - 2) // 2] * 2)
    return torch.nn.functional.conv2d(x, kernel.flip([0, 1]).expand(channels, 1, -1, -1), groups=channels)


class Conv(torch.nn.Module):
    """Modulated convolution, noise strength, bias with leaky ReLU."""

    layout: ClassVar[Layout] = ROSINALITY
    modulated_class: ClassVar[Type[Modulated]] = Modulated

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, upsample: Any = None) -> None:
        super().__init__()
        inner = self.modulated_class(in_channels, out_channels, kernel_size, w_dim, upsample)
        self.add_module(self.layout.modulated, inner)
        give_parameter(self, self.layout.noise, torch.zeros(1))
        give_parameter(self, self.layout.bias, torch.zeros(out_channels))
        activate: Any = self.activate
        activate.negative_slope, activate.scale = 0.2, math.sqrt(2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, h, w], styles [N, w_dim], noise [1 or N, 1, H, W] -> [N, out_channels, H, W]."""
        activate: Any = self.activate
        x = get(self, self.layout.modulated)(x, w, demodulate=True)  # [N, out, H, W]
        x = x + get(self, self.layout.noise) * noise + activate.bias[:, None, None]
        return torch.nn.functional.leaky_relu(x, activate.negative_slope) * activate.scale


class ToRGB(torch.nn.Module):
    """Modulated 1x1 convolution without demodulation, and the image so far, upsampled."""

    layout: ClassVar[Layout] = ROSINALITY
    modulated_class: ClassVar[Type[Modulated]] = Modulated

    def __init__(self, in_channels: int, w_dim: int, upsample: bool, img_channels: int = 3) -> None:
        super().__init__()
        self.img_channels = img_channels
        self.upsample: Any = Kernel(FILTER, self.modulated_class.stored) if upsample else None
        self.add_module(self.layout.modulated, self.modulated_class(in_channels, img_channels, 1, w_dim))
        self.bias = torch.nn.Parameter(torch.zeros(1, img_channels, 1, 1))

    def forward(self, x: torch.Tensor, w: torch.Tensor, image: Optional[torch.Tensor]) -> torch.Tensor:
        """The image so far [N, C, h/2, w/2], None at first -> [N, C, h, w]."""
        rgb: torch.Tensor = get(self, self.layout.modulated)(x, w, demodulate=False) + self.bias
        return rgb if image is None else rgb + self.enlarged(image)

    def enlarged(self, image: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] -> [N, C, 2h, 2w]."""
        return upsample2d(image, self.upsample.kernel / 4)  # its gain is in the kernel


class Generator(FlatBody):
    """Parameters and buffers under the host's names, in the host's order; filters are those of the state dict."""

    layout = ROSINALITY
    conv_class = Conv
    torgb_class = ToRGB
    mapping_class = MappingLayers

    def __init__(self, state: State, blocks: Blocks) -> None:
        super().__init__(state, blocks)
        for k, to_rgb in enumerate(self.to_rgbs):
            kernel = state[f"to_rgbs.{k}.upsample.kernel"]
            to_rgb.upsample = Kernel(kernel, stored=True)

    def upsampling(self, state: State, index: int) -> Optional[torch.Tensor]:
        return state.get(f"convs.{index}.conv.blur.kernel")
