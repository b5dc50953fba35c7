"""squeeze-patch scan as users and scripts meet it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import squeeze_patch
from tests.corpus import calling, payloads, short
from tests.helpers import cli, write_checkpoint
from tests.hosts import Host

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


def test_a_snapshot(draggan: Host, tmp_path: Path) -> None:
    write_checkpoint(draggan, tmp_path / "network.pkl")
    code, out, err = cli("scan", tmp_path / "network.pkl")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"{tmp_path / 'network.pkl'}: a pickle, {(tmp_path / 'network.pkl').stat().st_size:,} bytes"
    assert lines[1].split() == ["level", "named", "called", "at", "what"]
    assert all(line.startswith("usual ") for line in lines[2:-1])
    assert lines[-1] == squeeze_patch.scan(tmp_path / "network.pkl").verdict
    assert "safe" not in out


def test_exit_codes(tmp_path: Path) -> None:
    """Something unusual counts more than something that could not be seen."""
    call = calling(b"os", b"mkdir", str(tmp_path / "sprung"))
    files = {
        0: pickle.dumps({"x": 1}),
        1: b"\x80\x04" + call + b".",
        2: b"Hello world\n",
    }
    for code, data in files.items():
        (tmp_path / "file.pkl").write_bytes(data)
        assert cli("scan", tmp_path / "file.pkl")[0] == code
        assert cli("scan", tmp_path / "file.pkl", "-q") == (code, "", "")
    (tmp_path / "file.pkl").write_bytes(files[1][:-1])
    code, out, _ = cli("scan", tmp_path / "file.pkl")
    assert code == 1
    assert out.splitlines()[-1].startswith("would call os.mkdir on loading; not looked into: ")
    assert not (tmp_path / "sprung").exists()


def test_errors(tmp_path: Path) -> None:
    code, out, err = cli("scan", tmp_path / "missing.pkl")
    assert (code, out) == (2, "")
    assert err == f"Error: {tmp_path / 'missing.pkl'}: there is no such file\n"
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(1))
    code, _, err = cli("scan", tmp_path / "file.pkl", "--json", tmp_path / "file.pkl")
    assert code == 2
    assert "this file is read; it would be lost" in err
    assert pickle.loads((tmp_path / "file.pkl").read_bytes()) == 1


def test_json(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(payloads(str(tmp_path / "sprung"))["top"])
    code, out, _ = cli("scan", tmp_path / "file.pkl", "--json")
    found = json.loads(out)
    assert code == 1
    assert found == squeeze_patch.scan(tmp_path / "file.pkl").to_dict()
    keys = ["schema", "file", "form", "size", "unusual", "complete", "verdict", "counts", "findings"]
    assert list(found) == keys
    (finding,) = found["findings"]
    assert list(finding) == ["level", "kind", "what", "why", "place", "position", "named", "called"]
    assert found["counts"] == {"runs code": 1, "unknown": 0, "not looked into": 0, "usual": 0}
    code, out, _ = cli("scan", tmp_path / "file.pkl", "--json", tmp_path / "out.json")
    assert (code, json.loads((tmp_path / "out.json").read_text())) == (1, found)
    assert "would call posix.mkdir" in out or "would call nt.mkdir" in out


def test_words_that_would_steer_a_terminal(tmp_path: Path) -> None:
    data = b"\x80\x04" + short("so\x1b[2Jme") + short("na\nme") + b"\x93."
    (tmp_path / "file.pkl").write_bytes(data)
    code, out, _ = cli("scan", tmp_path / "file.pkl")
    assert code == 1
    assert "\x1b" not in out
    assert "so\\x1b[2Jme.na\\nme" in out


@pytest.mark.parametrize("count", [10, 200])
def test_long_tables_are_cut(count: int, tmp_path: Path) -> None:
    names = b"".join(short("somebody") + short(f"name{index}") + b"\x930" for index in range(count))
    (tmp_path / "file.pkl").write_bytes(b"\x80\x04" + names + b"N.")
    lines = cli("scan", tmp_path / "file.pkl")[1].splitlines()
    assert len(lines) == (count + 3 if count < 60 else 60 + 4)
    assert lines[-1].startswith(f"{count} names that such files do not need: somebody.name0, ")
