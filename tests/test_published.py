"""How the tests fetch packages: from an index of their own here, on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator

import pytest

from tests.hosts import published

ARCHIVE = "demo-1.0.tar.gz"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an index's page for the project "demo"; its packages are kept in tmp_path, too."""
    page = tmp_path / "index" / "demo"
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{ARCHIVE}">{ARCHIVE}</a></body></html>')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(page.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(published, "PACKAGES", tmp_path / "packages")
        monkeypatch.setattr(published, "CHECKSUMS", tmp_path / "packages.sha256")
        yield page
        server.shutdown()


def write_archive(page: Path, **files: str) -> str:
    """The checksum of a source distribution with setup.py and these files."""
    with tarfile.open(page / ARCHIVE, "w:gz") as archive:
        for name, text in {"demo-1.0/setup.py": "raise SystemExit('built')", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256((page / ARCHIVE).read_bytes()).hexdigest()


def expect(sha256: str, filename: str = ARCHIVE) -> None:
    published.CHECKSUMS.write_text(f"{sha256}  {filename}\n")


def test_unpacked_and_not_built(index: Path) -> None:
    expect(write_archive(index, **{"demo-1.0/demo/__init__.py": "answer = 42"}))
    folder = published.package("demo")
    assert (folder / "demo" / "__init__.py").read_text() == "answer = 42"
    (index / ARCHIVE).unlink()
    assert published.package("demo") == folder  # kept


def test_wrong_checksum(index: Path) -> None:
    sha256 = write_archive(index)
    expect("0" * 64)
    with pytest.raises(published.PublishedFileError, match=f"{ARCHIVE} has the SHA-256 checksum {sha256}, but"):
        published.package("demo")
    assert list(published.PACKAGES.iterdir()) == []
    expect(sha256)
    assert published.package("demo").is_dir()


def test_another_checksum_is_another_folder(index: Path) -> None:
    expect(write_archive(index))
    first = published.package("demo")
    expect(write_archive(index, **{"demo-1.0/more.py": ""}))
    assert published.package("demo") != first


def test_no_such_file(index: Path) -> None:
    expect("0" * 64, "demo-2.0.tar.gz")
    with pytest.raises(published.PublishedFileError, match=r"no file demo-2\.0\.tar\.gz for demo"):
        published.package("demo")


def test_archive_that_would_leave_its_folder(index: Path) -> None:
    expect(write_archive(index, **{"demo-1.0/../../../outside.py": ""}))
    with pytest.raises(Exception, match="outside the destination"):
        published.package("demo")
    assert list(published.PACKAGES.iterdir()) == []
    assert list(index.parent.parent.rglob("outside.py")) == []


def test_interrupted(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    expect(write_archive(index))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(published, "move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            published.package("demo")
    assert list(published.PACKAGES.iterdir()) == []
    assert published.package("demo").is_dir()


def test_several_at_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the folder when the last one still unpacks; all of them get the same whole one."""
    expect(write_archive(index, **{"demo-1.0/demo.py": ""}))
    together, move = threading.Barrier(4), published.move

    def move_together(unpacked: Path, folder: Path) -> None:
        together.wait(timeout=60)
        move(unpacked, folder)

    monkeypatch.setattr(published, "move", move_together)
    with ThreadPoolExecutor(4) as pool:
        (folder,) = set(pool.map(published.package, ["demo"] * 4))
    assert sorted(path.name for path in folder.iterdir()) == ["demo.py", "setup.py"]
    assert list(published.PACKAGES.iterdir()) == [folder]
