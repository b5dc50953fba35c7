"""Images of a generator from seeded latents; nothing here touches torch's global random state."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Tuple

import torch

from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.conditioning import drawn_labels
from squeeze_patch.errors import MeasurementError

#: whose noise does not change from call to call, so that two generators can be set side by side
NOISE_MODES = ("const", "none")


def latents(G: Sampler, n: int, seed: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Seeded latents and class labels for ``n`` images, float32, on the CPU.

    Returns:
        z [n, z_dim], standard normal; c [n, c_dim], one random class an image (one-hot) or a row of the `labels` that
        were given, c_dim = 0 where G has none.

    Raises:
        LabelsError: labels were given that are none of G's.
    """
    random = torch.Generator().manual_seed(seed)
    cpu: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever the caller has for other tensors
    z = torch.randn([n, G.z_dim], generator=random, **cpu)
    return z, drawn_labels(n, G.c_dim, random)


@contextlib.contextmanager
def evaluation(G: torch.nn.Module) -> Iterator[None]:
    """G in evaluation mode, without gradients, for the length of a block; afterwards every module is as it was."""
    flags = {module: module.training for module in G.modules()}
    G.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def draw(
    G: Sampler, z: torch.Tensor, c: torch.Tensor, noise_mode: str = "const", truncation: float = 1.0, first: int = 0
) -> torch.Tensor:
    """Images [N, C, R, R], float32, about -1 to 1 (not clamped), on G's device, of latents on any device.

    Args:
        G: as of `adapters.sampler`.
        z, c: [N, z_dim] and [N, c_dim].
        noise_mode: "const" or "none".
        truncation: psi of the truncation trick (Karras et al. 2019, section 4, appendix B); 1 = none.
        first: place of the first one among all images, where they are drawn part by part: the noise may depend on it.

    Raises:
        MeasurementError: G returns no images.
    """
    arguments = (z, c, noise_mode, truncation)
    images = G.images(*arguments) if G.images_at is None else G.images_at(*arguments, first)
    if not (isinstance(images, torch.Tensor) and images.dim() == 4):
        raise MeasurementError(
            f"the generator returns {type(images).__name__}, not images [N, C, R, R]; "
            "pass the one whose call is G(z, c) and gives the images"
        )
    return images.float()


def sample(G: Any, n: int, seed: int, noise_mode: str = "const", batch: int = 16) -> torch.Tensor:
    """Images [n, C, R, R], float32, on the CPU, of latents drawn with ``seed``, without truncation.

    Labels as of `latents`. G is run in evaluation mode.
    """
    source = sampler(G)
    z, c = latents(source, n, seed)
    with evaluation(G):
        parts = zip(torch.split(z, batch), torch.split(c, batch), range(0, n, batch))
        return torch.cat([draw(source, z, c, noise_mode, first=first).cpu() for z, c, first in parts])
