"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints import io as files
from squeeze_patch.checkpoints.atomic import POSIX, atomic_write
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.targets import check_space, check_target
from squeeze_patch.checkpoints.verification import difference
from squeeze_patch.demo import trained_generator
from tests.helpers import cli
from tests.hosts.flat import FlatHost

posix = pytest.mark.skipif(os.name != "posix", reason="locks and pipes as POSIX has them")


def names(folder: Path) -> Any:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_on_errors(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o640)
    with contextlib.suppress(ZeroDivisionError), atomic_write(target) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    with atomic_write(target) as stream:
        stream.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["file"]


def test_errors_that_are_no_matter_of_writing_are_not_called_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the caller's"), atomic_write(tmp_path / "file"):
        raise OSError(errno.EDOM, "of the caller's")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed there")
def test_nothing_stays_open(tmp_path: Path) -> None:
    before = names(Path("/proc/self/fd"))
    for force in (True, False):
        with atomic_write(tmp_path / str(force), force=force):
            pass
    with contextlib.suppress(ZeroDivisionError), atomic_write(tmp_path / "True"):
        raise ZeroDivisionError
    assert len(names(Path("/proc/self/fd"))) <= len(before)


def test_a_link_goes_on_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_system_without_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows' drives are in WSL 2, and some network drives: what is written is no less there."""

    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    for words in (b"new", b"newer"):
        with atomic_write(tmp_path / "file") as stream:
            stream.write(words)
        assert (tmp_path / "file").read_bytes() == words
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_of_two_runs_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Without force, at the moment of renaming, whether the file system has links or not."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    target = tmp_path / "file"

    def two_runs() -> None:
        with atomic_write(target, force=False) as late:
            late.write(b"late")
            with atomic_write(target, force=False) as early:
                early.write(b"early")

    with pytest.raises(squeeze_patch.CheckpointError, match="appeared meanwhile"):
        two_runs()
    assert target.read_bytes() == b"early"
    assert names(tmp_path) == ["file"]


@posix
def test_what_killed_runs_leave_is_removed(tmp_path: Path) -> None:
    """Not what a run is writing, nor anybody else's."""
    (tmp_path / ".file.squeeze-0123abcd.part").write_text("left behind")
    (tmp_path / ".file.part").write_text("somebody else's")
    (tmp_path / ".other.squeeze-0123abcd.part").write_text("of another target")
    with atomic_write(tmp_path / "file") as first:
        first.write(b"first")
        with atomic_write(tmp_path / "file") as second:
            second.write(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"  # it was renamed last
    assert names(tmp_path) == [".file.part", ".other.squeeze-0123abcd.part", "file"]


@posix
def test_special_files_are_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "named pipe"), ("folder", "folder"), (os.devnull, "device")):
        with pytest.raises(squeeze_patch.CheckpointError, match=words):
            check_target(tmp_path / "source", tmp_path / name, force=True)
        with pytest.raises(squeeze_patch.CheckpointError, match=words), atomic_write(tmp_path / name):
            raise AssertionError
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    demo = tmp_path / "demo.pkl"
    demo.write_bytes(b"")
    for option in ("--json", "--grid", "--html"):
        code, _, err = cli("compare", demo, demo, option, tmp_path / "pipe")
        assert (code, "named pipe" in err) == (2, True)


def test_protected_files_are_noticed_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(squeeze_patch.CheckpointError, match="write-protected"):
        check_target(tmp_path / "source", tmp_path / "file", force=True)


def test_no_room_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    check_space(tmp_path / "source", tmp_path / "target")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 4})())
    with pytest.raises(squeeze_patch.CheckpointError, match="no room for it"):
        check_space(tmp_path / "source", tmp_path / "target")


