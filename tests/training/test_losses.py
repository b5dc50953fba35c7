"""Squeezed generators in the hosts' own training code: losses, regularisation, extra interfaces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.testing import float_error, trained
from tests.helpers import HOSTS, latents
from tests.hosts.training import accumulate, loss_of, need_second_derivatives

STEPS = 50
BATCH = 4


def train(loss: Any, G: Any, D: Any, steps: int) -> None:
    """Phases as in the hosts' loops: main phases every step, path length every 4th, R1 every 16th."""
    optimizers = {
        "G": torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.0, 0.99)),
        "D": torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.0, 0.99)),
    }
    for step in range(steps):
        phases = ["Gmain"] + (["Greg"] if step % 4 == 0 else []) + ["Dmain"] + (["Dreg"] if step % 16 == 0 else [])
        for phase in phases:
            network, optimizer = (G, optimizers["G"]) if phase[0] == "G" else (D, optimizers["D"])
            G.requires_grad_(network is G)
            D.requires_grad_(network is D)
            optimizer.zero_grad(set_to_none=True)
            real = torch.rand(BATCH, 3, G.img_resolution, G.img_resolution) * 2 - 1
            accumulate(loss, phase, real, torch.randn(BATCH, G.z_dim))
            if phase in ("Gmain", "Dmain"):
                unused = [name for name, p in network.named_parameters() if p.grad is None]
                assert unused == [], phase
            grads = [p.grad for p in network.parameters() if p.grad is not None]
            assert all(torch.isfinite(grad).all() for grad in grads), (step, phase)
            optimizer.step()


@pytest.mark.filterwarnings("ignore:grid_sample_gradfix|conv2d_gradfix")
@pytest.mark.parametrize("name", [name for name in HOSTS if name not in ("projected-gan", "eg3d")])
def test_fifty_steps_of_the_hosts_own_loss(name: str) -> None:
    """projected-gan's and eg3d's losses need a pretrained network and a renderer; their networks are the others'."""
    host = HOSTS[name]
    with host.active():
        need_second_derivatives(host)
        G = squeeze_patch.apply(host.generator(resolution=16), init="random").train()
        D = host.discriminator(resolution=16).train()
        before = {key: value.clone() for key, value in G.named_parameters()}
        loss = loss_of(host, G, D, r1_gamma=1.0, style_mixing_prob=0.9, pl_weight=2.0)
        train(loss, G, D, STEPS)
        still = [key for key, value in G.named_parameters() if torch.equal(value, before[key])]
        assert still == []
        assert all(torch.isfinite(p).all() for p in G.parameters())
        assert torch.isfinite(G(*latents(G))).all()
        assert squeeze_patch.status(G).state == "squeezed"


@pytest.mark.skipif("ggdr" not in HOSTS, reason="GGDR is on no package index; SQUEEZE_HOSTS names a folder with it")
def test_ggdr_reads_features_of_every_resolution() -> None:
    """Also the last one's, which ggdr_res = img_resolution needs; the training test above runs its loss so."""
    host = HOSTS["ggdr"]
    with host.active():
        G = trained(host.generator(resolution=16))
        ws = G.mapping(*latents(G))
        _, dense = G.synthesis(ws, get_feat=True, noise_mode="const")
        squeeze_patch.apply(G, ratio=2)
        image, squeezed = G.synthesis(ws, get_feat=True, noise_mode="const")
        assert {r: x.shape for r, x in squeezed.items()} == {r: x.shape for r, x in dense.items()}
        assert (image - G.synthesis(ws, noise_mode="const")).abs().max() <= float_error(G, image)


@pytest.mark.skipif("eg3d" not in HOSTS, reason="EG3D is on no package index; SQUEEZE_HOSTS names a folder with it")
def test_eg3d_backbone_is_squeezed_and_super_resolution_is_not() -> None:
    host = HOSTS["eg3d"]
    with host.active():
        from training.triplane import TriPlaneGenerator  # the host's

        G = TriPlaneGenerator(
            z_dim=32,
            c_dim=25,
            w_dim=32,
            img_resolution=128,
            img_channels=3,
            mapping_kwargs={"num_layers": 2},
            channel_base=1024,
            channel_max=64,
            num_fp16_res=0,
            conv_clamp=None,
            rendering_kwargs={
                "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
                "sr_antialias": True,
                "superresolution_noise_mode": "none",
                "c_gen_conditioning_zero": False,
                "c_scale": 1.0,
            },
        ).eval()
        before = {name: id(module) for name, module in G.superresolution.named_modules()}
        ws = torch.randn(1, G.backbone.num_ws, 32)
        shape = G.backbone.synthesis(ws, noise_mode="const").shape
        with pytest.warns(squeeze_patch.LabelsWarning, match="TriPlaneGenerator is conditioned on cameras"):
            blind = squeeze_patch.apply(copy.deepcopy(G), ratio=1.5, verify=False)
        extrinsics = [1.0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
        camera = [[*extrinsics, 4.26, 0, 0.5, 0, 4.26, 0.5, 0, 0, 1]]
        with squeeze_patch.labels(camera), pytest.warns(squeeze_patch.UnprovedWarning, match="only backbone was run"):
            squeeze_patch.apply(G, ratio=1.5)
        assert not torch.equal(G.backbone.synthesis.b8.excite.weight, blind.backbone.synthesis.b8.excite.weight)
        assert {name: id(module) for name, module in G.superresolution.named_modules()} == before
        assert G.backbone.synthesis(ws, noise_mode="const").shape == shape == (1, 96, 256, 256)
        status = squeeze_patch.status(G)
        assert (status.state, status.squeezed_blocks) == ("squeezed", 7)
        assert type(G.backbone.synthesis.b256).__name__ == "SqueezedBlock"
        rebuilt = type(copy.deepcopy(G))(**copy.deepcopy(G).init_kwargs)  # what --reload_modules does
        rebuilt.load_state_dict(G.state_dict(), strict=True)
        assert squeeze_patch.status(rebuilt) == status
