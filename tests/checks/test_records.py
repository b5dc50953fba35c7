"""Where a baseline can be written, and what is told before anything is computed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import cli

#: a factory that nobody is to call
CONFIG = 'baseline = "{}"\n[generator]\nfactory = "nowhere:never"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> Any:
    return sorted((str(path), path.stat().st_mode, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])


def refused(folder: Path, baseline: str) -> str:
    """What `check --record` says of a place for the baseline, without calling the factory or leaving a trace."""
    (folder / "squeeze.toml").write_text(CONFIG.format(baseline))
    before = everything(folder)
    code, out, errors = cli("check", "--record")
    assert (code, out, errors.count("\n")) == (2, "", 1), errors
    assert everything(folder) == before
    assert "nowhere" not in errors
    return errors


@pytest.mark.parametrize("baseline", ["file/b.json", "file/in/b.json"])
def test_a_file_where_a_folder_is_wanted(folder: Path, baseline: str) -> None:
    (folder / "file").write_text("mine")
    assert f"{folder / 'file'} is a file, no folder; name another one (baseline = ...)" in refused(folder, baseline)


@pytest.mark.parametrize("baseline", ["b.json", "new/and/newer/b.json"])
def test_a_file_system_that_is_read_only(folder: Path, baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "could not be written: its file system is read-only; name another one" in refused(folder, baseline)


def test_a_baseline_that_is_write_protected(folder: Path) -> None:
    (folder / "b.json").write_text('{"schema": 1}')
    (folder / "b.json").chmod(0o444)
    assert "the file is write-protected" in refused(folder, "b.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_what_is_no_ordinary_file(folder: Path) -> None:
    os.mkfifo(folder / "b.json")
    assert "this is a named pipe" in refused(folder, "b.json")


def test_folders_are_made_for_it_when_there_is_something_to_write(folder: Path) -> None:
    (folder / "squeeze.toml").write_text(CONFIG.format("new/and/newer/b.json"))
    code, _, errors = cli("check", "--record")
    assert (code, "nowhere:never" in errors) == (2, True)  # the place is no hindrance
    assert not (folder / "new").exists()


@pytest.mark.parametrize("option", ["--json", "--junit", "--html"])
def test_other_outputs_are_looked_at_first(folder: Path, option: str) -> None:
    (folder / "squeeze.toml").write_text(CONFIG.format("b.json"))
    (folder / "file").write_text("mine")
    before = everything(folder)
    for target in ("file/out", "missing/out", "b.json"):
        code, _, errors = cli("check", option, target)
        assert (code, target in errors, "nowhere" in errors) == (2, True, False), errors
    assert everything(folder) == before
