"""Who looks into a fused generator: hooks see what they saw, gradients take the other way."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.handing_on import Deferred
from tests.fused import assert_same, images, inputs


def test_hooks_see_c_channels(G: Any) -> None:
    seen: Dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        module = G.synthesis.get_submodule(name)
        return module.register_forward_hook(
            lambda _m, _i, out: seen.update({name: (out if isinstance(out, torch.Tensor) else out[0])})
        )

    names = ["b16", "b32", "b16.conv1", "b32.conv0", "b32.torgb", "b16.excite", "b32.conv0.affine"]
    handles = [listen(name) for name in names]
    expected_image = images(G)
    expected = {name: value.clone() for name, value in seen.items()}
    squeeze_patch.fuse(G)
    seen.clear()
    assert_same(images(G), expected_image, G)
    assert set(seen) == set(names)
    for name in names:
        assert seen[name].shape == expected[name].shape
        assert_same(seen[name] + 0, expected[name], G)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["one", "all"])
def test_a_hook_on_excite_alone(demo: Any, kind: str) -> None:
    """Nothing else listens: the layers that would read its features fold it no longer. So do hooks of all modules."""
    seen: List[torch.Tensor] = []

    def hook(module: Any, _inputs: Any, output: Any) -> None:
        if module is demo.synthesis.b16.excite:
            seen.append(output)

    squeeze_patch.fuse(demo)
    register: Any = torch.nn.modules.module.register_module_forward_hook
    handle = demo.synthesis.b16.excite.register_forward_hook(hook) if kind == "one" else register(hook)
    found = images(demo)
    handle.remove()
    assert [list(x.shape) for x in seen] == [[2, 32, 16, 16]]
    assert_same(images(demo), found, demo)


@pytest.mark.parametrize("change", ["in place", "returned"])
def test_hooks_that_change_features(demo: Any, change: str) -> None:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        x, image = output
        if change == "in place":
            x[:, 3] = 0
            return None
        return x * 0.5, image

    handles = [getattr(demo.synthesis, f"b{r}").register_forward_hook(hook) for r in (16, 32)]
    expected = images(demo)
    squeeze_patch.fuse(demo)
    assert_same(images(demo), expected, demo)
    for handle in handles:
        handle.remove()
    assert (images(demo) - expected).abs().max() > 1e-2


def test_gradients_take_the_other_way(demo: Any) -> None:
    """The very gradients: of latents, of parameters, of noise."""

    def gradients(G: Any) -> List[torch.Tensor]:
        z, c = inputs(G)
        z.requires_grad_()
        noise = [buffer for name, buffer in G.named_buffers() if name.endswith("noise_const")]
        wanted = [z, *G.parameters(), *noise]
        for tensor in noise:
            tensor.requires_grad_()
        found = torch.autograd.grad(G(z, c, noise_mode="const").square().mean(), wanted, allow_unused=True)
        for tensor in noise:
            tensor.requires_grad_(False)
        return [tensor for tensor in found if tensor is not None]

    demo.requires_grad_(True)
    expected = gradients(demo)
    found = gradients(squeeze_patch.fuse(demo))
    assert len(found) == len(expected) > 50
    assert all(one.equal(other) for one, other in zip(found, expected))


@pytest.mark.parametrize("what", ["latents", "noise", "one parameter"])
def test_one_gradient_is_enough(demo: Any, what: str) -> None:
    squeeze_patch.fuse(demo)
    z, c = inputs(demo)
    tensor = {
        "latents": z,
        "noise": demo.synthesis.b32.conv0.noise_const,
        "one parameter": demo.synthesis.b16.excite.weight,
    }[what]
    tensor.requires_grad_()
    (gradient,) = torch.autograd.grad(demo(z, c, noise_mode="const").square().mean(), tensor)
    squeeze_patch.unfuse(demo)
    (expected,) = torch.autograd.grad(demo(z, c, noise_mode="const").square().mean(), tensor)
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()  # float32 sums in another order


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # of torch, about what its forward mode is made with
def test_gradients_of_what_hooks_put_in(demo: Any) -> None:
    """A style offset that is learnt, behind all that the block can see, and a feature penalty; forward mode, too."""

    def gradients(G: Any) -> List[torch.Tensor]:
        offset, marked = torch.zeros(1, requires_grad=True), []
        hooks = [
            G.synthesis.b16.conv1.affine.register_forward_hook(lambda m, i, o: o + offset),
            G.synthesis.b16.register_forward_hook(lambda m, i, o: (o[0] * 1.1, o[1])),
            G.synthesis.b32.register_forward_hook(lambda m, i, o: marked.append(o[0].requires_grad_())),
        ]
        z, c = inputs(G)
        loss = G(z, c, noise_mode="const").square().mean() + marked[0].square().mean()
        found = torch.autograd.grad(loss, [offset, marked[0]])
        for hook in hooks:
            hook.remove()
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(z, torch.ones_like(z))
            found += (torch.autograd.forward_ad.unpack_dual(G(dual, c, noise_mode="const")).tangent,)
        return list(found)

    expected = gradients(demo)
    for one, other in zip(gradients(squeeze_patch.fuse(demo)), expected):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()  # sums over all pixels, in another order


def test_features_that_are_read_later(demo: Any) -> None:
    """They are those of their call, whatever became of the weights."""
    kept: List[torch.Tensor] = []
    handle = demo.synthesis.b16.register_forward_hook(lambda m, i, o: kept.append(o[0]))
    images(demo)
    images(squeeze_patch.fuse(demo))
    handle.remove()
    assert isinstance(kept[1], Deferred)
    for parameter in demo.parameters():
        parameter.data.mul_(1.3)
    assert_same(kept[1] + 0, kept[0], demo)


def test_hooks_see_contiguous_features(demo: Any) -> None:
    """As the plain layers have them: `view` works on them, and on what the stride says."""
    seen: List[Any] = []
    names = ["b4", "b16", "b64", "b16.conv1", "b32.conv0", "b32.torgb", "b16.excite"]
    for name in names:
        module = demo.synthesis.get_submodule(name)
        module.register_forward_hook(lambda m, i, o: seen.extend([i[0], o[0] if isinstance(o, tuple) else o]))
    squeeze_patch.fuse(demo)
    images(demo)
    tensors = [x for x in seen if x is not None]
    assert len(tensors) == 2 * len(names) - 1
    assert all((x + 0).is_contiguous() and x.view(2, -1) is not None for x in tensors)


def test_autocast_takes_the_other_way(demo: Any) -> None:
    z, c = inputs(demo)
    with torch.no_grad():
        ws = demo.mapping(z, c)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = demo.synthesis(ws, noise_mode="const")
            assert squeeze_patch.fuse(demo).synthesis(ws, noise_mode="const").equal(expected)
