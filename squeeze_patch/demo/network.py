"""A small StyleGAN2 generator of our own, for the demo and the tests: plain torch, float32, unconditional.

Its layers are those by which files of the NVIDIA family are read (`adapters.nvidia.body`), so that the same adapter
serves it and weights trained there load here; this module builds them.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import torch

from squeeze_patch.adapters.nvidia import body
from squeeze_patch.adapters.nvidia.body import FullyConnectedLayer, SynthesisLayer, ToRGBLayer


class MappingNetwork(body.MappingNetwork):
    """z [N, z_dim] -> w [N, num_ws, w_dim]."""

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, num_layers: int = 2) -> None:
        super().__init__()
        if c_dim != 0:
            raise ValueError("the demo generator is unconditional: c_dim has to be 0")
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers = num_layers
        for index in range(num_layers):
            features = z_dim if index == 0 else w_dim
            layer = FullyConnectedLayer(features, w_dim, lr_multiplier=0.01, activation="lrelu")
            setattr(self, f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))


class SynthesisBlock(body.SynthesisBlock):
    """conv0 (or a constant), conv1 and torgb of one resolution, architecture 'skip'."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int, is_last: bool
    ) -> None:
        super().__init__()
        self.in_channels, self.w_dim, self.resolution = in_channels, w_dim, resolution
        self.img_channels, self.is_last, self.architecture = img_channels, is_last, "skip"
        self.num_conv, self.num_torgb = (2 if in_channels else 1), 1
        self.register_buffer("resample_filter", body.binomial_filter())
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim)


class SynthesisNetwork(body.SynthesisNetwork):
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


class Generator(body.Generator):
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
