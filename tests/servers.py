"""A server of files on this machine that answers as a test says, and a clock that takes no time."""

from __future__ import annotations

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import urllib3.response

from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.receiving import PIECE, Clock

#: bytes of a download that come or do not: urllib3 1.26 waits for a whole piece
AT_A_TIME = 1 if hasattr(urllib3.response.HTTPResponse, "read1") else PIECE
Answer = Callable[["Asked"], None]
MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"


class Asked(BaseHTTPRequestHandler):
    """A request, and how to answer it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        server: Any = self.server
        server.asked.append((self.path, dict(self.headers.items())))
        with contextlib.suppress(ConnectionError):
            answers = server.answers.get(self.path.partition("?")[0], [])
            (answers.pop(0) if len(answers) > 1 else answers[0] if answers else status(404))(self)

    def send(self, code: int, body: bytes = b"", **headers: str) -> None:
        """Headers with ``_`` for ``-``, then the body, of which any part may be missing."""
        self.send_response(code)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    """Attributes:
    answers: {path: how its requests are answered, one after the other, the last one from then on}.
    asked: (path, headers) of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.answers: Dict[str, List[Answer]] = {}
        self.asked: List[Tuple[str, Dict[str, str]]] = []

    def says(self, path: str, *answers: Answer) -> str:
        """Answer a path so, and return its address."""
        self.answers[path] = list(answers)
        return self.url(path)

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}{path}"


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer with its length."""
    return lambda asked: asked.send(code, body, **{"Content_Length": str(len(body)), **headers})


def file(content: bytes, etag: str = '"1"', sent: int = 1 << 40, **headers: str) -> Answer:
    """What a good server does with a file of this state: 304 where it is known, the rest where a part is; it breaks off
    after ``sent`` bytes."""

    def answer(asked: Asked) -> None:
        head = {"ETag": etag, "Accept_Ranges": "bytes", **headers} if etag else headers
        span = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
        if etag and asked.headers.get("If-None-Match") == etag:
            asked.send(304, **head)
        elif span and asked.headers.get("If-Range") == etag:
            rest = content[int(span[1]) :]
            if not rest:
                asked.send(416, Content_Range=f"bytes */{len(content)}", Content_Length="0")
                return
            where = f"bytes {span[1]}-{len(content) - 1}/{len(content)}"
            asked.send(206, rest[:sent], Content_Length=str(len(rest)), Content_Range=where, **head)
        else:
            asked.send(200, content[:sent], Content_Length=str(len(content)), **head)

    return answer


class TestClock:
    """Time that passes when somebody looks (``step`` seconds each time) or sleeps."""

    __test__ = False

    def __init__(self, step: float = 0.0) -> None:
        self.time, self.step = 0.0, step
        self.slept: List[float] = []

    def clock(self) -> Clock:
        return Clock(self._now, self._sleep, lambda: 0.5)

    def _now(self) -> float:
        self.time += self.step
        return self.time

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def had(server: FileServer, *answers: Answer, **how: Any) -> Tuple[Path, TestClock]:
    """What is downloaded from a server that answers so, on a clock that takes no time."""
    clock = TestClock(how.pop("step", 0.0))
    return fetch(server.says("/net.pkl", *answers), clock=clock.clock(), **how), clock
