"""The wheel: everything is in it, and it works from any folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import squeeze_patch
from tests import release

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release.source_distribution(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the source distribution, in an environment of its own."""
    return release.wheel_of(sdist)


def test_the_source_distribution_is_all_that_builds_and_tests(sdist: Path) -> None:
    """What is committed, without this repository's own CI; and nothing besides but what setuptools writes."""
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")  # the source distribution itself, unpacked
    kept = {name for name in listed.stdout.split() if not name.startswith(".ci/") and (ROOT / name).is_file()}
    assert kept - found == set()
    written = {name for name in found - kept if "egg-info/" not in name}
    untracked = {name for name in written if (ROOT / name).is_file()}  # new files, not committed yet
    assert written - untracked == {"PKG-INFO", "setup.cfg"}
    assert sdist.stat().st_size < 3 * 1024 * 1024


def test_contents(wheel: Path) -> None:
    """Every module and every file of data, the licence, what pip writes; and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "squeeze_patch").rglob("*.py")}
    wanted |= {f"squeeze_patch/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "adapters").rglob("*.py")}
    wanted |= {f"squeeze_patch/{name}" for name in ("py.typed", "demo/weights.npz", "demo/README.md")}
    wanted |= {f"squeeze_patch/reporting/{name}" for name in ("style.css", "script.js")} | {"squeeze_patch_pytest.py"}
    assert {name for name in names if ".dist-info/" not in name} == wanted
    about = {name.partition(".dist-info/")[2].rpartition("/")[2] for name in names if ".dist-info/" in name}
    assert about == {"LICENSE", "METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD"}
    assert wheel.stat().st_size < 2 * 1024 * 1024
    assert "License: MIT" in metadata or "License-Expression: MIT" in metadata
    for minor in range(9, 14):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}\n" in metadata
    assert "squeeze-patch = squeeze_patch.__main__:main" in scripts


def test_importing_it_is_quick() -> None:
    """Its errors, and nothing else: names bring their modules, and torch, when they are used."""
    script = "import sys; before = set(sys.modules); import squeeze_patch; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if name.startswith("squeeze_patch")]
    assert ours == ["squeeze_patch", "squeeze_patch.errors", "squeeze_patch.version"]
    assert not {"torch", "numpy", "scipy", "requests", "click", "PIL"} & set(done.stdout.split())


def test_names_bring_their_modules() -> None:
    assert set(squeeze_patch.__all__) <= set(dir(squeeze_patch))
    for name in squeeze_patch.__all__:
        value = getattr(squeeze_patch, name)
        assert value is vars(squeeze_patch)[name]
        assert value.__name__ == name
        assert value.__module__.startswith("squeeze_patch.")
    with pytest.raises(AttributeError, match="has no attribute 'aply'"):
        squeeze_patch.aply  # noqa: B018


def test_it_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, which is what installing it comes to; by pip, and with a demo: the README's block in test_readme.py."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import sys, squeeze_patch, squeeze_patch.adapters as a\n"
        "assert squeeze_patch.__file__.startswith(sys.argv[1]) and a.__file__.startswith(sys.argv[1])\n"
        "heavy = {'numpy.random', 'PIL', 'scipy', 'requests', 'click', 'pytest'} & set(sys.modules)\n"
        "assert not heavy - {'numpy.random'}, heavy\n"
        "from squeeze_patch.cli import main\n"
        "from squeeze_patch.demo import trained_generator\n"
        "assert squeeze_patch.plan(trained_generator()).reduction > 0.1\n"
        "main(['demo', '--help'])\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout
    options = [sys.executable, "-X", "importtime", "-m", "pytest", "--help"]  # pytest loads the plug-in, not torch
    done = subprocess.run(options, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "--squeeze-record" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pluggy" in imported
    assert not {"torch", "squeeze_patch"} & imported


def test_it_runs_in_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """Where the tree's own folder shadows an installed package, as in a clone after ``pip install .``."""
    script = "import squeeze_patch.adapters as a; print(a.__file__)"
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": ""}
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path += {sys.path!r}; sys.meta_path = sys.meta_path[:3]; {script}",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "adapters" / "__init__.py"


def test_nothing_else_of_the_source_tree_is_part_of_the_package() -> None:
    for name in ("tests", "benchmarks", "experiments"):
        assert importlib.util.find_spec(name) is not None
        assert importlib.util.find_spec(f"squeeze_patch.{name}") is None


def test_testing_says_what_it_needs() -> None:
    """pytest is no dependency of squeeze_patch, only of its module for tests."""
    script = (
        "import sys; sys.modules['pytest'] = None\n"
        "import squeeze_patch\n"
        "try:\n"
        "    import squeeze_patch.testing\n"
        "except squeeze_patch.SqueezeError as error:\n"
        "    print(type(error).__mro__[2].__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ImportError squeeze_patch.testing needs pytest")
    assert done.stdout.endswith("pip install pytest\n")
