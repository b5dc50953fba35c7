"""Labelled pictures of two generators' images side by side."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from squeeze_patch.adapters import sampler
from squeeze_patch.sampling import draw, evaluation, latents

#: samples in a picture of `side_by_side`
COLUMNS = 8


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
    return labelled([(label, strip(images, scale)) for label, images in rows])


def labelled(rows: Sequence[Tuple[str, Any]]) -> Image.Image:
    """Rows of pixels, numpy [H, W, 3], uint8, one under the other, each under its label."""
    font: Any = ImageFont.load_default()
    height = 16
    canvas = Image.new("RGB", (max(p.shape[1] for _, p in rows), sum(len(p) + height for _, p in rows)), "white")
    draw = ImageDraw.Draw(canvas)
    top = 0
    for label, pixels in rows:
        draw.text((4, top + 2), _drawable(label, font), fill="black", font=font)
        canvas.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, top + height))
        top += len(pixels) + height
    return canvas


def _drawable(label: str, font: Any) -> str:
    """Names of files have all characters; Pillow's font before 10.1, or without FreeType, has those of Latin-1."""
    known = "utf-8" if isinstance(font, ImageFont.FreeTypeFont) else "latin-1"
    return label.encode(known, errors="backslashreplace").decode(known)


def strip(images: torch.Tensor, scale: int = 1) -> Any:
    """Images [N, C, H, W] in [-1, 1], one beside the other: numpy [H, N W, 3], uint8, enlarged ``scale`` times."""
    pixels = np.concatenate(list(to_pixels(images)), axis=1)
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def to_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images [N, C, H, W] in [-1, 1] -> [N, H, W, 3], as hosts round: the first three channels, or, where there are
    fewer, the first one as grey."""
    pixels = ((images.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def first_images(
    a: Any, b: Any, samples: int, seed: int = 0, noise_mode: str = "const", truncation: float = 1.0
) -> Tuple[torch.Tensor, torch.Tensor]:
    """The first images [N, C, R, R] of A and of B that `squeeze_patch.compare` makes with the same arguments, at most
    `COLUMNS`, on the CPU."""
    sources = (sampler(a), sampler(b))
    z, c = latents(sources[0], samples, seed)
    pairs = list(zip(torch.split(z[:COLUMNS], 1), torch.split(c[:COLUMNS], 1)))
    with evaluation(a), evaluation(b):
        one, other = (
            torch.cat([draw(G, *pair, noise_mode, truncation, place).cpu() for place, pair in enumerate(pairs)])
            for G in sources
        )
    return one, other


def side_by_side(images: Tuple[torch.Tensor, torch.Tensor], labels: Tuple[str, str]) -> Image.Image:
    """What `first_images` gives as a `grid`; images below 64 pixels are enlarged."""
    return grid(*images, labels, scale=max(1, 64 // images[0].shape[-1]))
