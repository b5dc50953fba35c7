"""The cache as users see it: where it is, what is in it, sums of files, and downloads that are not kept."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Tuple

import click
import filelock
import pytest

from squeeze_patch.checkpoints.addresses import parse
from squeeze_patch.checkpoints.cache import CacheRecord, CacheSlot, cache_dir
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.cli import main
from squeeze_patch.cli.output import progress_bar
from squeeze_patch.demo import trained_generator
from squeeze_patch.errors import CheckpointError, DownloadWarning
from tests.processes import command_runner
from tests.servers import Asked, FileServer, file, status

DENSE = pickle.dumps({"G_ema": trained_generator()})
OTHER = pickle.dumps({"G": trained_generator(), "x": 1})
SUM, OTHER_SUM = (hashlib.sha256(content).hexdigest() for content in (DENSE, OTHER))


def run(*arguments: Any) -> Tuple[int, str, str]:
    result = command_runner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def kept(tmp_path: Path) -> Any:
    return sorted(path.name.partition("_")[2] for path in (tmp_path / "cache").glob("*.*"))


@pytest.mark.filterwarnings("default")
def test_commands_take_addresses_and_go_on_without_the_server(server: FileServer, tmp_path: Path) -> None:
    url = server.says("/net.pkl", file(DENSE), status(503))
    code, out, err = run("info", url, "--trust")
    assert (code, err) == (0, "")
    code, again, err = run("info", url, "--trust")
    assert (code, again) == (0, out)
    assert err.startswith(f"Warning: {url}: the server answers 503 Service Unavailable; the copy of ")
    assert err.count("\n") == 1
    assert run("info", server.says("/bytes.pkl", status(200, b"\x8f" * 99)))[2].count("bytes.pkl: ") == 1


def test_sums(server: FileServer, tmp_path: Path) -> None:
    url, local = server.says("/net.pkl", file(DENSE)), tmp_path / "local.pkl"
    local.write_bytes(OTHER)
    wrong = f"its SHA-256 is {SUM}, not {OTHER_SUM} as asked for"
    code, _, err = run("info", url, "--trust", "--sha256", OTHER_SUM)
    assert (code, wrong in err, url in err) == (2, True, True)
    assert kept(tmp_path) == []
    assert run("info", url, "--trust", "--sha256", SUM.upper())[0] == 0
    server.asked.clear()
    assert run("info", url, "--trust", "--sha256", SUM)[0] == 0
    assert server.asked == []  # it is the wanted one, whatever the server has now
    code, _, err = run("compare", url, local, "--sha256", SUM, "--sha256", SUM, "--trust", "--samples", 2)
    assert (code, f"{local}: its SHA-256 is {OTHER_SUM}, not {SUM}" in err) == (2, True)
    assert run("compare", url, local, "--sha256", SUM, "--sha256", OTHER_SUM, "--trust", "--samples", 2)[0] == 0
    before = kept(tmp_path)
    assert len(before) > 0
    assert run("info", url, "--trust", "--sha256", OTHER_SUM)[0] == 2
    assert kept(tmp_path) == before  # a mistyped sum costs no second download


def test_a_file_with_a_sum_is_replaced_by_no_other(server: FileServer, tmp_path: Path) -> None:
    """Another command may download a new state between the check and the reading."""
    url = server.says("/net.pkl", file(DENSE), file(OTHER, '"2"'))
    asked, usual = fetch(url, sha256=SUM), fetch(url)
    assert (asked.read_bytes(), usual.read_bytes()) == (DENSE, OTHER)
    assert fetch(url, sha256=OTHER_SUM).read_bytes() == OTHER
    server.says("/net.pkl", file(DENSE, '"3"'))
    assert fetch(url).read_bytes() == DENSE
    server.asked.clear()
    assert fetch(url, sha256=OTHER_SUM).read_bytes() == OTHER
    assert fetch(url, sha256=SUM) == asked
    assert server.asked == []
    asked.write_bytes(OTHER[:-1])  # a damaged one
    assert fetch(url, sha256=SUM).read_bytes() == DENSE


@pytest.mark.parametrize("links", [True, False])
def test_room_of_files_with_two_names(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", denied)
    url, room = server.says("/net.pkl", file(DENSE)), len(DENSE) if links else 2 * len(DENSE)
    assert fetch(url, sha256=SUM).read_bytes() == DENSE
    assert kept(tmp_path) == ["net.pkl", "net.pkl", "net.pkl.json", "net.pkl.json"]
    assert json.loads(run("cache", "list", "--json")[1])["total"] == room
    assert run("cache", "clear")[1].startswith(f"removed 2 files, {room / 1e6:,.1f} MB freed")
    assert kept(tmp_path) == []


def test_a_copy_that_the_disk_damaged_is_downloaded_anew(server: FileServer, tmp_path: Path) -> None:
    url = server.says("/net.pkl", file(DENSE))
    fetch(url).write_bytes(OTHER.ljust(len(DENSE), b"x")[: len(DENSE)])
    assert fetch(url, sha256=SUM).read_bytes() == DENSE
    fetch(url).write_bytes(DENSE[:-1])
    assert fetch(url).read_bytes() == DENSE


def test_wrong_uses_of_sums(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(DENSE)
    for value in ("abc", "g" * 64, SUM + "0", "sha256:" + SUM):
        code, _, err = run("info", tmp_path / "a.pkl", "--sha256", value)
        assert (code, "64 hexadecimal digits" in err) == (2, True)
    code, _, err = run("info", tmp_path / "a.pkl", "--sha256", SUM, "--sha256", SUM)
    assert (code, "2 --sha256 for 1 file" in err) == (2, True)
    assert "there is no such file" in run("info", tmp_path / "b.pkl", "--sha256", SUM)[2]


def test_sums_of_further_files(tmp_path: Path) -> None:
    """Files that options name come last."""
    dense, squeezed = tmp_path / "dense.pkl", tmp_path / "squeezed.pkl"
    dense.write_bytes(DENSE)
    assert run("convert", dense, squeezed, "--trust", "--init", "weights", "--sha256", SUM)[0] == 0
    both = ["--trust", "--sha256", SUM, "--sha256", OTHER_SUM]
    for command in (
        ["convert", dense, tmp_path / "out.pkl", "--like", squeezed, *both],
        ["report", dense, "--against", squeezed, *both],
        ["recover", dense, squeezed, "--out", tmp_path / "out.pkl", *both],
    ):
        code, _, err = run(*command)
        assert (code, f"Error: {squeezed}: its SHA-256 is " in err) == (2, True), err


def test_train_takes_its_start_like_other_files(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    module = sys.modules["squeeze_patch.cli.train"]  # by its name, the package has the command
    monkeypatch.setattr(
        module, "run_training", lambda *_, init_from, **__: starts.append(init_from and Path(init_from).read_bytes())
    )
    url = server.says("/net.pkl", file(DENSE))
    code, _, err = run("train", "--init-from", url, "--sha256", OTHER_SUM, "--", "train.py")
    assert (code, f"its SHA-256 is {SUM}, not {OTHER_SUM}" in err) == (2, True)
    assert run("train", "--init-from", url, "--sha256", SUM, "--no-cache", "--", "train.py")[0] == 0
    assert kept(tmp_path) == []
    assert run("train", "--", "train.py")[0] == 0
    assert starts == [DENSE, None]
    code, _, err = run("train", "--sha256", SUM, "--", "train.py")
    assert (code, "1 --sha256 for 0 files" in err) == (2, True)


def test_downloads_that_are_not_kept(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "passing"))
    url = server.says("/net.pkl", file(DENSE))
    for _ in range(2):
        assert run("info", url, "--trust", "--no-cache")[0] == 0
    assert [headers.get("If-None-Match") for _, headers in server.asked] == [None, None]
    assert run("info", server.says("/page.pkl", status(200, b"<html>")), "--no-cache")[0] == 2
    assert (list((tmp_path / "passing").iterdir()), kept(tmp_path)) == ([], [])


def test_list_and_clear(server: FileServer, tmp_path: Path) -> None:
    code, out, _ = run("cache", "list")
    assert (code, out) == (0, f"0 files, 0 B, in {tmp_path / 'cache'}\n")
    assert run("cache", "clear")[1].startswith("removed 0 files, 0 B freed")
    for name in ("a.pkl", "b.pkl", "c.pt"):
        run("info", server.says(f"/{name}", file(DENSE)), "--trust")
    with pytest.raises(KeyboardInterrupt):
        fetch(server.says("/d.pt", file(DENSE)), lambda done, total: done and _interrupt())
    strangers = [
        tmp_path / "cache" / name for name in ("mine.pkl", "0123456789abcdef_old.pkl", "x.json", "y.part.json")
    ]
    for path in strangers:
        path.write_text('{"address": 1}')
    _, out, _ = run("cache", "list")
    rows = [line.split() for line in out.splitlines()]
    assert [(row[0], row[-1]) for row in rows[:3]] == [(n, server.url(f"/{n}")) for n in ("a.pkl", "b.pkl", "c.pt")]
    assert rows[3][0] == "d.pt"
    assert "unfinished" in rows[3]
    assert rows[4][:2] == ["4", "files,"]
    data = json.loads(run("cache", "list", "--json")[1])
    assert [one["finished"] for one in data["files"]] == [True, True, True, False]
    assert data["files"][0]["sha256"] == SUM
    assert data["total"] == sum(Path(one["path"]).stat().st_size for one in data["files"])
    code, _, err = run("cache", "clear", "z*")
    assert (code, "squeeze-patch cache list" in err) == (2, True)
    size = len(DENSE)
    assert run("cache", "clear", "*.pkl")[1].startswith(f"removed 2 files, {2 * size / 1e6:,.1f} MB freed")
    lock = next((tmp_path / "cache" / "locks").glob(f"{Path(data['files'][2]['path']).name[:16]}*"))
    with filelock.FileLock(str(lock)):
        _, out, err = run("cache", "clear", f"*{server.server_port}/c.pt")
    assert (out.startswith("removed 0 files"), err) == (True, "Warning: c.pt is being downloaded and stays\n")
    assert run("cache", "clear")[1].startswith("removed 2 files")
    left = {path for path in (tmp_path / "cache").iterdir() if path.is_file()}
    assert left == set(strangers)


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_two_at_once(server: FileServer) -> None:
    """The second waits for the first, and then asks whether its file is still the newest."""
    going, waiting = threading.Event(), threading.Event()

    def slow(asked: Asked) -> None:
        going.set()
        assert waiting.wait(60)
        file(DENSE)(asked)

    url, paths = server.says("/net.pkl", slow, file(DENSE)), []
    first = threading.Thread(target=lambda: paths.append(fetch(url)))
    first.start()
    assert going.wait(60)
    threading.Timer(0.3, waiting.set).start()
    with pytest.warns(DownloadWarning, match="is being downloaded by another process; waiting"):
        paths.append(fetch(url))
    first.join()
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == DENSE
    assert len(server.asked) == 2


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links")
@pytest.mark.parametrize("ending", [".json.new", ".part", ".part.json", ".part.json.new", ".json", ""])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_a_shared_cache_lead_into_no_file(
    server: FileServer, tmp_path: Path, ending: str, link: Callable[[Path, Path], None]
) -> None:
    url, victim = server.says("/net.pkl", file(DENSE)), tmp_path / "victim"
    path = CacheSlot(tmp_path / "cache", parse(url)).path
    path.parent.mkdir()
    victim.write_bytes(OTHER)
    link(victim, path.with_name(path.name + ending))
    if ending == ".part":  # with a record, as if it could be continued
        record = {"squeeze_patch_cache": "part", **asdict(CacheRecord(url, etag='"1"', size=len(DENSE)))}
        path.with_name(f"{path.name}.part.json").write_text(json.dumps(record))
    assert fetch(url).read_bytes() == DENSE
    assert victim.read_bytes() == OTHER
    assert not path.is_symlink()
    assert "Range" not in server.asked[-1][1]


def test_links_for_locks_lead_into_no_file(server: FileServer, tmp_path: Path) -> None:
    url, victim = server.says("/net.pkl", file(DENSE)), tmp_path / "victim"
    locks = tmp_path / "cache" / "locks"
    locks.mkdir(parents=True)
    victim.write_bytes(OTHER)
    lock = locks / f"{parse(url).key}.lock"
    lock.symlink_to(victim)
    assert fetch(url).read_bytes() == DENSE
    lock.unlink(missing_ok=True)
    lock.symlink_to(victim)
    assert run("cache", "clear")[1].startswith("removed 1 file,")
    assert victim.read_bytes() == OTHER


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUEEZE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir().name in ("squeeze_patch", "Cache")
    monkeypatch.setenv("SQUEEZE_CACHE", "relative")
    assert cache_dir() == Path.cwd() / "relative"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home
    monkeypatch.delenv("SQUEEZE_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/squeeze_patch")
    code, _, err = run("info", "http://127.0.0.1/a.pkl")
    assert (code, err) == (
        2,
        "Error: this user has no home folder to keep downloads in; SQUEEZE_CACHE names a folder\n",
    )


def test_a_cache_that_cannot_be_written_to(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.says("/net.pkl", file(DENSE))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "file"))
    code, _, err = run("info", url)
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith("or name another folder with SQUEEZE_CACHE\n")
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    path = fetch(url)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", denied)
    with pytest.warns(DownloadWarning, match="Permission denied.*is used"):
        assert fetch(url) == path
    with pytest.raises(CheckpointError, match="Permission denied"):
        fetch(server.url("/other.pkl"))


def test_a_full_disk(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.says("/net.pkl", status(200, DENSE, Content_Length=str(7 << 30)))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=6 << 30))
    with pytest.raises(CheckpointError, match=r"the file needs 7,516,192,768 bytes, 6,442,450,944 are free.*SQUEEZE"):
        fetch(url)


@pytest.mark.parametrize(("total", "shows"), [(4_000_000, "2/4"), (0, "2")])
def test_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any, total: int, shows: str) -> None:
    """Continued downloads start where they were, and a length need not be known."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lengths = []
    real = click.progressbar

    def watched(*args: Any, **how: Any) -> Any:
        bar = real(*args, **how)
        lengths.append(bar)
        return bar

    monkeypatch.setattr(click, "progressbar", watched)
    with progress_bar("downloading", unit=1_000_000) as step:
        step("", 1_000_000, total)
        step("", 2_000_000, total)
        assert (lengths[0].pos, lengths[0].format_pos()) == (2, shows)
        step("", 0, total)  # anew
        assert lengths[0].pos == 0
