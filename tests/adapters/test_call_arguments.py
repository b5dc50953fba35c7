"""Blocks of forks that are called with more than features, image and styles: what their layers know reaches these, what
only the block knows is refused when it says something."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import squeeze_patch
from squeeze_patch.connection import upsample2d
from squeeze_patch.testing import trained
from squeeze_patch.testing.trained import float_error
from tests.hosts import Host


def layer_forward(self: Any, x: Any, w: Any, styles: Any = None, boost: float = 1.0, **kwargs: Any) -> Any:
    """Styles by another way, and, in toRGB, a factor."""
    kind = type(self).__mro__[1]
    y = kind.forward(self, x, w if styles is None else styles["all"], **kwargs)  # type: ignore[attr-defined]
    return y * boost if hasattr(self, "weight_gain") else y


def block_forward(
    self: Any, x: Any, img: Any, ws: Any, styles: Any = None, boost: float = 1.0, shift: float = 0.0, **kwargs: Any
) -> Any:
    """What the block itself does with ``shift`` is nowhere but here."""
    if styles is not None:
        ws = styles["all"][:, None].repeat(1, self.num_conv + self.num_torgb, 1)
    x, rgb = type(self).__mro__[1].forward(self, x, None, ws, **kwargs)  # type: ignore[attr-defined]
    rgb = rgb * boost + shift
    return x, rgb if img is None else upsample2d(img, self.resample_filter) + rgb


def of_a_fork(G: Any) -> Any:
    for block in G.synthesis.children():
        for layer in (block.conv1, block.torgb, *([block.conv0] if block.in_channels else [])):
            layer.__class__ = type("ForkLayer", (type(layer),), {"forward": layer_forward})
        block.__class__ = type("ForkBlock", (type(block),), {"forward": block_forward})
    return G


def test_arguments_reach_the_layers_that_know_them(draggan: Host) -> None:
    G = of_a_fork(trained(draggan.generator(resolution=16)))
    z, c = draggan.latents(G)
    images = G(z, c, noise_mode="const", boost=0.5)
    assert (images - G(z, c, noise_mode="const")).abs().max() > 0.1
    for fused in (False, True):
        with squeeze_patch.squeezed(G, ratio=1, init="weights"):
            if fused:
                squeeze_patch.fuse(G.eval())
            assert (G(z, c, noise_mode="const", boost=0.5) - images).abs().max() <= float_error(G, images)


def test_styles_that_come_by_another_argument(draggan: Host) -> None:
    """The blocks get no ws at all; how many images are wanted stands in the tensors of that argument."""
    G = of_a_fork(trained(draggan.generator(resolution=16)))
    squeeze_patch.apply(G, ratio=2)
    w = G.mapping(*draggan.latents(G))[:, 0]
    expected = G.synthesis(w[:, None].repeat(1, G.num_ws, 1), noise_mode="const")
    x = img = None
    for block in G.synthesis.children():
        x, img = block(x, img, None, styles={"all": w}, noise_mode="const")
    assert torch.equal(img, expected)


def test_what_only_the_dense_block_knows(draggan: Host) -> None:
    """Its default may be given, as the hosts' networks do; anything else would be ignored in silence. So it is behind
    a copy and a pickle."""
    G = of_a_fork(trained(draggan.generator(resolution=16)))
    z, c = draggan.latents(G)
    dense = G(z, c, noise_mode="const", shift=0.25)
    squeeze_patch.apply(G, ratio=2)
    image = G(z, c, noise_mode="const")
    assert torch.equal(G(z, c, noise_mode="const", shift=0.0), image)
    block = G.synthesis.b8
    for one in (block, copy.deepcopy(block), pickle.loads(pickle.dumps(squeezed_block(block)))):
        assert one.foreign == {"shift": 0.0}
    for given in (0.25, torch.zeros([])):
        with pytest.raises(TypeError, match=r"block 4 is squeezed and does not know shift, .*squeeze_patch\.remove"):
            G(z, c, noise_mode="const", shift=given)
    squeeze_patch.remove(G)
    assert torch.equal(G(z, c, noise_mode="const", shift=0.25), dense)


def squeezed_block(block: Any) -> Any:
    """Without the layers of the fork, whose classes no pickle carries."""
    new = copy.copy(block)
    new._modules = {}
    return new


def test_blocks_of_the_hosts_have_none(draggan: Host) -> None:
    G = squeeze_patch.apply(draggan.generator(resolution=16), init="random")
    assert all("foreign" not in vars(block) for block in G.synthesis.children())
