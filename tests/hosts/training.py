"""The hosts' own losses, called as their training loops call them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from typing import Any, Dict, Optional, Tuple

import pytest
import torch

from tests.hosts import Host
from tests.hosts.plugins import OPERATIONS, compiled


def need_second_derivatives(host: Host) -> None:
    """Skip the test where torch 1 cannot differentiate the active host's dense generator twice.

    torch 1.13 stops at the noise that the fused convolutions of NVIDIA's family add in place.
    """
    if not torch.__version__.startswith("1."):
        return
    G = host.generator(resolution=8).requires_grad_(True)
    styles, images = host.styles_and_images(G, *host.latents(G))
    try:
        torch.autograd.grad(images.sum(), styles, create_graph=True)
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__} does not differentiate {host.name}'s dense generator twice: {error}")


def loss_of(host: Host, G: Any, D: Any, **settings: Any) -> Any:
    """The host's loss where G is; GGDR's reads features up to the image's own resolution. The host is active."""
    device = next(G.parameters()).device
    ggdr = host.name == "ggdr"
    module = importlib.import_module("training.loss_ggdr" if ggdr else "training.loss")
    if host.name == "draggan":  # its loss is newer than its conv2d_gradfix: the context takes no argument yet
        module.conv2d_gradfix.no_weight_gradients = lambda *_: contextlib.nullcontext()
    loss = module.StyleGAN2GGDRLoss if ggdr else module.StyleGAN2Loss
    names = inspect.signature(loss).parameters
    settings.update({"ggdr_res": G.img_resolution} if "ggdr_res" in names else {})
    if "G_mapping" in names:
        return loss(device, G.mapping, G.synthesis, D, **settings)
    return loss(device, G, D, **settings)


def settle_kernels() -> None:
    """Let the active host of NVIDIA's family compute on a GPU by its kernels that `tests.hosts.plugins` compiled into
    the folder SQUEEZE_PLUGINS, else by torch's own operations, and keep no statistics.

    Its operations look for their compiled form at every call otherwise, which takes a CUDA compiler, and where there is
    none, or a torch newer than the host, milliseconds and a warning each time.
    """
    for name in OPERATIONS:
        with contextlib.suppress(ModuleNotFoundError):  # not every host has all of them
            module: Any = importlib.import_module(f"torch_utils.ops.{name}")
            plugin = compiled(name)
            module._plugin, module._init = plugin, lambda plugin=plugin: plugin is not None
    importlib.import_module("torch_utils.training_stats").report = lambda _name, value: value  # type: ignore[attr-defined]


def accumulate(
    loss: Any,
    phase: str,
    real: torch.Tensor,
    z: torch.Tensor,
    gain: float = 1,
    nimg: int = 0,
    labels: Optional[Tuple[torch.Tensor, torch.Tensor]] = None,
) -> None:
    """Add the gradients of one phase ("Gmain", "Greg", "Dmain", "Dreg") to the parameters.

    ``labels``: those of the real images and those for ``z``, [n, c_dim] each; None where networks have none.
    """
    names = inspect.signature(loss.accumulate_gradients).parameters
    extra: Dict[str, Any] = {"sync": True} if "sync" in names else {}
    extra.update({"cur_nimg": nimg} if "cur_nimg" in names else {})
    real_c, gen_c = labels or [torch.zeros([len(z), 0], device=z.device)] * 2
    loss.accumulate_gradients(phase=phase, real_img=real, real_c=real_c, gen_z=z, gen_c=gen_c, gain=gain, **extra)
