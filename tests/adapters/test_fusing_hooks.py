"""Hooks on fused generators of the rosinality and lucidrains families see, and change, what they did before."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.connection import Excite
from squeeze_patch.handing_on import Deferred
from tests.fusing import (
    PROMISED,
    assert_same,
    images,
    network,
    reader,
    second,
    squeezed_generator,
)
from tests.helpers import FLAT_HOSTS, LUCIDRAINS
from tests.hosts import Host


@pytest.fixture(params=[*FLAT_HOSTS, LUCIDRAINS.name])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    chosen = {**FLAT_HOSTS, LUCIDRAINS.name: LUCIDRAINS}[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def G(host: Host) -> Any:
    return squeezed_generator(host)


def last_excite(G: Any) -> Any:
    """That of the last block but one."""
    return [module for module in G.modules() if isinstance(module, Excite)][-1]


def test_hooks_see_what_they_saw(host: Any, G: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and outputs of every layer, in calls of their own."""
    layers = {n: m for n, m in network(G).named_modules() if n and not isinstance(m, torch.nn.ModuleList)}

    def seen(name: str) -> Dict[str, torch.Tensor]:
        found: Dict[str, torch.Tensor] = {}

        def hook(_module: Any, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            values = [v for v in (*inputs, first) if isinstance(v, torch.Tensor)]
            found.update({f"{k}": value + 0 for k, value in enumerate(values)})

        handle = layers[name].register_forward_hook(hook)
        expected_images = images(host, G)
        handle.remove()
        return {**found, "images": expected_images}

    chosen = [n for n in layers if not n.startswith(("style", "noises", "initial"))]
    expected = {name: seen(name) for name in chosen}
    squeeze_patch.fuse(G)
    for name in chosen:
        found = seen(name)
        assert found.keys() == expected[name].keys(), name
        for key, value in found.items():
            assert value.shape == expected[name][key].shape, name
            assert (value - expected[name][key]).abs().max() <= 2e-5 * expected[name][key].abs().max(), name


def in_place(_module: Any, inputs: Any) -> None:
    inputs[0][:, 1] += 1


def returned(_module: Any, inputs: Any) -> Any:
    return (inputs[0] * 1.5, *inputs[1:])


def output_in_place(_module: Any, _inputs: Any, output: Any) -> None:
    x = output[0] if isinstance(output, tuple) else output
    x[:, 1] += 1


@pytest.mark.parametrize("change", [in_place, returned])
@pytest.mark.parametrize("choose", [reader, second])
def test_hooks_that_change_inputs(host: Any, G: Any, choose: Callable[..., Any], change: Any) -> None:
    plain = images(host, G)
    squeeze_patch.fuse(G)
    choose(G).register_forward_pre_hook(change)
    found = images(host, G)
    expected = images(host, squeeze_patch.unfuse(G))
    assert_same(found, expected)
    assert (plain - expected).abs().max() > 100 * PROMISED * expected.abs().max()


@pytest.mark.parametrize("choose", [reader, second, last_excite])
def test_hooks_that_change_outputs(host: Any, G: Any, choose: Callable[..., Any]) -> None:
    plain = images(host, G)
    squeeze_patch.fuse(G)
    choose(G).register_forward_hook(output_in_place)
    found = images(host, G)
    expected = images(host, squeeze_patch.unfuse(G))
    assert_same(found, expected)
    assert (plain - expected).abs().max() > 100 * PROMISED * expected.abs().max()


def test_features_that_are_handed_on(host: Any, G: Any) -> None:
    """They have c channels for everybody, and nothing keeps a listener from folding but reading."""
    seen: List[Any] = []
    squeeze_patch.fuse(G)
    reader(G).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images(host, G)
    (features,) = seen
    assert isinstance(features, Deferred)
    assert features.shape == (2, 16, 8, 8)
    assert not features.was_read
    assert features.view(2, 16, -1).shape == (2, 16, 64)


def test_a_changed_forward_is_called(host: Any, G: Any) -> None:
    squeeze_patch.fuse(G)
    layer: Any = second(G)
    forward = layer.forward
    layer.forward = lambda *inputs, **named: forward(*inputs, **named) * 2
    found = images(host, G)
    del layer.forward
    squeeze_patch.unfuse(G)
    layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    assert_same(found, images(host, G))


@pytest.mark.parametrize("way", ["subclass", "class"])
def test_convolutions_that_compute_something_else_by_now(
    way: str, host: Any, G: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subclassed, or their class patched, after `fuse`: they run as they are."""
    squeeze_patch.fuse(G)
    layer = second(G)
    inner: Any = next((child for child in layer.children() if hasattr(child, "modulation")), layer)
    plain = type(inner).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **kwargs) * 0.5

    if way == "subclass":
        inner.__class__ = type("Quieter", (type(inner),), {"forward": forward})
    else:
        monkeypatch.setattr(type(inner), "forward", forward)
    found = images(host, G)
    assert_same(found, images(host, squeeze_patch.unfuse(G)))