@posix
@pytest.mark.parametrize("kind", ["pkl", "pt"])
def test_a_disk_that_fills_up(rosinality: FlatHost, tmp_path: Path, kind: str) -> None:
    """By a limit of the system on the size of files: one line, the old file, and nothing besides."""
    dense, target = tmp_path / f"dense.{kind}", tmp_path / f"out.{kind}"
    if kind == "pt":
        torch.save({"g_ema": rosinality.generator().state_dict()}, dense)
    else:
        with open(dense, "wb") as stream:
            files.write({"G_ema": trained_generator()}, stream)
    target.write_text("old")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); from squeeze_patch.cli import main; main()"
    )
    options = ["--force", "--init", "weights", "--no-verify", *(["--trust"] if kind == "pkl" else [])]
    command = [sys.executable, "-c", limited, "convert", str(dense), str(target), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "could not be written: the file would be larger than may be written there" in done.stderr
    assert done.stderr.count("\n") == 1
    assert target.read_text() == "old"
    assert names(tmp_path) == [dense.name, target.name]


def test_what_is_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that changes between the memory and the disk does not reach the target."""
    dense, target = tmp_path / "dense.pkl", tmp_path / "out.pkl"
    with open(dense, "wb") as stream:
        files.write({"G_ema": trained_generator()}, stream)
    write = files.write

    def damaged(data: Any, stream: Any) -> None:
        write(data, stream)
        stream.seek(stream.tell() // 2)  # within the weights
        at, byte = stream.tell(), stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(files, "write", damaged)
    with pytest.raises(squeeze_patch.CheckpointError, match="not what is read back|cannot be rebuilt|no readable"):
        convert(dense, target, trust=True, init="weights", verify=False)
    assert names(tmp_path) == ["dense.pkl"]


def test_differences_are_found() -> None:
    one = {"a": [torch.zeros(2), 1.0, "x", float("nan")], "b": {"c": torch.tensor([float("nan")])}}
    assert (
        difference(one, {"a": [torch.zeros(2), 1.0, "x", float("nan")], "b": {"c": torch.tensor([float("nan")])}}) == ""
    )
    for other, where in (
        ({"a": [torch.zeros(2), 1.0, "y", float("nan")], "b": one["b"]}, "a.2"),
        ({"a": [torch.zeros(2), 1, "x", float("nan")], "b": one["b"]}, "a.1"),
        ({"a": [-torch.zeros(2), 1.0, "x", float("nan")], "b": one["b"]}, "a.0"),  # of another sign
        ({"a": one["a"]}, "its entries"),
        ({"a": one["a"], "b": {"c": torch.zeros(1, dtype=torch.float64)}}, "b.c"),
    ):
        assert difference(one, other) == where


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives them to Python")
def test_access_list_and_attributes_stay(tmp_path: Path) -> None:
    """A reader beside owner and group: 2 is the list's version; an entry is what it is, its permissions, for whom."""
    path, nobody = tmp_path / "squeezed.pkl", 65534
    path.write_bytes(b"old")
    entries = ((1, 6, -1), (2, 4, nobody), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    attributes = {"user.origin": b"run 7", "system.posix_acl_access": access}
    try:
        for name, value in attributes.items():
            os.setxattr(path, name, value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("a file system without attributes")
    with atomic_write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == attributes


@pytest.mark.skipif(not POSIX, reason="files of Windows have no owner and group")
def test_owner_and_group_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is replaced: its permissions are meant for them. What this user may not is left."""
    (tmp_path / "target").write_bytes(b"old")
    real, asked = os.stat, []

    def stat_of(path: Any, **how: Any) -> os.stat_result:
        found = list(real(path, **how))
        if os.fspath(path) == str(tmp_path / "target"):
            found[4:6] = 1234, 2345
        return os.stat_result(found)

    def refused(path: Any, owner: int, group: int) -> None:
        asked.append((owner, group))
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "stat", stat_of)
    monkeypatch.setattr(os, "chown", refused)
    with atomic_write(tmp_path / "target") as stream:
        stream.write(b"new")
    assert asked == [(-1, 2345), (1234, -1)]
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.skipif(not POSIX, reason="an open file's folder is not removed there")
def test_what_happens_to_the_folder_meanwhile(tmp_path: Path) -> None:
    """Said in words, as a name that is too long is before the work."""

    def written(folder: Path, change: Callable[[Path], Any]) -> None:
        folder.mkdir()
        with atomic_write(folder / "target") as stream:
            stream.write(b"new")
            change(folder)

    with pytest.raises(squeeze_patch.CheckpointError, match="could not be written: a folder has taken its place"):
        written(tmp_path / "one", lambda folder: (folder / "target").mkdir())
    with pytest.raises(squeeze_patch.CheckpointError, match="could not be written: its folder is there no longer"):
        written(tmp_path / "two", shutil.rmtree)
    with pytest.raises(squeeze_patch.CheckpointError, match="the name is too long"):
        check_target(tmp_path / "source", tmp_path / ("x" * 300), force=False)
