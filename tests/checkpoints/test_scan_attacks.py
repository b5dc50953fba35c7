"""Scans of files that the scan and the loader could read differently."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import List

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints import scanning, scanning_findings
from squeeze_patch.checkpoints.scanning_findings import NOT_LOOKED_INTO, UNKNOWN
from squeeze_patch.checkpoints.scanning_opcodes import Words
from squeeze_patch.checkpoints.scanning_values import computed
from tests.attacks import attacks, wide_archive
from tests.corpus import Call, saved
from tests.helpers import scanned, whats


def test_files_that_run_when_torch_loads_them_are_unusual(tmp_path: Path) -> None:
    """Those that readers take for different things, and that release of torch loads."""
    mark, ran = tmp_path / "sprung", 0
    for name, data in attacks(str(mark), lambda: saved(Call(os.mkdir, str(mark)))).items():
        (tmp_path / "file").write_bytes(data)
        with contextlib.suppress(Exception):
            torch.load(tmp_path / "file", weights_only=False)
        if mark.exists():
            mark.rmdir()
            ran += 1
            assert scanned(data, tmp_path).unusual, name
    assert ran > 5


def test_wide_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of large archives is usual where all of it leads to the directory, and nowhere else."""
    data = wide_archive(lambda: monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10))
    wide, end = data.rfind(b"PK\x06\x06"), data.rfind(b"PK\x05\x06")
    assert 0 < wide < end
    found = scanned(data, tmp_path)
    assert (found.unusual, found.complete) == (False, True), found.verdict
    for at in (wide + 4, wide + 24, wide + 48, end - 20 + 8):
        changed = bytearray(data)
        changed[at] ^= 1
        found = scanned(bytes(changed), tmp_path)
        assert found.unusual or not found.complete, at


def test_much_source_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is parsed is bounded in all, not text by text."""
    monkeypatch.setattr(scanning_findings, "CHARACTERS", 100_000)
    text = "from x import y\ndef f(): return\nclass A: pass\n"
    texts = [text + f"{index}\n" + "[];" * 20_000 for index in range(8)]
    assert len(texts[0]) < scanning_findings.CHARACTERS < 2 * len(texts[0])
    judged: List[str] = []
    monkeypatch.setattr(scanning, "judge_source", lambda text, own: judged.append(text) or [])
    found = scanned(pickle.dumps(texts), tmp_path)
    assert judged == texts[:1]
    assert whats(found, NOT_LOOKED_INTO) == ["more text that reads like source than is looked at"]


def test_a_file_that_becomes_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was when it was read; reading a mapped one would end the process."""
    path = tmp_path / "file"
    path.write_bytes(b"\x80\x04" + b"N0" * 100_000 + b"N.")
    found = squeeze_patch.scan(path, lambda word, done, size: os.truncate(path, 10))
    assert (found.size, found.complete) == (200_004, True)
    monkeypatch.setattr(scanning, "COPIED", 5)
    path.write_bytes(pickle.dumps({"x": 1}))
    assert squeeze_patch.scan(path).complete


def test_default_codec(tmp_path: Path) -> None:
    """Of _codecs.encode it is UTF-8: what stands behind two bytes of one character is found."""
    inner = "\x80\x02cposix\nmkdir\nX\x02\x00\x00\x00\xe9\x85R."
    assert (
        computed(("_codecs", "encode"), (Words(memoryview(inner.encode()), "utf-8"),), lambda count: True)
        == inner.encode()
    )


def test_what_a_file_comes_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes can name the same words, or the same archive, again: what comes of it is bounded in all."""
    monkeypatch.setattr(scanning_findings, "ROOM", 1 << 20)
    words = b"\x80\x04X\x30\x75\0\0" + b"a" * 30_000 + b"\x940\x8c\x06latin1\x940"
    again = b"c_codecs\nencode\nh\0h\1\x86R"
    assert whats(scanned(words + b"(" + again * 3 + b"t.", tmp_path), UNKNOWN) == []
    found = scanned(words + b"(" + again * 100 + b"t.", tmp_path)
    assert whats(found, UNKNOWN) == ["bytes that _codecs.encode computes"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(200_000) + b"\xff")
    held = stream.getvalue()
    load = b"ctorch.storage\n_load_from_bytes\nh\0\x85R"
    data = b"\x80\x04B" + struct.pack("<I", len(held)) + held + b"\x940("
    assert scanned(data + load + b"t.", tmp_path).complete
    gaps = whats(scanned(data + load * 20 + b"t.", tmp_path), NOT_LOOKED_INTO)
    assert "a member behind more than is unpacked of one file" in gaps


def test_text_is_decoded_once() -> None:
    """Each of many objects may name the same source, of megabytes."""
    words = Words(memoryview(b"'a\\n'"), "quoted")
    assert words.text() == "a\n"
    assert words.text() is words.text()
    assert words.unquoted() is words.unquoted()
