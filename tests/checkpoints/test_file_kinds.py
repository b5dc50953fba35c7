"""What servers send in the place of a checkpoint is refused by what it is, and no checkpoint is."""

from __future__ import annotations

import functools
import io
import json
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.file_kinds import ends_early
from squeeze_patch.checkpoints.pickles import read_pickle
from squeeze_patch.checkpoints.receiving import Limits
from tests.servers import FileServer, status

HTML = b"\xef\xbb\xbf\n <!DOCTYPE html><html><head><title>net.pkl</title></head></html>"
DRIVE = (
    b"<html><title>Google Drive - Virus scan warning</title><body>Google Drive can't scan this file for viruses.</body>"
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 381673535\n"
S3 = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><RequestId>1</RequestId></Error>'


def saved(value: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def safetensors(size: int, header_length: int = 0) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}, "__metadata__": {"a": "b"}})
    header = header.ljust(header_length)
    return len(header).to_bytes(8, "little") + header.encode() + bytes(size)


VALUE = {"w": torch.arange(3000)}
CHECKPOINTS: Dict[str, bytes] = {
    **{f"protocol {number}": pickle.dumps({"a": [1, 2]}, protocol=number) for number in range(6)},
    "zip": saved(VALUE),
    "older": saved(VALUE, _use_new_zipfile_serialization=False),
    "safetensors": safetensors(5000),
    "safetensors of a brace": safetensors(5000, ord("{")),
}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is an empty file; look at the address in a browser"),
        (HTML, "is a web page, not a file; use the address of the download itself"),
        (b"<!-- hello --><html>" + bytes(70_000), "is a web page"),
        (b'<?xml version="1.0"?><!DOCTYPE html>\n<html xmlns="x">', "is a web page"),
        (DRIVE, "Google Drive's page about files too large for its virus scan.* download it in a browser"),
        (S3, r"is an XML error message \(AccessDenied\), not a file; look at the address in a browser"),
        (b"<Error/>", "is an XML error message, not"),
        (b' {"error": "Repository not found"}', "is a JSON error message"),
        (b'[{"message": "' + b"x" * 70_000 + b'"}]', "is a JSON error message"),
        (LFS, "is a Git LFS pointer.*git lfs pull"),
    ],
)
@pytest.mark.parametrize("kind", ["application/octet-stream", "text/html"])
def test_what_is_no_checkpoint(server: FileServer, tmp_path: Path, body: bytes, message: str, kind: str) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match=message):
        fetch(server.says("/net.pkl", status(200, body, Content_Type=kind, ETag='"1"')))
    assert list((tmp_path / "cache").glob("*.*")) == []


def test_the_cure_names_the_file_behind_a_page(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the server here were the site."""
    monkeypatch.setattr(
        "squeeze_patch.checkpoints.file_kinds.file_address", lambda address: "https://site/resolve/net.pkl"
    )
    for body in (HTML, LFS):
        with pytest.raises(squeeze_patch.CheckpointError, match="the file itself is at https://site/resolve/net.pkl"):
            fetch(server.says("/net.pkl", status(200, body)))


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("told", [True, False])
def test_checkpoints_are_accepted(server: FileServer, content: bytes, told: bool) -> None:
    answer = status(200, content, Content_Type="text/html") if told else lambda asked: asked.send(200, content)
    assert fetch(server.says("/net", answer)).read_bytes() == content


@pytest.mark.parametrize("kind", ["protocol 2", "protocol 4", "zip", "safetensors", "safetensors of a brace"])
def test_a_missing_end_shows_where_no_length_is_told(server: FileServer, tmp_path: Path, kind: str) -> None:
    whole = CHECKPOINTS[kind]
    for length in (len(whole) - 1, len(whole) // 2, 12):
        url = server.says("/net", functools.partial(lambda length, asked: asked.send(200, whole[:length]), length))
        with pytest.raises(squeeze_patch.CheckpointError, match="broke off before the end"):
            fetch(url, limits=Limits(tries=1))
    assert list((tmp_path / "cache").glob("*.*")) == []


@pytest.mark.parametrize(
    "header", [b"{}", b"[]", b"{x", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b'{"a": {"data_offsets": [0, "x"]}}']
)
def test_a_safetensors_header_of_nonsense_is_the_readers_to_judge(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert not ends_early(path)
    assert zipfile.is_zipfile(path) is False


def test_a_module_that_a_pickle_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is called otherwise than what brings it, a host's own, and another."""
    for name, cure in (
        ("pkg_resources", "setuptools has it no longer, from 81 on: pip install 'setuptools<81'"),
        ("dnnlib", "name that folder with --host DIR"),
        ("another", "Install another, or put the folder that has it on PYTHONPATH"),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        (tmp_path / "net.pkl").write_bytes(f"c{name}\nthing\n.".encode())
        with pytest.raises(squeeze_patch.CheckpointError, match=re.escape(cure)):
            read_pickle(tmp_path / "net.pkl")
