"""Packages of PyPI: their published files, checked against packages.sha256 and unpacked, never built.

Building runs a package's own setup.py, which not every Python can do (basicsr's stops on Python 3.13).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Optional, Tuple

HERE = Path(__file__).parent
PACKAGES = HERE / "packages"
CHECKSUMS = HERE / "packages.sha256"


class PublishedFileError(Exception):
    """A published file is missing, or is not the one that the tests were written for."""


def package(project: str) -> Path:
    """The folder with a project's modules, without what it depends on; fetched when it is first asked for."""
    filename, sha256 = published_files()[project]
    folder = PACKAGES / f"{project}-{sha256[:12]}"  # another checksum is another folder
    if not folder.is_dir():
        PACKAGES.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=PACKAGES) as temporary:
            archive = Path(temporary) / filename
            download(project, archive)
            verify(archive, sha256)
            move(unpack(archive, Path(temporary) / "unpacked"), folder)
    return folder


def published_files() -> Dict[str, Tuple[str, str]]:
    """Project: (name of its file, SHA-256); ``sha256sum --check`` reads the same table."""
    lines = (line.split() for line in CHECKSUMS.read_text(encoding="utf-8").splitlines())
    return {filename.split("-")[0]: (filename, sha256) for sha256, filename in lines}


def download(project: str, target: Path) -> None:
    """Fetch the file of this name from the index that pip is configured for, PyPI where it is not."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple  # not needed where all packages are present

    index = pip_setting("index-url") or PYPI_SIMPLE_ENDPOINT
    with PyPISimple(index) as client:
        client.s.verify = pip_setting("cert") or True
        found = [file for file in client.get_project_page(project).packages if file.filename == target.name]
        if not found:
            raise PublishedFileError(f"the package index has no file {target.name} for {project}")
        client.download_package(found[0], target, verify=False)  # the checksum that counts is the table's


def pip_setting(name: str) -> Optional[str]:
    """What the user has told pip, by an environment variable or in a configuration file."""
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # fails where nothing is set
    return os.environ.get(f"PIP_{name.replace('-', '_').upper()}") or done.stdout.strip() or None


def verify(archive: Path, sha256: str) -> None:
    """Raise `PublishedFileError` unless the file has this checksum."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise PublishedFileError(
            f"{archive.name} has the SHA-256 checksum {found}, but {CHECKSUMS.name} says {sha256}: "
            "it was damaged on its way or is not the file that the tests were written for"
        )


def unpack(archive: Path, into: Path) -> Path:
    """The folder with the modules of a wheel or source distribution."""
    if archive.suffix == ".whl":
        command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-index", "--no-deps", "--no-compile", "--target", str(into), str(archive)]
        subprocess.run(command, check=True)
        return into
    if sys.version_info >= (3, 12):
        import tarfile
    else:  # early releases of these Pythons extract without a filter
        from backports import tarfile
    with tarfile.open(archive) as files:
        files.extractall(into, filter="data")  # refuses what would leave the folder
    (top,) = into.iterdir()
    return top


def move(unpacked: Path, folder: Path) -> None:
    """In one step, so that the folder is whole from its first moment; another process may be first."""
    try:
        unpacked.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
