"""CUDA kernels of hosts: which of them a host computes with."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.hosts import Host
from tests.hosts.plugins import PLUGINS, compiled
from tests.hosts.training import settle_kernels


@pytest.fixture
def _looked_for_anew() -> None:
    compiled.cache_clear()


@pytest.mark.usefixtures("_looked_for_anew")
def test_without_compiled_ones_a_host_looks_for_none(
    draggan: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PLUGINS, str(tmp_path))
    with draggan.active():
        settle_kernels()
        for name in ("bias_act", "upfirdn2d"):
            assert importlib.import_module(f"torch_utils.ops.{name}")._init() is False
        assert importlib.import_module("torch_utils.training_stats").report("loss", 3) == 3


@pytest.mark.usefixtures("_looked_for_anew")
def test_compiled_ones_are_the_hosts(draggan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hosts.training.compiled", lambda name: f"kernels of {name}")
    with draggan.active():
        settle_kernels()
        module = importlib.import_module("torch_utils.ops.upfirdn2d")
        assert module._init() is True
        assert module._plugin == "kernels of upfirdn2d"
        monkeypatch.undo()
        settle_kernels()
        assert module._init() is False
