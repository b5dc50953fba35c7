"""How alike two images are, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import math

import torch

#: images are in [-1, 1], so the peak of a difference is 2
PEAK = 2.0
#: window and constants of SSIM (Wang et al. 2004, section III.B and III.C)
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def decibels(squared_error: float) -> float:
    """PSNR in dB of a mean squared error of images in [-1, 1]; inf where it is 0."""
    return math.inf if squared_error == 0 else 10 * math.log10(PEAK**2 / squared_error)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images [N, C, H, W] in [-1, 1], over all of them; inf where equal."""
    return decibels(float((a.double() - b.double()).square().mean()))


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004, equation 13), one figure an image: 1 = equal.

    Gaussian window of 11 x 11 pixels, sigma 1.5, at every place where it lies wholly inside the image; the mean over
    places and colour channels. Computed in double precision: variances are differences of larger numbers.

    Args:
        a, b: images [N, C, H, W] in [-1, 1], H and W 11 or more.

    Returns:
        [N], float64, on the device of ``a``.

    Raises:
        ValueError: the shapes differ, or the images are smaller than the window.
    """
    if a.shape != b.shape or a.dim() != 4 or min(a.shape[2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs two sets of images [N, C, H, W] of one shape, {WINDOW} x {WINDOW} pixels or more, "
            f"not {[*a.shape]} and {[*b.shape]}"
        )
    a, b = a.double(), b.double()
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blur(x: torch.Tensor) -> torch.Tensor:
    """Gaussian means over every window inside: rows, then columns, for the window is their product."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    taps = torch.exp(-places.square() / (2 * SIGMA**2))
    taps = taps / taps.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = torch.nn.functional.conv2d(planes, taps[None, None, :, None])
    planes = torch.nn.functional.conv2d(planes, taps[None, None, None, :])
    return planes.reshape(*x.shape[:2], *planes.shape[2:])
