"""Whether two generators in memory make the same images: what is written in another form runs beside what was read."""

from __future__ import annotations

from typing import List

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import shortened
from squeeze_patch.sampling import evaluation, latents

#: images of the two generators may differ by this share of the largest value: float32 makes 1e-5 of it and float16
#: 1e-3; another activation or another gain, what this is about, makes differences as large as the images
TOLERANCE = 1e-2
#: latents that are tried
TRIALS = 4


def difference_of_images(one: Located, other: Located, noise_mode: str = "const") -> str:
    """What is wrong with ``other`` in the place of ``one``, in words, "" where both make the same images.

    Both are run in float32 and in evaluation mode, whole and without noise, and on styles with ``noise_mode``.
    """
    try:
        pairs = list(zip(_images(one, noise_mode), _images(other, noise_mode)))
    except Exception as error:  # whatever a layer of settings that do not belong together brings about
        return f"it cannot be run ({shortened(f'{type(error).__name__}: {error}')})"
    for images, others in pairs:
        if images.shape != others.shape:
            return f"its images are {list(images.shape[1:])}, not {list(others.shape[1:])}"
        if not (images.isfinite().all() and others.isfinite().all()):
            return "its images are not finite numbers"
        if not (images - others).abs().max() <= TOLERANCE * images.abs().max():
            share = float((images - others).abs().max() / images.abs().max().clamp(min=1e-30))
            return f"its images would differ by {share:.2g} of their largest value"
    return ""


def _images(G: Located, noise_mode: str) -> List[torch.Tensor]:
    z, c = latents(G.sampler(), TRIALS, seed=0)
    with evaluation(G.root):
        whole = G.running.whole(G.root, G.network, z, c)
        w = G.sample_w(TRIALS, seed=0)[:, None]  # [n, 1, w_dim]
        ws = w.repeat([1, G.running.num_ws(G.network), 1]).to(whole.device)
        return [images.float().cpu() for images in (whole, G.running.synthesis(G.network, ws, noise_mode))]
