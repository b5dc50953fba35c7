"""How generators of the NVIDIA family are run: on style vectors, and on latents."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.roles import Running
from squeeze_patch.errors import UnsupportedModelError

#: what a whole generator says of itself
_SIZES = (("z_dim", "latent size"), ("c_dim", "number of classes"), ("img_resolution", "image size"))


class NvidiaRunning(Running):
    """The role of running generators."""

    def num_ws(self, network: Any) -> int:
        return int(network.num_ws)

    def synthesis(self, network: torch.nn.Module, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        """In float32 throughout: gradients of a mean over all pixels are too small for float16."""
        return network(ws, noise_mode=noise_mode, **_float32(network)).float()  # type: ignore[no-any-return]

    def whole(self, root: Any, network: torch.nn.Module, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        device = next(root.parameters()).device
        return root(z.to(device), c.to(device), noise_mode="none", **_float32(network)).float()  # type: ignore[no-any-return]

    def sampler(self, root: Any, network: torch.nn.Module) -> Sampler:
        """``root`` is called as ``root(z, c, noise_mode=..., truncation_psi=...)``; psi is left out where it is 1."""
        for name, what in _SIZES:
            if not hasattr(root, name):
                raise UnsupportedModelError(
                    f"{type(root).__name__} does not say its {what} ({name}); pass a whole generator, G or G_ema"
                )

        def images(z: torch.Tensor, c: torch.Tensor, noise_mode: str, truncation: float) -> Any:
            device = next(root.parameters()).device
            options: Dict[str, Any] = {} if truncation == 1 else {"truncation_psi": truncation}
            return root(z.to(device), c.to(device), noise_mode=noise_mode, **options)

        return Sampler(root.z_dim, root.c_dim, root.img_resolution, images)

    def sampler_of_unknown(self, root: Any) -> Optional[Sampler]:
        return self.sampler(root, root) if all(hasattr(root, name) for name, _ in _SIZES) else None


def _float32(network: torch.nn.Module) -> Dict[str, Any]:
    """What makes a synthesis network compute in float32; hosts without float16 do not know the argument."""
    return {"force_fp32": True} if any(getattr(module, "use_fp16", False) for module in network.modules()) else {}


def sample_styles(root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
    """Style vectors [n, w_dim], float32, on the CPU, of random latents and classes; w_avg stays as it is."""
    mapping: Any = _mapping(root, network)
    random = torch.Generator().manual_seed(seed)
    device = next(mapping.parameters()).device
    z = torch.randn([n, mapping.z_dim], generator=random).to(device)
    c = torch.zeros([n, mapping.c_dim], device=device)
    if mapping.c_dim > 0:
        c[torch.arange(n), torch.randint(mapping.c_dim, [n], generator=random).to(device)] = 1
    flags = {module: module.training for module in mapping.modules()}
    try:
        mapping.eval()  # a mapping network in training mode would move w_avg
        with torch.no_grad():
            w = mapping(z, c)
    finally:
        for module, flag in flags.items():
            module.training = flag
    w = w[:, 0] if w.ndim == 3 else w
    return w.detach().to(device="cpu", dtype=torch.float32)  # type: ignore[no-any-return]


def _mapping(root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
    for module in root.modules():
        mapping = getattr(module, "mapping", None)
        if isinstance(mapping, torch.nn.Module) and getattr(module, "synthesis", None) is network:
            return mapping
    raise UnsupportedModelError(
        f"{type(root).__name__} has no mapping network beside its synthesis network, so no styles can be sampled. "
        "Pass the whole generator (G, not G.synthesis), or use init='random'"
    )
