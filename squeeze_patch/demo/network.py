"""A small StyleGAN2 generator of our own, for the demo and the tests: plain torch, float32, unconditional.

Written from the papers (Karras et al. 2019, 2020; Karras et al. 2020 "ADA" for the parameter layout). It has the module
and parameter names of the NVIDIA family, so that the same adapter serves it and weights trained there load here.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch.nn import functional

LRELU_GAIN = math.sqrt(2)


def _binomial_filter() -> torch.Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def _filter(x: torch.Tensor, kernel: torch.Tensor, gain: float, padding: int) -> torch.Tensor:
    """Filter every channel alone with a symmetric kernel."""
    channels = x.shape[1]
    return functional.conv2d(x, (kernel * gain).expand(channels, 1, -1, -1), padding=padding, groups=channels)


class FullyConnectedLayer(torch.nn.Module):
    """Linear layer with equalised learning rate."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        lrelu: bool = False,
    ) -> None:
        super().__init__()
        self.lrelu = lrelu
        self.weight = torch.nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return functional.leaky_relu(x, 0.2) * LRELU_GAIN if self.lrelu else x


class MappingNetwork(torch.nn.Module):
    """z [N, z_dim] -> w [N, num_ws, w_dim]."""

    w_avg: torch.Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, num_layers: int = 2) -> None:
        super().__init__()
        if c_dim != 0:
            raise ValueError("the demo generator is unconditional: c_dim has to be 0")
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers = num_layers
        for index in range(num_layers):
            features = z_dim if index == 0 else w_dim
            setattr(self, f"fc{index}", FullyConnectedLayer(features, w_dim, lr_multiplier=0.01, lrelu=True))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: torch.Tensor, c: Optional[torch.Tensor] = None, truncation_psi: float = 1.0) -> torch.Tensor:
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        x = torch.lerp(self.w_avg, x, truncation_psi)
        return x[:, None].expand(-1, self.num_ws, -1)


class SynthesisLayer(torch.nn.Module):
    """Modulated, demodulated 3x3 convolution with noise, bias and leaky ReLU; ``up=2`` doubles the resolution."""

    noise_const: torch.Tensor
    resample_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int = 1) -> None:
        super().__init__()
        self.resolution, self.up = resolution, up
        self.use_noise, self.activation, self.act_gain = True, "lrelu", LRELU_GAIN
        self.conv_clamp: Optional[float] = None
        self.register_buffer("resample_filter", _binomial_filter())
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = torch.nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: str = "random", **_others: Any) -> torch.Tensor:
        """[N, in, h, w], [N, w_dim] -> [N, out, H, W]; other keywords of the family's layers change nothing here."""
        style = self.affine(w)
        power = style.square() @ self.weight.square().sum(dim=(2, 3)).t()
        x = x * style[:, :, None, None]
        if self.up == 2:
            x = functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = _filter(x, self.resample_filter, gain=4.0, padding=1)
        else:
            x = functional.conv2d(x, self.weight, padding=1)
        x = x * (power + 1e-8).rsqrt()[:, :, None, None] + self._noise(x, noise_mode) + self.bias[None, :, None, None]
        return functional.leaky_relu(x, 0.2) * self.act_gain

    def _noise(self, x: torch.Tensor, noise_mode: str) -> torch.Tensor:
        if noise_mode == "none":
            return x.new_zeros([])
        if noise_mode == "const":
            return self.noise_const * self.noise_strength
        if noise_mode == "random":
            return torch.randn_like(x[:, :1]) * self.noise_strength
        raise ValueError(f"noise_mode has to be const, random or none, not {noise_mode!r}")


class ToRGBLayer(torch.nn.Module):
    """Modulated 1x1 convolution to the image's channels, not demodulated."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = torch.nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor, **_others: Any) -> torch.Tensor:
        """[N, in, H, W], [N, w_dim] -> [N, img_channels, H, W]."""
        style = self.affine(w) * self.weight_gain
        return functional.conv2d(x * style[:, :, None, None], self.weight, self.bias)


class SynthesisBlock(torch.nn.Module):
    """conv0 (or a constant), conv1 and torgb of one resolution, architecture 'skip'."""

    resample_filter: torch.Tensor

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int, is_last: bool
    ) -> None:
        super().__init__()
        self.in_channels, self.w_dim, self.resolution = in_channels, w_dim, resolution
        self.img_channels, self.is_last, self.architecture = img_channels, is_last, "skip"
        self.num_conv, self.num_torgb = (2 if in_channels else 1), 1
        self.register_buffer("resample_filter", _binomial_filter())
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim)

    def forward(
        self, x: Optional[torch.Tensor], img: Optional[torch.Tensor], ws: torch.Tensor, **layer_kwargs: Any
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        styles = list(ws.unbind(dim=1))
        first = self.in_channels == 0
        x = self.const.expand(ws.shape[0], -1, -1, -1) if first else self.conv0(x, styles.pop(0), **layer_kwargs)
        x = self.conv1(x, styles.pop(0), **layer_kwargs)
        rgb = self.torgb(x, styles.pop(0))
        if img is not None:
            n, c, height, width = img.shape
            spread = img.new_zeros([n, c, 2 * height + 3, 2 * width + 3])
            spread[:, :, 2:-1:2, 2:-1:2] = img
            rgb = rgb + _filter(spread, self.resample_filter, gain=4.0, padding=0)
        return x, rgb


class SynthesisNetwork(torch.nn.Module):
    """w [N, num_ws, w_dim] -> image [N, img_channels, R, R]."""

    def __init__(
        self, w_dim: int, img_resolution: int, img_channels: int, channel_base: int = 32768, channel_max: int = 512
    ) -> None:
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions: List[int] = [2**i for i in range(2, img_resolution.bit_length())]
        channels = {resolution: min(channel_base // resolution, channel_max) for resolution in self.block_resolutions}
        self.num_ws = 1
        for resolution in self.block_resolutions:
            in_channels = channels.get(resolution // 2, 0)
            is_last = resolution == img_resolution
            block = SynthesisBlock(in_channels, channels[resolution], w_dim, resolution, img_channels, is_last)
            self.num_ws += block.num_conv
            setattr(self, f"b{resolution}", block)

    def forward(self, ws: torch.Tensor, **block_kwargs: Any) -> torch.Tensor:
        x = img = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            x, img = block(x, img, ws[:, first : first + block.num_conv + block.num_torgb], **block_kwargs)
            first += block.num_conv
        assert img is not None
        return img


class Generator(torch.nn.Module):
    """z [N, z_dim] -> image [N, img_channels, R, R], about -1 to 1."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Optional[Dict[str, Any]] = None,
        synthesis_kwargs: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **(synthesis_kwargs or {}))
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self, z: torch.Tensor, c: Optional[torch.Tensor] = None, truncation_psi: float = 1.0, **synthesis_kwargs: Any
    ) -> torch.Tensor:
        return self.synthesis(self.mapping(z, c, truncation_psi=truncation_psi), **synthesis_kwargs)
