"""Fixtures: the hosts, and small generators with trained-looking parameters."""

from __future__ import annotations

import functools
import gc
import os
import signal
from pathlib import Path
from typing import Iterator

import pytest
import torch

from squeeze_patch.checkpoints.downloads import fetch
from tests import hosts
from tests.helpers import FLAT_HOSTS, FORKS, HOSTS, LUCIDRAINS
from tests.hosts import flat
from tests.hosts.lucidrains import LucidrainsHost
from tests.servers import FileServer, TestClock, file_server

# A machine with CUDA's compiler and no GPU: torch would say so in every process, on stderr, which tests read
os.environ.update(CUDA_HOME="", CUDA_PATH="")
# a shell's "&" and nohup hand on to every process that signals are ignored, also to the one that starts others
for _name, _heard in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _heard)
# networks this small gain nothing from more; on a busy machine more of them cost tenfold, in processes of tests, too
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """What is there by now is never garbage: whatever times calls collects it before each, half a second in a process
    as large as this one becomes with the modules that tests import as they go."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    """A test that leaves more of them behind makes all that follow it slow."""
    before = torch.get_num_threads()
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before, f"torch had {before} threads, and is left with {after}"


#: gfpgan's generator is basicsr's with other layers: its stand-ins go through the contract suite, basicsr's do not
NEAR_RELATIVES = () if os.environ.get("SQUEEZE_SLOW") else ("gfpgan",)


@pytest.fixture(params=[n for n in (*HOSTS, *FORKS, *FLAT_HOSTS, LUCIDRAINS.name) if n not in NEAR_RELATIVES])
def any_host(request: pytest.FixtureRequest) -> Iterator[hosts.Host]:
    """Every host at hand, of every family, one after another, its modules importable during the test."""
    chosen = {**HOSTS, **FORKS, **FLAT_HOSTS, LUCIDRAINS.name: LUCIDRAINS}[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture(params=[*HOSTS, *FLAT_HOSTS])
def official_host(request: pytest.FixtureRequest) -> Iterator[hosts.Host]:
    """Every host whose generators have the official sizes."""
    chosen = {**HOSTS, **FLAT_HOSTS}[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def lucidrains() -> Iterator[LucidrainsHost]:
    with LUCIDRAINS.active():
        yield LUCIDRAINS


@pytest.fixture(params=list(FLAT_HOSTS))
def flat_host(request: pytest.FixtureRequest) -> Iterator[flat.FlatHost]:
    """Every host of the rosinality family."""
    chosen = FLAT_HOSTS[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def rosinality() -> Iterator[flat.FlatHost]:
    """rosinality's generator as draggan ships it, which is always at hand."""
    with FLAT_HOSTS["draggan-rosinality"].active():
        yield FLAT_HOSTS["draggan-rosinality"]


@pytest.fixture
def gfpgan() -> Iterator[flat.FlatHost]:
    with FLAT_HOSTS["gfpgan"].active():
        yield FLAT_HOSTS["gfpgan"]


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> Iterator[hosts.Host]:
    """Every host of the NVIDIA family."""
    chosen = HOSTS[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture(params=[name for name, host in HOSTS.items() if host.discriminator_kwargs is not None])
def full_host(request: pytest.FixtureRequest) -> Iterator[hosts.Host]:
    """Every host whose discriminator needs no download (projected-gan's does)."""
    chosen = HOSTS[request.param]
    with chosen.active():
        yield chosen


@pytest.fixture
def draggan() -> Iterator[hosts.Host]:
    """The host that is always at hand."""
    with HOSTS["draggan"].active():
        yield HOSTS["draggan"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of files, and a cache of this test's own."""
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with file_server() as running:
        yield running


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands wait for no time between two tries."""
    monkeypatch.setattr("squeeze_patch.cli.sources.fetch", functools.partial(fetch, clock=TestClock().clock()))
