"""Blocks of other shapes in the NVIDIA family: what is the user's on an up-convolution that is built anew."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import squeeze_patch
from squeeze_patch.checkpoints.generators import load_generator
from squeeze_patch.evaluation.measure import pair
from squeeze_patch.testing import trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.hosts import Host

KINDS = ["inner", "narrow"]


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_an_up_convolution_are_refused(kind: str, draggan: Host) -> None:
    """Where it is built anew, when the block comes and when it goes; a shared one keeps them."""
    G = trained(draggan.generator(resolution=16))
    plan = plan_of_kind(G, kind)
    handle = G.synthesis.b8.conv0.register_forward_hook(lambda *_: None)
    with pytest.raises(squeeze_patch.StateError, match="b8.conv0 has hooks"):
        squeeze_patch.apply(G, plan=plan, init="random")
    assert squeeze_patch.status(G).state == "dense"
    handle.remove()
    squeeze_patch.apply(G, plan=plan, init="random")
    handle = G.synthesis.b8.conv0.register_forward_hook(lambda *_: None)
    with pytest.raises(squeeze_patch.StateError, match="b8.conv0 has hooks"):
        squeeze_patch.remove(G)
    handle.remove()
    squeeze_patch.remove(G)
    G.synthesis.b8.conv0.register_forward_hook(lambda *_: None)
    squeeze_patch.remove(squeeze_patch.apply(G, init="random"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_hangs_on_an_up_convolution(kind: str, draggan: Host) -> None:
    """A plain attribute goes to what takes its place, a changed setting as well; a layer inside it is refused."""
    G: Any = trained(draggan.generator(resolution=16))
    plan = plan_of_kind(G, kind)
    G.synthesis.b8.conv0.note = "mine"
    G.synthesis.b8.conv0.act_gain = 1.25
    squeeze_patch.apply(G, plan=plan, init="random")
    assert G.synthesis.b8.conv0.note == "mine"
    assert G.synthesis.b8.conv0.act_gain == 1.25
    squeeze_patch.remove(G)
    G.synthesis.b8.conv0.more = G.synthesis.b4.conv1
    with pytest.raises(squeeze_patch.ProofError, match="b8.conv0"):
        squeeze_patch.apply(G, plan=plan, init="random")
    assert squeeze_patch.status(G).state == "dense"


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
def test_a_dense_generator_like_one_in_a_file(kind: str, draggan: Host, tmp_path: Path) -> None:
    """Read without its host, as report makes one."""
    G = trained(draggan.generator(resolution=16))
    wanted = {name: tensor.shape for name, tensor in G.state_dict().items()}
    squeeze_patch.apply(G, plan=plan_of_kind(G, kind), init="weights", keep_original=False)
    (tmp_path / "squeezed.pkl").write_bytes(pickle.dumps({"G_ema": G}))
    dense, squeezed = pair(load_generator(tmp_path / "squeezed.pkl", trust=False))
    assert {name: tensor.shape for name, tensor in dense.state_dict().items()} == wanted
    assert squeeze_patch.status(dense).state == "dense"
    assert squeeze_patch.status(squeezed).state == "squeezed"
    assert draggan.images(dense, *draggan.latents(dense)).isfinite().all()


@pytest.mark.parametrize("size", [1, 5])
def test_kernels_of_other_sizes(size: int, draggan: Host) -> None:
    """A trained start, which computes with those of 3x3, says so before it begins."""
    G = trained(draggan.generator(resolution=8, kernel_size=size))
    for init in ("calibrated", "weights"):
        with pytest.raises(
            squeeze_patch.UnsupportedModelError, match=f"b4 has a convolution of {size}x{size}; a trained"
        ):
            squeeze_patch.apply(G, ratio=2, init=init)
    assert squeeze_patch.status(squeeze_patch.apply(G, ratio=2, init="random")).state == "squeezed"
