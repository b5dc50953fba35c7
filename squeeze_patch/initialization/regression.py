"""What a squeezed block makes of its kept channels: excite by least squares, torgb refitted with its style."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import torch

from squeeze_patch.adapters.content import Affine, ConvWeights, DenseBlock

#: ridge of the regressions, relative to the mean variance of a channel; keeps dead channels from dividing by zero
RIDGE = 1e-6


def regress(covariance: torch.Tensor, mean: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares from the kept channels to all: features = kept features @ mix.T + offset; exact on the kept ones.

    Returns:
        mix [c, q], offset [c].
    """
    mix = _ridge_solve(covariance[kept][:, kept], covariance[kept]).t().clone()  # [c, q]
    mix[kept] = torch.eye(len(kept), dtype=mix.dtype)
    return mix, mean - mix @ mean[kept]


def fit_excite(dense: torch.Tensor, features: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regression from kept features to all dense ones: dense = features @ mix.T + offset.

    The ridge draws towards the identity on the kept channels, so that where features are the dense ones' own, that is
    what comes out, to the bit.

    Args:
        dense: features to make [p, c], float64.
        features: kept features as they are in the squeezed generator [p, q], float64.
        kept: their channels [q].

    Returns:
        mix [c, q], offset [c].
    """
    mix = torch.zeros([dense.shape[1], len(kept)], dtype=dense.dtype)  # [c, q]
    mix[kept] = torch.eye(len(kept), dtype=dense.dtype)
    mean, wanted = features.mean(dim=0), dense.mean(dim=0)
    centred = features - mean
    rest = dense - wanted
    rest[:, kept] -= centred
    inner = centred.t() @ centred  # [q, q]
    mix += _ridge_solve(inner, centred.t() @ rest).t()
    return mix, wanted - mix @ mean


def fit_image(
    weight: torch.Tensor, bias: torch.Tensor, styled: torch.Tensor, image: torch.Tensor, has_bias: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correct torgb's weight [img_channels, q] and bias so that it makes ``image`` of styled features.

    Args:
        styled: kept features times their styles [p, q], float64.
        image: the share of the image that is wanted [p, img_channels], float64.
        has_bias: False = the bias stays as it is; the weight alone is fitted.
    """
    mean = styled.mean(dim=0) if has_bias else torch.zeros_like(styled[0])
    centred = styled - mean
    rest = image - styled @ weight.t() - bias  # [p, img_channels]
    correction = _ridge_solve(centred.t() @ centred, centred.t() @ rest).t()  # [img_channels, q]
    return weight + correction, bias + rest.mean(dim=0) - correction @ mean if has_bias else bias


def refit_conv(
    conv: ConvWeights,
    outputs: Optional[torch.Tensor],
    inputs: Optional[torch.Tensor],
    mix: torch.Tensor,
    offset: torch.Tensor,
    ws: torch.Tensor,
) -> ConvWeights:
    """A convolution of kept outputs that reads kept inputs.

    With styled inputs written as ``u = u' @ mix.T + offset`` of the styled kept ones u', its weight W becomes W mix.
    Demodulation divides every output by the size of its styled row, which has changed: by alpha, in the mean over
    styles. The output is 1 / alpha of what it was, and so are bias and noise; what reads it has to make that good.

    Args:
        outputs: kept outputs; None = all.
        inputs: kept inputs; None = all.
        mix, offset: [in, kept in], [in], float64, as of `fit_excite` on styled inputs.
        ws: style vectors [n, w_dim], float64.
    """
    every = torch.arange(len(conv.weight)) if outputs is None else outputs
    style = conv.style if inputs is None else Affine(conv.style.weight[inputs], conv.style.bias[inputs])
    weight = conv.weight[every].double()  # [q, in, k, k]
    fitted = torch.einsum("oixy,ik->okxy", weight, mix)  # [q, kept in, k, k]
    before, after = _mean_power(weight, conv.style, ws), _mean_power(fitted, style, ws)  # [q]
    alpha = (after / before.clamp_min(1e-300)).sqrt().clamp_min(1e-12)
    constant = (weight.sum(dim=[2, 3]) @ offset) * (before + 1e-8).rsqrt()  # [q]
    bias = (conv.bias[every].double() + constant) / alpha
    noise = conv.noise_strength
    strength = (noise[every] / alpha).float() if isinstance(noise, torch.Tensor) else noise * float((1 / alpha).mean())
    return replace(conv, weight=fitted.float(), style=style, bias=bias.float(), noise_strength=strength)


def _mean_power(weight: torch.Tensor, style: Affine, ws: torch.Tensor) -> torch.Tensor:
    """Mean over styles of the squared size of every styled row: [out]."""
    powers = style(ws.float()).double().square().mean(dim=0)  # [in]
    return weight.square().sum(dim=[2, 3]) @ powers


def _ridge_solve(inner: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-300)
    return torch.linalg.solve(inner + ridge * torch.eye(len(inner), dtype=inner.dtype), cross)


def refit_torgb(
    block: DenseBlock, mix: torch.Tensor, offset: torch.Tensor, kept: torch.Tensor, ws: torch.Tensor
) -> tuple[torch.Tensor, Affine, torch.Tensor]:
    """torgb on the kept channels: weight [img_channels, q], style, bias [img_channels].

    With every feature written through ``mix``, the block's share of the image is
    ``sum_k (sum_o t_o mix_ok style_o(w)) f_k``: for each kept channel a matrix [img_channels, 1 + w_dim] acting on
    (w, 1). torgb can represent the best matrix of rank one under the distribution of w, which is all of it for one
    image channel and at ratio 1. Scale and sign follow the dense style, so that averaging weights over training stays
    sound.
    """
    style = torch.cat([block.rgb_style.weight, block.rgb_style.bias[:, None]], dim=1).double()  # [c, w_dim + 1]
    weight = block.rgb_weight.double()  # [img_channels, c]
    ones = torch.cat([ws, ws.new_ones([len(ws), 1])], dim=1)  # [n, w_dim + 1]
    root = torch.linalg.qr(ones).R / len(ws) ** 0.5  # root.T @ root = second moments of (w, 1)
    wanted = torch.einsum("io,ok,ow->kiw", weight, mix, style)  # [q, img_channels, w_dim + 1]
    seen = wanted @ root.t()
    _, vectors = torch.linalg.eigh(seen @ seen.transpose(1, 2))  # [q, img_channels, img_channels]
    direction = vectors[:, :, -1]  # [q, img_channels]
    new_style = torch.einsum("ki,kiw->kw", direction, wanted)  # [q, w_dim + 1]
    old_seen, new_seen = style[kept] @ root.t(), new_style @ root.t()
    scale = new_seen.norm(dim=1) / old_seen.norm(dim=1).clamp_min(1e-300)
    scale = torch.where((old_seen * new_seen).sum(dim=1) < 0, -scale, scale)
    scale = torch.where(scale.abs() < 1e-300, torch.ones_like(scale), scale)
    new_style = new_style / scale[:, None]
    bias = block.rgb_bias.double() + (block.rgb_style(ws.float()).double().mean(dim=0) * weight) @ offset
    return (direction * scale[:, None]).t(), Affine(new_style[:, :-1], new_style[:, -1]), bias
