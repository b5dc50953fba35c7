"""Somebody else's adapter: found by its entry point alone, tested by the published suite, which finds mistakes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, Type

import pytest
import torch

import squeeze_patch
from squeeze_patch import adapters
from squeeze_patch.adapters.base import Adapter
from squeeze_patch.testing import AdapterContract

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "third_party_adapter"

#: with the host alone in sight, then with the adapter: nothing but the entry point names it
APPLY = """
import sys, squeeze_patch
from lumen import Lumen
assert "lumen_squeeze" not in sys.modules
print(squeeze_patch.status(squeeze_patch.apply(Lumen(), ratio=2)))
assert "lumen_squeeze" in sys.modules
with squeeze_patch.labels([0]):
    try:
        squeeze_patch.apply(Lumen(), ratio=2)
    except squeeze_patch.LabelsError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed into a folder of its own, without a download."""
    folder = tmp_path_factory.mktemp("third_party")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)  # building leaves files behind
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "site"


def run(folder: Path, *paths: Path, arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_is_found_by_its_entry_point(site: Path, tmp_path: Path) -> None:
    done = run(tmp_path, site, arguments=["-c", APPLY])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("squeezed: 3 of 3 blocks")
    assert "labels were given, and the generator takes none" in done.stdout  # nothing of them is in the adapter
    (tmp_path / "host").mkdir()
    shutil.copytree(site / "lumen", tmp_path / "host" / "lumen")
    done = run(tmp_path, tmp_path / "host", arguments=["-c", APPLY])
    assert "no StyleGAN2 generator found in Lumen" in done.stderr


def test_its_own_tests(site: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(tmp_path, site, arguments=["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"])
    assert done.returncode == 0, done.stdout
    published = [name for name in dir(AdapterContract) if name.startswith("test_")]
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0])
    assert passed >= len(published)
    assert "skipped" not in done.stdout


@pytest.fixture
def lumen(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's adapter module, in this process; what tests register is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(adapters, "_registered", list(adapters.adapters()))
    import lumen_squeeze

    yield lumen_squeeze
    for name in ("lumen", "lumen_squeeze"):
        sys.modules.pop(name, None)


class OnLumen(AdapterContract):
    def make_generator(self) -> Any:
        return sys.modules["lumen"].Lumen()  # type: ignore[attr-defined]

    def images(self, G: Any, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return G(z)


def check(surgery: Any, test: str, *arguments: Any) -> None:
    adapters.register(Adapter("lumen", surgery))
    torch.manual_seed(0)
    getattr(OnLumen(), test)(*arguments)


def mistakes(lumen: Any) -> dict[str, tuple[Type[Any], tuple[Any, ...]]]:
    """{what is wrong: (a surgery that does it, the test that has to find it and its arguments)}."""
    base = lumen.LumenSurgery

    class OtherGain(base):  # type: ignore[misc,valid-type]
        def load_start(self, new: Any, dense: Any, start: Any) -> None:
            super().load_start(new, dense, start)
            if start.excite_weight is not None:
                new.spread.weight.data.mul_(new.spread.weight_gain)

    class LeavesItsMark(base):  # type: ignore[misc,valid-type]
        def detach_plan(self, root: Any, network: Any) -> None:
            network.squeeze_plan = None

    class LosesHooks(base):  # type: ignore[misc,valid-type]
        def check_replaceable(self, block: Any, name: str) -> None:
            pass

    class UnusedExcite(base):  # type: ignore[misc,valid-type]
        def build(self, network: Any, name: str, shape: Any) -> Any:
            return lumen.SqueezedStage(self.get_block(network, name), shape, is_last=False)

    class DrawsRandomNumbers(base):  # type: ignore[misc,valid-type]
        def sample_w(self, root: Any, network: Any, n: int, seed: int) -> Any:
            return network.dream(torch.randn([n, network.z_dim])).detach()

    class PutsInPlace(base):  # type: ignore[misc,valid-type]
        def build(self, network: Any, name: str, shape: Any) -> Any:
            new = super().build(network, name, shape)
            self.set_block(network, name, new)
            return new

    class LosesFlags(base):  # type: ignore[misc,valid-type]
        def build(self, network: Any, name: str, shape: Any) -> Any:
            return super().build(network, name, shape).train()

    class KeepsThePlanElsewhere(base):  # type: ignore[misc,valid-type]
        plans: dict[int, Any] = {}  # noqa: RUF012

        def attach_plan(self, root: Any, network: Any, plan: Any) -> None:
            self.plans[id(network)] = dict(plan)

        def plan_of(self, network: Any) -> Any:
            return self.plans.get(id(network))

    return {
        "gain": (OtherGain, ("test_ratio_1_changes_no_image", "weights")),
        "detach_plan": (LeavesItsMark, ("test_apply_then_remove_restores_identity",)),
        "hooks": (LosesHooks, ("test_no_hook_is_lost",)),
        "unused parameters": (UnusedExcite, ("test_every_parameter_is_used_twice_differentiably",)),
        "random numbers": (DrawsRandomNumbers, ("test_random_numbers_are_left_alone",)),
        "half patched": (PutsInPlace, ("test_an_interrupted_apply_changes_nothing", "build")),
        "flags": (LosesFlags, ("test_flags_carry_over",)),
        "plan": (KeepsThePlanElsewhere, ("test_copies",)),
    }


MISTAKES = ("gain", "detach_plan", "hooks", "unused parameters", "random numbers", "half patched", "flags", "plan")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_suite_finds_mistakes(mistake: str, lumen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = mistakes(lumen)
    assert set(known) == set(MISTAKES)
    wrong, (test, *arguments) = known[mistake]
    arguments += [monkeypatch] if "interrupted" in test else []
    check(lumen.LumenSurgery(), test, *arguments)
    # apply itself mends what a build that puts blocks in their places leaves behind; its start then stumbles
    with pytest.raises((AssertionError, RuntimeError)):
        check(wrong(), test, *arguments)


def gone() -> None:
    raise ImportError("No module named 'old_squeeze'")


def given(found: Any) -> Any:
    return lambda: found


@pytest.mark.parametrize("load", [*map(given, [object, lambda: None, dict, 7, gone]), gone])
def test_an_entry_point_that_names_no_adapter_is_named(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="old", value="old_squeeze:OldAdapter", load=load)
    monkeypatch.setattr(adapters, "_entry_points_read", False)
    monkeypatch.setattr(adapters, "_group", lambda points: [point])
    for _ in range(2):
        with pytest.raises(
            squeeze_patch.UnsupportedModelError,
            match="entry point old = old_squeeze:OldAdapter (names a|brings no adapter).*: update the",
        ):
            squeeze_patch.status(torch.nn.Identity())
