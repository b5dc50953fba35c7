"""How generators of the NVIDIA family are run: on style vectors, and on latents."""

from __future__ import annotations

import warnings
from typing import Any, Dict, Optional

import torch

from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import reference_of, uncompiled
from squeeze_patch.adapters.roles import Running
from squeeze_patch.conditioning import are_missing, drawn_labels
from squeeze_patch.errors import LabelsWarning, UnsupportedModelError

#: what a mapping network is fed with
_INPUTS = ("z_dim", "c_dim")
#: what a generator that renders a scene has, whose labels are cameras: EG3D's, and those that came from it
_SCENE = "rendering_kwargs"
CAMERAS = (
    "{name} is conditioned on cameras, and styles of one-hot labels are unlike those that it was trained with: give "
    "the data set's labels, with --labels FILE or squeeze_patch.labels(FILE)"
)
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
        device = reference_of(root).device
        return root(z.to(device), c.to(device), noise_mode="none", **_float32(network)).float()  # type: ignore[no-any-return]

    def sampler(self, root: Any, network: torch.nn.Module) -> Sampler:
        """``root`` is called as ``root(z, c, noise_mode=..., truncation_psi=...)``; psi is left out where it is 1.

        On a CPU in float32: hosts that follow stylegan3 see to that themselves; in others float16 is slow there, and
        rounds differently in batches of other sizes.
        """
        for name, what in _SIZES:
            if not hasattr(root, name):
                raise UnsupportedModelError(
                    f"{type(root).__name__} does not say its {what} ({name}); pass a whole generator, G or G_ema"
                )

        def images(z: torch.Tensor, c: torch.Tensor, noise_mode: str, truncation: float) -> Any:
            device = reference_of(root).device
            options: Dict[str, Any] = {} if truncation == 1 else {"truncation_psi": truncation}
            if device.type == "cpu":
                options.update(_float32(network))
            return root(z.to(device), c.to(device), noise_mode=noise_mode, **options)

        return Sampler(root.z_dim, root.c_dim, root.img_resolution, images)

    def sampler_of_unknown(self, root: Any) -> Optional[Sampler]:
        return self.sampler(root, root) if all(hasattr(root, name) for name, _ in _SIZES) else None


def _float32(network: torch.nn.Module) -> Dict[str, Any]:
    """What makes a synthesis network compute in float32; hosts without float16 do not know the argument."""
    return {"force_fp32": True} if any(getattr(module, "use_fp16", False) for module in network.modules()) else {}


def sample_styles(root: torch.nn.Module, network: torch.nn.Module, n: int, seed: int) -> torch.Tensor:
    """Style vectors [n, w_dim], float32, on the CPU, of random latents and labels; w_avg stays as it is.

    Warns:
        LabelsWarning: styles depend on camera parameters, and none were given.
    """
    owner: Any = _owner(root, network)
    mapping = owner.mapping
    z_dim, c_dim = (getattr(owner, name, getattr(mapping, name, None)) for name in _INPUTS)
    if not (isinstance(z_dim, int) and isinstance(c_dim, int)):
        raise UnsupportedModelError(
            f"neither {type(owner).__name__} nor its mapping network ({type(mapping).__name__}) says the size of a "
            "latent and the number of classes (z_dim, c_dim), so no styles can be sampled. Set them, or use "
            "init='random'"
        )
    random = torch.Generator().manual_seed(seed)
    z = torch.randn([n, z_dim], generator=random)
    c = drawn_labels(n, c_dim, random)
    w = _run_mapping(owner, z, c)
    if hasattr(owner, _SCENE) and are_missing() and not torch.equal(w, _run_mapping(owner, z, torch.zeros_like(c))):
        warnings.warn(LabelsWarning(CAMERAS.format(name=type(owner).__name__)), stacklevel=2)
    w = w[:, 0] if w.ndim == 3 else w
    return w.detach().to(device="cpu", dtype=torch.float32)


def _run_mapping(owner: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Styles [n, w_dim] or [n, num_ws, w_dim] of latents and labels."""
    mapping = owner.mapping
    # EG3D's is a method, which scales the labels for the mapping network of its backbone
    module = mapping if isinstance(mapping, torch.nn.Module) else owner
    device = reference_of(module).device
    flags = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in flags:  # a mapping network in training mode would move w_avg
            each.training = False
        with torch.no_grad():
            w = mapping(z.to(device), c.to(device))
    except Exception as error:
        other = {str(p.dtype).split(".")[1] for p in module.parameters()} - {"float32"}
        dtypes = f"Its parameters are {', '.join(sorted(other))}: call G.float() first. " if other else ""
        raise UnsupportedModelError(
            f"the mapping network ({type(module).__name__}) does not run on latents [n, {z.shape[1]}] and classes "
            f"[n, {c.shape[1]}]: {type(error).__name__}: {error}. {dtypes}Without styles there is no trained start; "
            "use init='random' and train"
        ) from error
    finally:
        for each, flag in flags:
            each.training = flag
    if not (isinstance(w, torch.Tensor) and w.ndim in (2, 3) and len(w) == len(z)):
        raise UnsupportedModelError(
            f"the mapping network ({type(module).__name__}) returns no styles [n, w_dim] or [n, num_ws, w_dim]; "
            "use init='random' and train"
        )
    return w


def _owner(root: torch.nn.Module, network: torch.nn.Module) -> torch.nn.Module:
    """The module in ``root`` that makes styles for ``network``: what holds it and its mapping network, or, around that,
    what renders a scene, whose ``mapping`` scales labels. Others' may be anything."""
    for module in root.modules():
        is_scene = hasattr(module, _SCENE) and any(each is network for each in module.modules())
        is_beside = uncompiled(getattr(module, "synthesis", None)) is network
        if (is_scene or is_beside) and callable(getattr(module, "mapping", None)):
            return module
    raise UnsupportedModelError(
        f"{type(root).__name__} has no mapping network beside its synthesis network, so no styles can be sampled. "
        "Pass the whole generator (G, not G.synthesis), or use init='random'"
    )
