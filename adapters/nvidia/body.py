"""Generators of the NVIDIA family from what their pickles hold, without the host: layers of our own writing.

Written from the papers (Karras et al. 2019, 2020, and 2020 "ADA" for the layout). Modules, parameters, buffers and
attributes have the hosts' names, so that the family's adapter serves these generators as it serves the hosts'. They
compute in float32, float16 blocks too.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch.nn import functional

from squeeze_patch.adapters.content import BlockSpec
from squeeze_patch.adapters.nvidia.block import put_first_half, rebuild_layer
from squeeze_patch.connection import upsample2d

#: {activation: (slope below zero, gain)}
ACTIVATIONS = {"linear": (1.0, 1.0), "relu": (0.0, math.sqrt(2)), "lrelu": (0.2, math.sqrt(2))}


def activate(x: torch.Tensor, activation: str, gain: Optional[float] = None, clamp: Optional[float] = None) -> Any:
    """Activation, gain and clamp, of features that have their bias."""
    slope, usual = ACTIVATIONS[activation]
    x = x if activation == "linear" else functional.leaky_relu(x, slope)
    gain = usual if gain is None else float(gain)
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def binomial_filter() -> torch.Tensor:
    """The hosts' default, [1, 3, 3, 1] along rows and columns, of sum one: [4, 4]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / taps.sum().square()


class FullyConnectedLayer(torch.nn.Module):
    """Linear layer with equalised learning rate: [N, in] -> [N, out]."""

    weight: torch.Tensor
    bias: Any

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(x.dtype) * self.weight_gain
        if self.bias is None:
            return activate(x @ weight.t(), self.activation)  # type: ignore[no-any-return]
        bias = self.bias.to(x.dtype)
        bias = bias if self.bias_gain == 1 else bias * self.bias_gain
        if self.activation == "linear":
            return torch.addmm(bias[None], x, weight.t())
        return activate(x @ weight.t() + bias, self.activation)  # type: ignore[no-any-return]


class MappingNetwork(torch.nn.Module):
    """z [N, z_dim], c [N, c_dim] -> w [N, num_ws, w_dim]."""

    z_dim: int
    c_dim: int
    num_ws: Optional[int]
    num_layers: int

    def forward(
        self,
        z: torch.Tensor,
        c: Optional[torch.Tensor] = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: Optional[int] = None,
        **_others: Any,
    ) -> torch.Tensor:
        parts = [_normalised(z.float())] if self.z_dim > 0 else []
        if self.c_dim > 0:
            assert c is not None
            parts.append(_normalised(getattr(self, "embed")(c.float())))  # noqa: B009
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        if self.num_ws is None:
            return x
        x = x[:, None].repeat([1, self.num_ws, 1])  # [N, num_ws, w_dim]
        if truncation_psi != 1:
            w_avg = getattr(self, "w_avg")  # noqa: B009
            last = self.num_ws if truncation_cutoff is None else truncation_cutoff
            x[:, :last] = w_avg.lerp(x[:, :last], truncation_psi)
        return x


def _normalised(x: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class SynthesisLayer(torch.nn.Module):
    """Modulated, demodulated convolution with noise, bias and activation; ``up=2`` doubles the resolution."""

    resample_filter: torch.Tensor
    noise_const: torch.Tensor
    noise_strength: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    affine: FullyConnectedLayer

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        conv_clamp: Optional[float] = None,
        noise_sides: Optional[Sequence[int]] = None,
        **_others: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.w_dim, self.resolution = in_channels, out_channels, w_dim, resolution
        self.up, self.use_noise, self.activation, self.conv_clamp = up, use_noise, activation, conv_clamp
        self.padding, self.act_gain = kernel_size // 2, ACTIVATIONS[activation][1]
        self.register_buffer("resample_filter", binomial_filter())
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(noise_sides or [resolution, resolution]))
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))

    @property
    def noise_sides(self) -> Optional[Sequence[int]]:
        """Height and width of the stored noise: images need not be square."""
        noise = self._buffers.get("noise_const")
        return None if noise is None else list(noise.shape)

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: str = "random", gain: float = 1, **_others: Any
    ) -> torch.Tensor:
        """[N, in, h, w], [N, w_dim] -> [N, out, H, W], in float32."""
        style = self.affine(w)  # [N, in]
        weight = self.weight.float()  # files of half precision, too
        power = style.square() @ weight.square().sum(dim=[2, 3]).t()  # [N, out]
        x = x.float() * style[:, :, None, None]
        if self.up == 2:
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, out, 2h + 1, 2w + 1]
            kernel = (self.resample_filter.float() * 4).expand(x.shape[1], 1, -1, -1)
            x = functional.conv2d(x, kernel.flip([2, 3]), padding=1, groups=x.shape[1])
        else:
            x = functional.conv2d(x, weight, padding=self.padding)
        x = x * (power + 1e-8).rsqrt()[:, :, None, None]
        x = self._with_noise(x, noise_mode) + self.bias[None, :, None, None]
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return activate(x, self.activation, self.act_gain * gain, clamp)  # type: ignore[no-any-return]

    def _with_noise(self, x: torch.Tensor, noise_mode: str) -> torch.Tensor:
        if noise_mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode has to be const, random or none, not {noise_mode!r}")
        if not self.use_noise or noise_mode == "none":
            return x
        noise = self.noise_const if noise_mode == "const" else torch.randn_like(x[:, :1])
        return x + noise * self.noise_strength


