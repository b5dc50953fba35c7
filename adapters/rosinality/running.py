"""How flat generators are run: on style vectors, and on latents, by the list interface of their forward."""

from __future__ import annotations

import inspect
from typing import Dict, List

import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import truncation, value
from squeeze_patch.adapters.roles import Running
from squeeze_patch.adapters.rosinality.layout import CLEAN, get, known_layout, layer_paths, stored_noise, zero_noise
from squeeze_patch.errors import UnsupportedModelError

#: latents whose mean style truncation moves towards: as many as the hosts' scripts take; they store no mean
CENTRE_SAMPLES, CENTRE_SEED = 4096, 0


class RosinalityRunning(Running):
    """The role of running generators; ``network`` is the generator itself."""

    def num_ws(self, network: torch.nn.Module) -> int:
        _check_inputs(network)
        return 2 * len(layer_paths(network, known_layout(network)))

    def synthesis(self, network: torch.nn.Module, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        reference = get(network, known_layout(network).const)
        noise = stored_noise(network) if noise_mode == "const" else zero_noise(network)
        return _images(network, ws.to(reference), noise).float()

    def equalised(self, network: torch.nn.Module) -> bool:
        return known_layout(network) is not CLEAN

    def style_parameters(self, root: torch.nn.Module, network: torch.nn.Module) -> Dict[str, torch.nn.Parameter]:
        """The mapping network is part of ``network`` here."""
        mapping = known_layout(network).mapping
        own = {f"{mapping}.{name}": p for name, p in get(network, mapping).named_parameters()}
        return {**super().style_parameters(root, network), **own}

    def sampler(self, root: torch.nn.Module, network: torch.nn.Module) -> Sampler:
        """``network`` is run, also where ``root`` is more than it. Truncation moves styles towards the mean style of
        latents drawn with a fixed seed, computed at the first call that truncates."""
        num_ws = self.num_ws(network)
        truncated = truncation(lambda: sample_styles(network, CENTRE_SAMPLES, CENTRE_SEED).mean(dim=0))

        def images(z: torch.Tensor, c: torch.Tensor, noise_mode: str, psi: float) -> torch.Tensor:
            w = truncated(_styles(network, z), psi)
            return self.synthesis(network, w[:, None].expand(-1, num_ws, -1), noise_mode)

        resolution = layer_paths(network, known_layout(network))[-1].resolution
        return Sampler(_style_size(network), 0, resolution, images)


def sample_styles(network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
    """Style vectors [n, w_dim], float32, on the CPU, of random latents."""
    z = torch.randn([n, _style_size(network)], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return value(_styles(network, z))


def _style_size(network: torch.nn.Module) -> int:
    layout = known_layout(network)
    return int(getattr(get(network, layout.first_conv), layout.modulated).modulation.weight.shape[1])


def _styles(network: torch.nn.Module, z: torch.Tensor) -> torch.Tensor:
    """[N, z_dim] on any device -> [N, w_dim] on the generator's."""
    layout = known_layout(network)
    w: torch.Tensor = get(network, layout.mapping)(z.to(get(network, layout.const)))
    return w


def _images(network: torch.nn.Module, ws: torch.Tensor, noise: List[torch.Tensor]) -> torch.Tensor:
    """[N, channels, R, R]. The hosts take a list of styles; JoJoGAN's generator has their layers and takes the styles
    themselves, and answers with the images alone."""
    failed: List[Exception] = []
    for styles in ([ws], ws):
        try:
            answer = network(styles, input_is_latent=True, noise=noise)
            images = answer[0] if isinstance(answer, (tuple, list)) else answer
            if isinstance(images, torch.Tensor):
                return images
            raise TypeError(f"it answers with {type(images).__name__}")
        except (AttributeError, TypeError, ValueError) as error:
            failed.append(error)
    raise UnsupportedModelError(
        f"{type(network).__name__} has the layers of this family, but is not called like it: "
        f"forward([w], input_is_latent=True, noise=[...]) has to answer with (images, latents), and here: {failed[0]}. "
        "Save its state dict: `squeeze-patch compare`, `report` and `recover` read that file without the host"
    ) from failed[0]


def _check_inputs(network: torch.nn.Module) -> None:
    """Raise where forward wants more than the list of latents."""
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    more = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if more:
        raise UnsupportedModelError(
            f"{type(network).__name__} makes no images from latents alone, it wants {', '.join(more)}, too. Load its "
            "state dict into the family's unconditional generator, and run that"
        )
