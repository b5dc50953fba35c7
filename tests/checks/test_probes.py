"""Constants of the code that ordinary latents do not show."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from squeeze_patch.adapters import locate
from squeeze_patch.checks.baseline import read_baseline
from squeeze_patch.checks.config import CheckConfig
from squeeze_patch.checks.outcome import Outcome
from squeeze_patch.checks.probes import probe
from squeeze_patch.checks.runner import check
from squeeze_patch.demo import network
from tests.held import Held, small


def rewritten(path: str, old: str, new: str) -> Callable[[], Any]:
    """`small` with another text in the forward of one layer."""

    def make() -> Any:
        G = small()
        layer = G.get_submodule(path)
        text = textwrap.dedent(inspect.getsource(type(layer).forward))
        assert text.count(old) == 1
        names: Dict[str, Any] = {**vars(network), **vars(sys.modules[type(layer).__module__])}
        exec(text.replace(old, new), names)
        layer.__class__ = type(type(layer).__name__, (type(layer),), {"forward": names["forward"]})
        return G

    return make


@pytest.fixture
def recorded(held: Held) -> CheckConfig:
    return held.context.config


def outcomes(config: CheckConfig, factory: Callable[[], Any], *names: str) -> Dict[str, Outcome]:
    config = replace(config, generator=replace(config.generator, factory=factory))
    return {one.check: one for one in check(config, only=names or ["constants"]).outcomes}


@pytest.mark.parametrize(
    ("path", "old", "new", "place"),
    [
        ("synthesis.b8.conv1", "1e-8", "1e-3", "synthesis.b8.conv1 with a small weight"),
        ("synthesis.b16.conv0", "1e-8", "2e-8", "synthesis.b16.conv0 with a small weight"),
        ("mapping", "1e-8", "3e-8", "images of a latent close to 0"),
        ("synthesis.b4.conv1", "* self.act_gain", "* self.act_gain + x.clamp(max=1e4) * 0", ""),
    ],
)
def test_an_epsilon(recorded: CheckConfig, path: str, old: str, new: str, place: str) -> None:
    found = outcomes(recorded, rewritten(path, old, new), "constants", "images", "features")
    assert found["images"].state == found["features"].state == "holds"  # which show nothing of it
    assert found["constants"].state == ("short" if place else "holds"), found["constants"].message
    assert found["constants"].place == place


def test_nothing_of_a_generator_is_changed() -> None:
    G = small()
    G.synthesis.b8.conv1.forward = G.synthesis.b8.conv1.forward  # somebody's own
    before = [(dict(vars(module)), dict(module._parameters), dict(module._buffers)) for module in G.modules()]
    versions = [tensor._version for tensor in G.state_dict(keep_vars=True).values()]
    assert len(probe(locate(G))) == 21  # twice of 10 convolutions, and the latent
    for module, (own, parameters, buffers) in zip(G.modules(), before):
        assert vars(module).keys() == own.keys()
        assert all(module._parameters[name] is value for name, value in parameters.items())
        assert all(module._buffers[name] is value for name, value in buffers.items())
    assert versions == [tensor._version for tensor in G.state_dict(keep_vars=True).values()]


def test_layers_that_answer_no_more(recorded: CheckConfig) -> None:
    def particular() -> Any:
        G = small()
        G.synthesis.b8.conv1.register_forward_pre_hook(_refuses_large)
        G.synthesis.b8.conv0.register_forward_hook(_breaks_when_large)
        return G

    found = outcomes(recorded, particular)["constants"]
    assert (found.state, found.found) == ("short", "it answers no more")
    assert found.place == "synthesis.b8.conv0 with a large input"
    asked = probe(locate(particular()))
    assert "synthesis.b8.conv1 with a small weight" in asked
    assert "synthesis.b8.conv1 with a large input" not in asked


def _refuses_large(_module: Any, inputs: Any) -> None:
    assert inputs[0].abs().max() < 1000


def _breaks_when_large(_module: Any, _inputs: Any, output: Any) -> Any:
    return output / (output.abs().max() < 1000)


def test_a_baseline_of_before(recorded: CheckConfig, tmp_path: Path) -> None:
    data = json.loads(recorded.baseline.read_text())
    assert data["generators"][""].pop("probes")
    (tmp_path / "b.json").write_text(json.dumps(data))
    found = outcomes(replace(recorded, baseline=tmp_path / "b.json"), small, "constants", "images")
    assert found["images"].state == "holds"
    assert found["constants"].state == "skipped"
    assert "check --record adds to it" in found["constants"].message
    baseline = read_baseline(tmp_path / "b.json")
    assert baseline is not None
    assert baseline.generators[""].probes == {}
