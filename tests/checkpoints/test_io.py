"""Files that appear whole or not at all, and downloads."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Iterator

import pytest

import squeeze_patch
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.cli import main
from tests.processes import command_runner

CONTENT = os.urandom(3_000_000)


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/missing.pkl":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/page.pkl":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/broken.pkl" else CONTENT)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def url(server: Any, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_a_download_is_made_once(server: Any) -> None:
    seen: list[Any] = []
    path = fetch(url(server, "network.pkl"), lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("_network.pkl")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(url(server, "network.pkl")) == path
    assert server.asked == ["/network.pkl"]


@pytest.mark.parametrize(
    ("name", "message"), [("missing.pkl", "404"), ("broken.pkl", "cannot download|broke off"), ("page.pkl", "web page")]
)
def test_failed_downloads_leave_nothing(server: Any, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match=message):
        fetch(url(server, name))
    assert list((tmp_path / "cache").iterdir()) == []


def test_commands_take_addresses(server: Any) -> None:
    result = command_runner().invoke(main, ["info", url(server, "network.pkl")])
    assert result.exit_code == 2
    assert "network.pkl: this is no readable pickle" in result.stderr  # random bytes are none
    assert server.asked == ["/network.pkl"]
