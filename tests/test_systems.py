"""What a user of Windows or macOS meets, as far as Linux can play it: files that are open cannot be replaced or
removed, modules of POSIX are missing, folders ignore case, outputs hold the characters of one part of the world."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints import atomic, targets
from squeeze_patch.checkpoints.addresses import is_url
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.safe_tensors import read_tensors
from squeeze_patch.checks.config import CheckConfig, Recipe
from squeeze_patch.checks.subjects import relative_to
from squeeze_patch.cli import main
from squeeze_patch.cli.output import check_replaceable
from squeeze_patch.demo import trained_generator
from squeeze_patch.recovery.paths import check_paths
from tests.helpers import ROOT, cli
from tests.servers import FileServer, file

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="/proc says which files this process has open")


def in_use() -> List[str]:
    """Files that this process has open or mapped."""
    with os.scandir("/proc/self/fd") as entries:
        numbers = [entry.name for entry in entries]
    found = []
    for number in numbers:
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # what listed them
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    return found + [line.split(None, 5)[5] for line in mapped if len(line.split(None, 5)) == 6]


def refuse(path: Any, folder: Any = None) -> None:
    """As Windows does."""
    whole = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder is not None else "", os.fspath(path))
    if os.path.realpath(whole) in in_use():
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on which a file that is open is neither replaced nor removed, and modes are no permissions."""
    replace, unlink = os.replace, os.unlink

    def checked_replace(one: Any, other: Any) -> None:
        refuse(one)
        refuse(other)
        replace(one, other)

    def checked_unlink(path: Any, *, dir_fd: Any = None) -> None:
        refuse(path, dir_fd)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "replace", checked_replace)
    monkeypatch.setattr(os, "unlink", checked_unlink)
    monkeypatch.setattr(atomic, "POSIX", False)
    monkeypatch.setattr(atomic, "WAITS", (0.0,))


