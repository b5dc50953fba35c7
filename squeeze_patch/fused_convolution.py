"""Modulated convolutions for inference, which can read the squeezed features of the block before.

excite is linear, and so is the convolution that reads it, up to the style s that stands between them. For one image
the two are one convolution with q instead of c inputs, of weight ``W diag(s) E`` (W of the reader, E of excite), and of
one input of ones more, by which excite's bias arrives: where the reader pads with zeros, that bias is missing, too.

It imports torch, the standard library and `squeeze_patch.handing_on` only, and uses no ``__future__`` import: its text
stands inside pickles (`squeeze_patch.adapters.nvidia.portable`), where it has to run without squeeze_patch.
"""

from typing import Any, Callable, NamedTuple, Optional

import torch
from torch.nn import functional

from squeeze_patch.handing_on import Handed, on_gpu

_EPSILON = 1e-8


class Finish(NamedTuple):
    """What follows the convolution of a layer: ``clamp(leaky_relu(gain * (y + noise + bias), slope))``.

    Attributes:
        bias: [O].
        noise: [1 or N, 1, R, R], or what broadcasts to it.
        gain: of the activation.
        slope: of the leaky ReLU; 1 = no activation.
        clamp: of the output; None = no clamping.
    """

    bias: Optional[torch.Tensor] = None
    noise: Optional[torch.Tensor] = None
    gain: float = 1.0
    slope: float = 1.0
    clamp: Optional[float] = None


def pays(weight: torch.Tensor, squeezed: int, pixels: int) -> bool:
    """Whether folding excite into its reader, of weight [O, I, k, k], saves multiply-adds for an image of which it
    reads ``pixels`` positions."""
    channels, taps = weight.shape[1], weight[:, 0].numel()
    return pixels * (taps * (channels - squeezed) + channels * squeezed) > taps * channels * squeezed


def fused_layer(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    finish: Finish,
    fir: Optional[torch.Tensor] = None,
    resample: Optional[Callable[[torch.Tensor], torch.Tensor]] = None,
    weight_gain: float = 1.0,
) -> torch.Tensor:
    """One layer of a synthesis network: a modulated, demodulated convolution and its `Finish`, without gradients.

    Args:
        x: features [N, I, H, W], or `Handed` on, in float32, float16 or bfloat16.
        weight: [O, I, k, k], float32.
        style: [N, I], float32: multiplies the inputs (Karras et al. 2020, equations 1 and 3).
        finish: what follows.
        fir: [4, 4], of sum 1: the layer upsamples by two, by a transposed convolution and this filter.
        resample: that filter by an operation of the host's, [N, O, 2H + 1, 2W + 1] -> [N, O, 2H, 2W].
        weight_gain: multiplies the weights.

    Returns:
        [N, O, R, R], in the dtype of ``x``.
    """
    weight, style = _single(weight), _single(style)
    filtered = None if fir is None else resample or _plain_filter(fir)
    x, excite = _opened(x, weight)
    power = _power(weight, style)  # [N, O]
    scale = (power * weight_gain**2 + _EPSILON).rsqrt() * (weight_gain * finish.gain)  # [N, O]
    if excite is None and _modulates_inputs(x, weight):
        y = _convolve_modulated(x, weight, style, scale, filtered)
        return _finished(y, finish)
    if excite is None:
        weights = weight * style[:, None, :, None, None]  # [N, O, I, k, k]
    else:
        x = _with_ones(x, excite.shape[1])  # [N, q + 1, H, W]
        weights = _folded(weight, style, excite)  # [N, O, q + 1, k, k]
    weights = weights.mul_(scale[:, :, None, None, None]).to(x.dtype)
    if not on_gpu(x):  # image by image: each one's features stay in the caches, and groups are slow there
        pairs = zip(torch.split(x, 1), torch.split(weights, 1))
        images = [_finished(_convolve(*pair, filtered), _of(finish, n)) for n, pair in enumerate(pairs)]
        return images[0] if len(images) == 1 else torch.cat(images)
    return _finished(_convolve(x, weights, filtered), finish)


