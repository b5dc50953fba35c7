"""Downloads that are given up: of too many bytes, or of too few in their time."""

from __future__ import annotations

import gzip
import os
import pickle
import threading
from pathlib import Path

import pytest

import squeeze_patch
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.receiving import Limits
from tests.servers import AT_A_TIME, Asked, FileServer, file, had, status

CONTENT = pickle.dumps(os.urandom(300_000))


def test_limits_of_size(server: FileServer, tmp_path: Path) -> None:
    packed = gzip.compress(bytes(10_000_000))
    for answer in (
        status(200, CONTENT),
        lambda asked: asked.send(200, CONTENT),
        status(200, packed, Content_Encoding="gzip"),
    ):
        with pytest.raises(squeeze_patch.CheckpointError, match=r"larger than 0\.0 GB.*by other means"):
            had(server, answer, limits=Limits(size=len(CONTENT) - 1))
    assert list((tmp_path / "cache").glob("*.*")) == []


def test_limits_of_time(server: FileServer) -> None:
    with pytest.raises(
        squeeze_patch.CheckpointError, match=r"longer than 0\.1 hours; what has come is kept, and the same"
    ):
        had(server, file(CONTENT), limits=Limits(total=200, rate=0), step=150)
    with pytest.raises(squeeze_patch.CheckpointError, match="fewer than 1e\\+06 bytes a second come; what has come"):
        had(server, file(CONTENT), limits=Limits(rate=1e6), step=70)
    with pytest.raises(squeeze_patch.CheckpointError, match="503"):
        had(server, status(503), limits=Limits(total=1))


def test_a_drip_is_no_download(server: FileServer) -> None:
    """A byte now and then keeps the connection from timing out."""
    wake, drop = threading.Event(), AT_A_TIME

    def drip(asked: Asked) -> None:
        asked.send(200, Content_Length=str(len(CONTENT)))
        for start in range(0, 200 * drop, drop):
            asked.wfile.write(CONTENT[start : start + drop])
            if wake.wait(0.005):
                return
        assert wake.wait(20)

    try:
        with pytest.raises(squeeze_patch.CheckpointError, match="fewer than 1000 bytes a second come; try again"):
            had(server, drip, step=10, limits=Limits(read=10))
    finally:
        wake.set()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n", r"has not answered after 0\.\d+ seconds"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", r"takes longer than 0\.0 hours"),
    ],
    ids=["headers", "chunk's size"],
)
def test_what_is_no_byte_of_the_file_may_not_drip_either(server: FileServer, start: bytes, message: str) -> None:
    gone = threading.Event()

    def drip(asked: Asked) -> None:
        asked.wfile.write(start)
        try:
            while not gone.wait(0.02):
                asked.wfile.write(b"X: y\r\n" if b"chunked" not in start else b"x")
        except ConnectionError:
            return

    try:
        with pytest.raises(squeeze_patch.CheckpointError, match=message):
            fetch(server.says("/net.pkl", drip), limits=Limits(total=0.4))
    finally:
        gone.set()


def test_a_silent_server(server: FileServer) -> None:
    wake = threading.Event()
    with pytest.raises(squeeze_patch.CheckpointError, match=r"says nothing for 0\.05 seconds"):
        had(server, lambda asked: wake.wait(10) and None, limits=Limits(read=0.05, tries=2))
    wake.set()
