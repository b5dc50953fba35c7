"""Factories that set what belongs to the process, or make another generator at every call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, List

import pytest
import torch

import squeeze_patch
import squeeze_patch_pytest
from squeeze_patch.checks.config import CheckConfig
from squeeze_patch.checks.runner import check
from squeeze_patch.checks.subjects import make_subjects
from squeeze_patch.demo import trained_generator
from squeeze_patch.errors import ConfigError
from tests.held import small


def settings() -> List[Any]:
    operations = [getattr(torch.backends.mkldnn, name, None) for name in ("matmul", "conv")]
    return [
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        *(getattr(operation, "fp32_precision", None) for operation in operations),
    ]


def test_what_a_factory_sets_ends_with_it() -> None:
    """It is called within checks, too, which compute in float32 in full."""
    before = settings()

    def make() -> Any:
        G = small()
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        assert settings() != before
        return G

    make_subjects(CheckConfig.of(make))
    assert settings() == before


@pytest.mark.parametrize("error", [BaseException, pytest.skip.Exception, GeneratorExit])
def test_whatever_a_factory_stops_with_is_told(error: Any) -> None:
    def make() -> Any:
        raise error("no way")

    with pytest.raises(ConfigError, match=rf"^\[generator\] .*make.* stops with {error.__name__}: no way$"):
        make_subjects(CheckConfig.of(make))


def test_a_user_who_interrupts_a_factory_is_obeyed() -> None:
    def make() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_subjects(CheckConfig.of(make))


def test_code_that_skips_skips_no_check() -> None:
    """In pytest, where a skipped check would be green."""
    node: Any = SimpleNamespace(add_report_section=lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="Skipped: not here"), squeeze_patch_pytest._guarded(node):
        pytest.skip("not here")


@pytest.mark.parametrize(
    ("second", "state", "words"),
    [
        (lambda: {"G": small()}, "unknown", "made a generator '' at first, and now 'G'"),
        (
            lambda: squeeze_patch.apply(trained_generator(), ratio=2, init="weights"),
            "short",
            "the generator made anew makes images that differ by inf",
        ),
    ],
)
def test_another_generator_at_every_call(second: Any, state: str, words: str) -> None:
    makers = iter([small, second])
    (outcome,) = check(lambda: next(makers)(), only=["reproducible"]).outcomes
    assert (outcome.state, words in outcome.found) == (state, True), outcome.message
