"""Features of images that need no download: patches of a Laplacian pyramid, and a fixed random network."""

from __future__ import annotations

from typing import List, Sequence

import torch
from torch.nn import functional

#: side of a patch, patches an image and coarsest level (Karras et al. 2018, section 5)
PATCH = 7
PATCHES = 128
COARSEST = 16
#: features of `RandomNetwork`: few enough for covariances of a few hundred images
FEATURES = 64
_RANDOM_SIZE = 64
_RANDOM_CHANNELS = 32


def pyramid(images: torch.Tensor) -> List[torch.Tensor]:
    """Laplacian pyramid (Burt and Adelson 1983), finest level first.

    Each level is what halving and doubling loses; the last is the small image itself. Halving goes on while the sides
    are even and the result has 16 pixels a side or more.

    Args:
        images: [N, C, H, W], floating point.

    Returns:
        [N, C, H / 2^k, W / 2^k] for every level k.
    """
    levels = []
    while all(side % 2 == 0 and side // 2 >= COARSEST for side in images.shape[2:]):
        small = _halve(images)
        levels.append(images - _double(small))
        images = small
    return [*levels, images]


def patches(level: torch.Tensor, count: int, random: torch.Generator) -> torch.Tensor:
    """Square patches at random places: [N * count, C, 7, 7] of images [N, C, H, W], smaller where the images are.

    ``random`` yields the same places for the same images in whatever batches they come.
    """
    n, _, height, width = level.shape
    tall, wide = min(PATCH, height), min(PATCH, width)
    places = torch.rand([n, count, 2, 1, 1], generator=random, dtype=torch.float64).to(level.device)
    tops, lefts = (places * places.new_tensor([height - tall + 1, width - wide + 1])[:, None, None]).long().unbind(2)
    rows = tops + torch.arange(tall, device=level.device)[:, None]
    columns = lefts + torch.arange(wide, device=level.device)
    image = torch.arange(n, device=level.device)[:, None, None, None]
    found = level.permute(0, 2, 3, 1)[image, rows, columns]  # [n, count, 7, 7, C]
    return found.permute(0, 1, 4, 2, 3).flatten(0, 1)


def normalised(descriptors: torch.Tensor) -> torch.Tensor:
    """Patches [M, C, h, w] -> vectors [M, C h w], every colour channel of the whole set at mean 0 and deviation 1
    (Karras et al. 2018, section 5). A channel that is constant becomes 0."""
    mean = descriptors.mean(dim=(0, 2, 3), keepdim=True)
    deviation = descriptors.std(dim=(0, 2, 3), keepdim=True)
    tiny = torch.finfo(descriptors.dtype).tiny
    return ((descriptors - mean) / deviation.clamp_min(tiny)).flatten(1)


class RandomNetwork:
    """A convolutional network with fixed random weights: images -> 64 features.

    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", use such random embeddings
    where no pretrained network fits the images; theirs is a VGG16. This one is far smaller: images are
    averaged or repeated to 64 x 64, halved down to 4 x 4 by 3x3 convolutions of stride 2 with ReLU (32 to 256
    channels), then mapped linearly. Distances on its features compare with each other only: same seed, same image
    channels; they are no FID.

    Args:
        channels: of the images.
        seed: of the weights; they do not depend on, and do not move, torch's global random state.
        device: where it runs.
    """

    def __init__(self, channels: int, seed: int = 0, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        random = torch.Generator().manual_seed(seed)
        self.convolutions: List[torch.Tensor] = []
        size, width = _RANDOM_SIZE, _RANDOM_CHANNELS
        while size > 4:
            self.convolutions.append(_weights([width, channels, 3, 3], 2.0, random).to(device))
            size, channels, width = size // 2, width, 2 * width
        self.projection = _weights([FEATURES, channels * size * size], 1.0, random).to(device)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W], float32, in [-1, 1] -> [N, 64], float32."""
        x = functional.adaptive_avg_pool2d(images, _RANDOM_SIZE)  # repeats pixels where images are smaller
        for weight in self.convolutions:
            x = functional.relu(functional.conv2d(x, weight, stride=2, padding=1))
        return functional.linear(x.flatten(1), self.projection)


def _weights(shape: Sequence[int], gain: float, random: torch.Generator) -> torch.Tensor:
    """Normal, of variance gain / inputs (He et al. 2015), which keeps the scale of what goes through."""
    inputs = torch.Size(shape[1:]).numel()
    return torch.randn(list(shape), generator=random) * (gain / inputs) ** 0.5


def _kernel(x: torch.Tensor) -> torch.Tensor:
    """Burt and Adelson's five taps, [1, 4, 6, 4, 1] / 16 along both axes, one filter a channel."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    return torch.outer(taps, taps).expand(x.shape[1], 1, 5, 5)


def _halve(x: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, _kernel(x), stride=2, groups=x.shape[1])


def _double(x: torch.Tensor) -> torch.Tensor:
    n, c, height, width = x.shape
    spread = x.new_zeros([n, c, 2 * height, 2 * width])
    spread[:, :, ::2, ::2] = x
    padded = functional.pad(spread, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, _kernel(x) * 4, groups=c)
