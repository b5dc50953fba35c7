"""The wheel: everything is in it, and it works from any folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "--wheel-dir",
    ]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "squeeze_patch").rglob("*.py")}
    sources |= {f"squeeze_patch/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "adapters").rglob("*.py")}
    assert sources <= names
    assert {"squeeze_patch/py.typed", "squeeze_patch/demo/weights.npz"} <= names
    assert {f"squeeze_patch/reporting/{name}" for name in ("style.css", "script.js")} <= names
    assert not any(name.startswith(("tests", "adapters", "benchmarks", "experiments")) for name in names)
    assert wheel.stat().st_size < 2 * 1024 * 1024
    assert "License: MIT" in metadata or "License-Expression: MIT" in metadata
    assert "squeeze-patch = squeeze_patch.cli:main" in scripts
    assert "squeeze_patch_pytest.py" in names


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