def _single(x: torch.Tensor) -> torch.Tensor:
    """Not in half precision: sums of squares leave its range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _opened(x: Any, weight: torch.Tensor) -> Any:
    """(features to read, None), or (squeezed features f, excite's matrix and bias [c, q + 1]) where that pays."""
    if not isinstance(x, Handed):
        return _formatted(x), None
    f, excite = x.squeezed, x.excite
    if x.was_read or _is_open(f) or not pays(weight, f.shape[1], f.shape[2] * f.shape[3]):
        return _formatted(x.own_features()), None
    matrix = _single(excite.weight)[:, :, 0, 0] * excite.weight_gain  # [c, q]
    return _formatted(f), torch.cat([matrix, _single(excite.bias)[:, None]], dim=1)


def _formatted(x: torch.Tensor) -> torch.Tensor:
    """Channels last on a CPU, where convolutions of large features take half the time in it."""
    return x if on_gpu(x) else x.contiguous(memory_format=torch.channels_last)


def _is_open(x: torch.Tensor) -> bool:
    """Whether the number of images is left open, in a graph that is exported: each cannot have its own weights then."""
    return type(x.shape[0]) is not int


def _modulates_inputs(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the features are multiplied instead of the weights: there are fewer of them, or it spares a GPU a
    convolution of as many groups as images, which is slow there."""
    return _is_open(x) or (on_gpu(x) and x.shape[0] > 1) or x.shape[1:].numel() * 2 < weight.numel()


def _power(weight: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Sum of the squared modulated weights of each output: [N, O]."""
    return style.square() @ weight.square().sum(dim=[2, 3]).t()


def _folded(weight: torch.Tensor, style: torch.Tensor, excite: torch.Tensor) -> torch.Tensor:
    """W diag(s) E of each image: [N, O, q + 1, k, k]."""
    outputs, inputs, size, _ = weight.shape
    columns = excite.t()[None] * style[:, None, :]  # [N, q + 1, c]
    table = weight.permute(1, 2, 3, 0).reshape(inputs, -1)  # [c, k * k * O]
    product = columns.flatten(0, 1) @ table  # [N * (q + 1), k * k * O]
    return product.reshape(style.shape[0], -1, size, size, outputs).permute(0, 4, 1, 2, 3)


def _with_ones(x: torch.Tensor, channels: int) -> torch.Tensor:
    """``x`` with a channel of ones: [N, q, H, W] -> [N, channels, H, W]."""
    n, squeezed, height, width = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (n, channels, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    y[:, :squeezed] = x
    y[:, squeezed:] = 1
    return y


def _convolve(x: torch.Tensor, weights: torch.Tensor, filtered: Any) -> torch.Tensor:
    """Each image by its own weights [N, O, I, k, k], as groups of one convolution."""
    n, outputs, inputs, size, _ = weights.shape
    grouped = x if n == 1 else x.reshape(1, n * inputs, *x.shape[2:])
    if filtered is None:
        y = functional.conv2d(grouped, weights.flatten(0, 1), padding=size // 2, groups=n)
    else:
        y = functional.conv_transpose2d(grouped, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    y = y if n == 1 else y.reshape(n, outputs, *y.shape[2:])
    return y if filtered is None else filtered(y)


def _convolve_modulated(
    x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, scale: torch.Tensor, filtered: Any
) -> torch.Tensor:
    """The features modulated instead of the weights: one convolution for all images."""
    if x.dtype == torch.float16:  # neither products nor sums may leave its range
        largest, peak = style.abs().amax(dim=1, keepdim=True), weight.abs().amax() * weight[0].numel() ** 0.5
        style, weight, scale = style / largest, weight / peak, scale * largest * peak
    weight, size = weight.to(x.dtype), weight.shape[2]
    x = x * style.to(x.dtype)[:, :, None, None]
    if filtered is None:
        y = functional.conv2d(x, weight, padding=size // 2)
    else:
        y = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    y = y.mul_(scale.to(x.dtype)[:, :, None, None])
    return y if filtered is None else filtered(y)


def _plain_filter(fir: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def filtered(y: torch.Tensor) -> torch.Tensor:
        kernel = (fir.flip([0, 1]) * 4).to(y.dtype).expand(y.shape[1], 1, -1, -1)
        return functional.conv2d(y, kernel, padding=1, groups=y.shape[1])

    return filtered


def _finished(y: torch.Tensor, finish: Finish) -> torch.Tensor:
    """In place; ``y`` has its gain already."""
    if finish.bias is not None:
        y = y.add_((finish.bias * finish.gain).to(y.dtype)[None, :, None, None])
    if finish.noise is not None:
        y = y.add_((finish.noise * finish.gain).to(y.dtype))
    if finish.slope != 1:
        y = functional.leaky_relu_(y, finish.slope)
    return y if finish.clamp is None else y.clamp_(-finish.clamp, finish.clamp)


def _of(finish: Finish, n: int) -> Finish:
    """What follows for image ``n``."""
    noise = finish.noise
    if noise is None or noise.ndim < 4 or len(noise) == 1:  # for all images
        return finish
    return finish._replace(noise=noise[n : n + 1])


def fused_rgb(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    bias: torch.Tensor,
    clamp: Optional[float] = None,
) -> torch.Tensor:
    """A toRGB layer, which does not demodulate, without gradients.

    Args:
        x: features [N, I, H, W].
        weight: [C, I, 1, 1].
        style: [N, I], float32, with the layer's gain.
        bias: [C].
        clamp: of the output.

    Returns:
        [N, C, H, W], in the dtype of ``x``.
    """
    weights = (weight[None, :, :, 0, 0] * style[:, None]).to(x.dtype)  # [N, C, I]
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, HW, I]
    y = torch.baddbmm(bias.to(x.dtype)[None, None], pixels, weights.transpose(1, 2))  # [N, HW, C]
    y = y.transpose(1, 2).reshape(x.shape[0], bias.shape[0], *x.shape[2:])
    return y if clamp is None else y.clamp_(-clamp, clamp)
