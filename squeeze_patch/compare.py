"""Two generators side by side: the same latents, the images' difference, a labelled grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

#: images are in [-1, 1], so the peak of a difference is 2
PEAK = 2.0


@dataclass(frozen=True)
class Fidelity:
    """How far apart two generators' images are: ``psnr`` in dB (inf = equal), over ``images`` latents."""

    psnr: float
    images: int


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images [N, C, H, W] in [-1, 1], over all of them; inf where equal."""
    error = float((a.double() - b.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


@torch.no_grad()
def sample(G: Any, n: int, seed: int, noise_mode: str = "const", batch: int = 16) -> torch.Tensor:
    """Images [n, C, H, W], float32, on the CPU, of latents drawn with ``seed``, without truncation.

    Unconditional where G has no classes, else one random class an image. G is run in evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    device = next(G.parameters()).device
    z = torch.randn([n, G.z_dim], generator=random)
    c = torch.zeros([n, G.c_dim])
    if G.c_dim:
        c[torch.arange(n), torch.randint(G.c_dim, [n], generator=random)] = 1
    training = G.training
    G.eval()
    try:
        images = [
            G(z[i : i + batch].to(device), c[i : i + batch].to(device), noise_mode=noise_mode).float().cpu()
            for i in range(0, n, batch)
        ]
    finally:
        G.train(training)
    return torch.cat(images)


def compare(a: Any, b: Any, n: int = 256, seed: int = 0, noise_mode: str = "none") -> Fidelity:
    """PSNR between two generators on the same ``n`` latents."""
    return Fidelity(psnr(sample(a, n, seed, noise_mode), sample(b, n, seed, noise_mode)), n)


def grid(
    a: torch.Tensor, b: torch.Tensor, labels: Tuple[str, str] = ("dense", "squeezed"), scale: int = 1
) -> Image.Image:
    """Rows of A, B and their difference under labels; a column for every sample.

    Args:
        a, b: images [N, C, H, W] in [-1, 1], C = 1 or 3.
        labels: of the first two rows.
        scale: every pixel becomes scale x scale.
    """
    difference = (a - b).abs() * 2 - 1  # 0 -> black; half the range -> white
    rows = [(labels[0], a), (labels[1], b), ("|difference| x 2", difference)]
    tiles = [_row(images, scale) for _, images in rows]
    font: Any = ImageFont.load_default()
    label_height = 16
    width = tiles[0].width
    canvas = Image.new("RGB", (width, sum(tile.height + label_height for tile in tiles)), "white")
    draw = ImageDraw.Draw(canvas)
    top = 0
    for (label, _), tile in zip(rows, tiles):
        draw.text((4, top + 2), label, fill="black", font=font)
        canvas.paste(tile, (0, top + label_height))
        top += tile.height + label_height
    return canvas


def _row(images: torch.Tensor, scale: int) -> Image.Image:
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels[:, :3]
    strip = np.concatenate(list(pixels.permute(0, 2, 3, 1).numpy()), axis=1)
    return Image.fromarray(np.ascontiguousarray(strip.repeat(scale, axis=0).repeat(scale, axis=1)))