def names(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


@linux
@pytest.mark.usefixtures("windows")
def test_another_program_has_the_target_open(tmp_path: Path) -> None:
    target = tmp_path / "out.pkl"
    target.write_text("old")
    with open(target, "rb"), pytest.raises(squeeze_patch.CheckpointError, match="a program has it open"):  # noqa: SIM117
        with atomic_write(target) as stream:
            stream.write(b"new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.pkl"]
    with atomic_write(target) as stream:
        stream.write(b"new")
    assert target.read_text() == "new"


def test_a_virus_scanner_has_it_open_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: List[int] = []
    replace = os.replace

    def busy(one: Any, other: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "Access is denied")
        replace(one, other)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(atomic, "POSIX", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with atomic_write(tmp_path / "file") as stream:
        stream.write(b"new")
    assert (len(tries), names(tmp_path)) == (3, ["file"])


def test_where_permissions_are_what_they_say_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: List[int] = []

    def denied(*_: Any) -> None:
        tries.append(1)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    monkeypatch.setattr(atomic, "POSIX", True)
    with pytest.raises(squeeze_patch.CheckpointError, match="no permission"), atomic_write(tmp_path / "file"):
        pass
    assert (len(tries), names(tmp_path)) == (1, [])


@linux
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("suffix", ["pkl", "safetensors"])
def test_commands_leave_no_file_open(tmp_path: Path, suffix: str) -> None:
    """What they replace and remove, folders for what passes among it."""
    package = pytest.importorskip("safetensors.torch")
    dense, squeezed, recovered = (tmp_path / f"{name}.{suffix}" for name in ("dense", "squeezed", "recovered"))
    if suffix == "pkl":
        with open(dense, "wb") as stream:
            pickle.dump({"G_ema": trained_generator()}, stream)
    else:
        package.save_file(trained_generator().state_dict(), dense)
    trust = ["--trust"] * (suffix == "pkl")
    for command in (
        ("convert", dense, squeezed, "--init", "weights"),
        ("convert", dense, squeezed, "--init", "weights", "--force", "--ratio", 2),
        ("recover", dense, "--out", recovered, "--steps", 2, "--every", 1, "--batch", 2),
        ("compare", dense, squeezed, "--samples", 2, "--json", tmp_path / "a.json"),
    ):
        code, _, err = cli(*command, *trust, "--quiet")
        assert code == 0, err
    left = {path.name for path in (dense, squeezed, recovered)} | {"a.json", "recovered.jsonl"}
    assert set(names(tmp_path)) == left


@linux
@pytest.mark.usefixtures("windows")
def test_downloads_leave_no_file_open(server: FileServer) -> None:
    """Neither the first one, nor one that takes its place, with and without a sum."""
    contents = [pickle.dumps(text * 1000) for text in ("old", "new")]
    for content, tag in zip(contents, "12"):
        address = server.says("/a.pkl", file(content, etag=f'"{tag}"'))
        assert fetch(address).read_bytes() == content
        assert fetch(address, sha256=hashlib.sha256(content).hexdigest()).read_bytes() == content
    assert cli("cache", "clear")[0] == 0


def test_tensors_are_no_window_into_their_file(tmp_path: Path) -> None:
    """A file of safetensors is read, not mapped: it may change, and be removed, while its tensors are used."""
    package = pytest.importorskip("safetensors.torch")
    path = tmp_path / "a.safetensors"
    package.save_file({"a": torch.ones(1000)}, path)
    (found,) = read_tensors(path).values()
    with open(path, "r+b") as stream:
        stream.seek(-4000, os.SEEK_END)
        stream.write(bytes(4000))
    assert bool((found["a"] == 1).all())


def test_nothing_of_posix_is_needed_to_import_it() -> None:
    """Every module, and a conversion's file."""
    script = (
        "import os, signal, sys, pkgutil, importlib, torch, requests, filelock, platformdirs, click, scipy, pytest\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios', 'tty', 'pty', 'syslog', 'posix'):\n"
        "    sys.modules[name] = None\n"
        "for name in ('fork', 'getuid', 'geteuid', 'setsid', 'killpg', 'mkfifo', 'O_NOFOLLOW', 'statvfs', 'uname',\n"
        "             'sched_getaffinity', 'getloadavg', 'fchmod', 'chown'):\n"
        "    delattr(os, name)\n"
        "for name in ('SIGHUP', 'SIGKILL', 'SIGPIPE', 'SIGALRM', 'setitimer', 'alarm'):\n"
        "    delattr(signal, name)\n"
        "import squeeze_patch\n"
        "for one in pkgutil.walk_packages(squeeze_patch.__path__, 'squeeze_patch.'):\n"
        "    if not one.name.endswith('__main__'):\n"
        "        importlib.import_module(one.name)\n"
        "print(len([name for name in sys.modules if name.startswith('squeeze_patch')]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(list((ROOT / "squeeze_patch").rglob("*.py"))) - 1  # without __main__


def test_names_that_differ_in_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are two files here, and one where folders ignore case."""
    check_replaceable(str(tmp_path / "a.json"), str(tmp_path / "A.json"))
    check_paths(tmp_path / "d.pkl", None, tmp_path / "s.pkl", tmp_path / "S.PKL.state", force=False)
    assert names(tmp_path) == []
    monkeypatch.setattr(targets, "_ignores_case", lambda folder: folder == tmp_path)
    with pytest.raises(squeeze_patch.MeasurementError, match="two things"):
        check_replaceable(str(tmp_path / "a.json"), str(tmp_path / "A.json"))
    with pytest.raises(squeeze_patch.CheckpointError, match="another file of the same recovery"):
        check_paths(tmp_path / "d.pkl", None, tmp_path / "s.pkl", tmp_path / "S.PKL.state", force=False)
    check_replaceable(str(tmp_path / "a.json"), str(tmp_path / "b.json"))


def test_one_file_by_two_ways(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(squeeze_patch.MeasurementError, match="two things"):
        check_replaceable(str(tmp_path / "folder" / "a.json"), str(tmp_path / "link" / "a.json"))
    log = tmp_path / "folder" / ".." / "s.pkl"
    with pytest.raises(squeeze_patch.CheckpointError, match="another file of the same recovery"):
        check_paths(tmp_path / "d.pkl", None, tmp_path / "s.pkl", log, force=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_outputs_that_lack_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """As files and pipes do on Windows; nothing stops at them, and the stream is as before then."""
    path = tmp_path / "Größe 模型.npz"
    path.write_bytes((ROOT / "squeeze_patch" / "demo" / "weights.npz").read_bytes())
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding=encoding) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for arguments in (["scan", str(path)], ["compare", "--help"]):
            main(arguments, standalone_mode=False)
        stdout.flush()
        assert stdout.errors == "strict"
        text = written.getvalue().decode("utf-8" if encoding == "ascii" else encoding)  # click's way out of ASCII
    assert "a zip archive, 507,886 bytes" in text
    assert "sliced Wasserstein" in text


@pytest.mark.parametrize("path", [r"C:\nets\a.pkl", "C:/nets/a.pkl", r"C:a.pkl", r"\\server\share\a.pkl"])
def test_paths_of_windows_are_no_addresses(path: str) -> None:
    assert not is_url(path)


def test_records_say_paths_with_slashes(tmp_path: Path) -> None:
    config = CheckConfig(tmp_path / "squeeze.toml", Recipe("a:b"))
    assert relative_to(config, tmp_path / "sub" / "baseline.json") == "sub/baseline.json"
