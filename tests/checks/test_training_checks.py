"""What training needs of a generator: every kind of gradient that is not what it should be."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import torch

from squeeze_patch.checks import training_checks
from tests.held import found, small

Slopes = Callable[[torch.Tensor], torch.Tensor]


def going_back(slopes: Slopes) -> Any:
    """A function that changes nothing but the slopes of the loss."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: Any, slope: torch.Tensor) -> torch.Tensor:
            return slopes(slope)

    return Changed.apply


def through(path: str, slopes: Slopes) -> Any:
    """`small`, what the layer answers with other slopes of the loss."""
    G, changed = small(), going_back(slopes)
    G.get_submodule(path).register_forward_hook(lambda _, __, made: changed(made))
    return G


def with_nan(slope: torch.Tensor) -> torch.Tensor:
    return torch.cat([slope[:, :1] * torch.nan, slope[:, 1:]], dim=1)


def test_parameters_without_a_gradient() -> None:
    def unused() -> Any:
        G = small()
        G.mapping.spare, G.mapping.spare_too = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        return G

    outcome = found(unused, "gradients")
    assert (outcome.state, outcome.figures["none"]) == ("short", ["mapping.spare", "mapping.spare_too"])
    assert found(unused, "gradients", without="mapping.spare").state == "short"
    assert found(unused, "gradients", without="nothing, mapping.spare*").state == "holds"


def test_gradients_that_are_zero_or_not_finite() -> None:
    def zero() -> Any:
        G = small()
        G.synthesis.b8.conv1.noise_const.zero_()
        return G

    outcome = found(zero, "gradients")
    assert (outcome.state, outcome.place) == ("short", "synthesis.b8.conv1.noise_strength")
    assert outcome.figures["zero"] == ["synthesis.b8.conv1.noise_strength"]


def test_gradients_that_are_partly_not_finite() -> None:
    outcome = found(lambda: through("synthesis.b8.torgb.affine", with_nan), "gradients")
    assert outcome.state == "short"
    assert "synthesis.b8.torgb.affine.bias" in outcome.figures["not_finite"]
    assert "synthesis.b8.torgb.weight" not in outcome.figures["not_finite"]


def test_second_derivatives_that_are_not_finite_in_a_bias_alone() -> None:
    to_nan = going_back(lambda slope: with_nan(slope[None])[0])

    def broken() -> Any:
        G = small()
        G.synthesis.b8.torgb.register_forward_hook(
            lambda layer, _, made: made + made.mean() * to_nan(layer.bias)[:, None, None]
        )
        return G

    outcome = found(broken, "second_derivatives")
    assert (outcome.state, outcome.figures) == ("short", {"weights": ["synthesis.b8.torgb.bias"]})


@pytest.mark.parametrize("times", [0.2, 0.8, 1.25, 5.0])
def test_gradients_that_are_too_small_or_too_large(times: float) -> None:
    outcome = found(lambda: through("synthesis.b8.conv1", lambda slope: times * slope), "step")
    assert outcome.state == "short", outcome.message
    assert outcome.place in ("b4", "b8", "the other layers")  # all that is in front of it


def test_a_block_whose_gradient_is_zero() -> None:
    def cut() -> Any:
        G = small()
        G.synthesis.b4.register_forward_hook(lambda _, __, made: (made[0].detach(), made[1].detach()))
        return G

    outcome = found(cut, "step")
    assert (outcome.state, outcome.place) == ("short", "b4")


@pytest.mark.parametrize(("times", "state"), [(0.5, "holds"), (2.0, "short")])
def test_an_average_that_caught_up_may_differ_by_float_error(
    times: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [torch.full([1, 3, 2, 2], 3.0)]
    seen = iter([*images, images[0] + 3.0 * times * 1e-3])
    monkeypatch.setattr(training_checks, "_seen", lambda *_: next(seen))
    monkeypatch.setattr("squeeze_patch.checks.answers.tolerance_of", lambda _: 1e-3)
    assert found(small, "average").state == state
