"""How lucidrains' generators are run: on one style vector a block and one noise image, which the caller brings."""

from __future__ import annotations

from typing import Any, List, Sequence

import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import class_named, reference_of, truncation, value
from squeeze_patch.adapters.roles import Running
from squeeze_patch.errors import UnsupportedModelError

#: latents whose mean style truncation moves towards, which the host draws anew for every model; it stores no mean
CENTRE_SAMPLES, CENTRE_SEED = 2000, 0
#: of the noise of noise_mode "const": the host stores none. Every place in a batch has an image of its own, drawn with
#: this seed, however many are run at a time: a generator that learns on one noise image alone learns that image. After
#: so many places they come again
NOISE_SEED, PLACES = 0, 256


class LucidrainsRunning(Running):
    """The role of running generators; ``network`` is the Generator.

    The host's images lie about 0 to 1; here, as for all families, about -1 to 1.
    """

    def equalised(self, network: torch.nn.Module) -> bool:
        return False

    def num_ws(self, network: Any) -> int:
        return len(network.blocks)

    def synthesis(self, network: Any, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """``noise_mode`` "none" is the mean of the uniform noise, which its weights are trained around."""
        return self.synthesis_at(network, ws, noise_mode, 0)

    def synthesis_at(self, network: Any, ws: torch.Tensor, noise_mode: str, first: int) -> torch.Tensor:
        reference, resolution = network.initial_conv.weight, _resolution(network)
        if noise_mode == "const":
            noise = fixed_noise(range(first, first + len(ws)), resolution)
        else:
            noise = torch.full([len(ws), resolution, resolution, 1], 0.5)
        images: torch.Tensor = network(ws.to(reference), noise.to(reference))
        return images.float() * 2 - 1

    def sampler(self, root: torch.nn.Module, network: Any) -> Sampler:
        """Truncation moves styles towards the mean style of latents drawn with a fixed seed, computed at the first call
        that truncates."""
        mapping, num_ws = _mapping(root), self.num_ws(network)
        truncated = truncation(lambda: sample_styles(root, CENTRE_SAMPLES, CENTRE_SEED).mean(dim=0))

        def images(z: torch.Tensor, c: torch.Tensor, noise_mode: str, psi: float, first: int = 0) -> torch.Tensor:
            w = truncated(_styles(mapping, z), psi)
            return self.synthesis_at(network, w[:, None].expand(-1, num_ws, -1), noise_mode, first)

        return Sampler(_latent_size(mapping), 0, _resolution(network), images, images)


def sample_styles(root: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
    """Style vectors [n, w_dim], float32, on the CPU, of random latents."""
    mapping = _mapping(root)
    z = torch.randn([n, _latent_size(mapping)], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return value(_styles(mapping, z))


def fixed_noise(places: Sequence[int], resolution: int) -> torch.Tensor:
    """The noise images of places in a batch: [n, R, R, 1], float32, 0 to 1, on the CPU."""
    cpu: Any = {"dtype": torch.float32, "device": "cpu"}
    random = torch.Generator().manual_seed(NOISE_SEED)
    wanted = torch.tensor([place % PLACES for place in places], device="cpu")
    found = torch.empty([len(wanted), resolution, resolution, 1], **cpu)
    for place in range(max(wanted.tolist(), default=-1) + 1):  # one after another: all at once can be a gigabyte
        found[wanted == place] = torch.rand([resolution, resolution, 1], generator=random, **cpu)
    return found


def _resolution(network: Any) -> int:
    return int(4 * 2 ** (len(network.blocks) - 1))


def _mapping(root: torch.nn.Module) -> Any:
    """The one mapping network in ``root``."""
    found: List[Any] = [module for module in root.modules() if class_named(module, "StyleVectorizer")]
    if len(found) != 1:
        raise UnsupportedModelError(
            f"this needs the generator's styles, but {type(root).__name__} holds {len(found)} mapping networks "
            "(StyleVectorizer). Pass torch.nn.ModuleDict({'S': GAN.SE, 'G': GAN.GE}); apply takes the StyleGAN2 "
            "wrapper, too, or init='random' for a generator alone"
        )
    return found[0]


def _latent_size(mapping: torch.nn.Module) -> int:
    return int(next(tensor for tensor in mapping.state_dict().values() if tensor.ndim == 2).shape[1])


def _styles(mapping: torch.nn.Module, z: torch.Tensor) -> torch.Tensor:
    """[N, z_dim] on any device -> [N, w_dim] on the mapping network's."""
    w: torch.Tensor = mapping(z.to(reference_of(mapping)))
    return w