class ToRGBLayer(torch.nn.Module):
    """Modulated convolution to the image's channels, not demodulated."""

    weight: torch.Tensor
    bias: torch.Tensor
    affine: FullyConnectedLayer

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: Optional[float] = None,
        **_others: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.w_dim, self.conv_clamp = in_channels, out_channels, w_dim, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn([out_channels, in_channels, kernel_size, kernel_size]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, **_others: Any) -> torch.Tensor:
        """[N, in, H, W], [N, w_dim] -> [N, img_channels, H, W], in float32."""
        style = self.affine(w) * self.weight_gain
        x = functional.conv2d(x.float() * style[:, :, None, None], self.weight.float()) + self.bias[None, :, None, None]
        return activate(x, "linear", clamp=self.conv_clamp)  # type: ignore[no-any-return]


class SynthesisBlock(torch.nn.Module):
    """conv0 or a constant, conv1 and torgb of one resolution, architecture 'skip'."""

    in_channels: int
    resample_filter: torch.Tensor
    const: torch.Tensor
    conv0: SynthesisLayer
    conv1: SynthesisLayer
    torgb: ToRGBLayer

    def forward(
        self,
        x: Optional[torch.Tensor],
        img: Optional[torch.Tensor],
        ws: torch.Tensor,
        force_fp32: bool = True,
        fused_modconv: Any = None,
        **layer_kwargs: Any,
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """As the hosts' blocks; features are float32."""
        layer_kwargs.pop("update_emas", None)
        w = iter(ws.unbind(dim=1))
        if self.in_channels == 0:
            x = self.const.float().repeat([ws.shape[0], 1, 1, 1])  # [N, c, 4, 4]
        else:
            assert x is not None
            x = self.conv0(x, next(w), **layer_kwargs)
        x = self.conv1(x, next(w), **layer_kwargs)
        rgb = self.torgb(x, next(w))
        return x, rgb if img is None else upsample2d(img, self.resample_filter) + rgb


class SynthesisNetwork(torch.nn.Module):
    """w [N, num_ws, w_dim] -> image [N, img_channels, R, R]."""

    block_resolutions: List[int]
    num_ws: int

    def forward(self, ws: torch.Tensor, **block_kwargs: Any) -> torch.Tensor:
        block_kwargs["force_fp32"] = True
        x = img = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f"b{resolution}")
            x, img = block(x, img, ws.float()[:, first : first + block.num_conv + block.num_torgb], **block_kwargs)
            first += block.num_conv
        assert img is not None
        return img


class Generator(torch.nn.Module):
    """z [N, z_dim], c [N, c_dim] -> image [N, img_channels, R, R], about -1 to 1."""

    mapping: MappingNetwork
    synthesis: SynthesisNetwork

    def forward(
        self,
        z: torch.Tensor,
        c: Optional[torch.Tensor] = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: Optional[int] = None,
        **synthesis_kwargs: Any,
    ) -> torch.Tensor:
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        images: torch.Tensor = self.synthesis(ws, **synthesis_kwargs)
        return images


#: {class, as pickles name it: body}
BODIES: Dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        FullyConnectedLayer,
        MappingNetwork,
        SynthesisLayer,
        ToRGBLayer,
        SynthesisBlock,
        SynthesisNetwork,
        Generator,
    )
}


def dense_body_like(root: torch.nn.Module, network: Any, specs: Sequence[BlockSpec]) -> torch.nn.Module:
    """A copy of ``root`` whose blocks are dense again, of the sizes that ``specs`` have for it, with random weights for
    conv1, for torgb, and for what has other sizes."""
    path = next(name for name, module in root.named_modules() if module is network)
    dense = copy.deepcopy(root)
    copied: Any = dense.get_submodule(path)
    for spec in specs:
        old: Any = getattr(copied, spec.name)
        if spec.shape is None:
            continue
        new: Any = SynthesisBlock()
        for name, value in vars(old).items():
            if name not in vars(new):
                setattr(new, name, value)
        for name, tensor in (*old.named_parameters(recurse=False), *old.named_buffers(recurse=False)):
            kind = new.register_parameter if isinstance(tensor, torch.nn.Parameter) else new.register_buffer
            kind(name, tensor)
        new.in_channels, new.out_channels = spec.in_channels, spec.channels
        put_first_half(new, old, spec.channels, spec.in_channels, anew=False)
        new.conv1 = rebuild_layer(old.conv1, in_channels=spec.channels, out_channels=spec.channels)
        new.torgb = rebuild_layer(old.torgb, in_channels=spec.channels)
        setattr(copied, spec.name, new.train(old.training))
    del copied.squeeze_plan
    return dense
