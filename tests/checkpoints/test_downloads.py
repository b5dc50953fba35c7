"""Files behind addresses: downloaded once, continued, asked about again, and never half."""

from __future__ import annotations

import email.utils
import errno
import gzip
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

import squeeze_patch
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.checkpoints.receiving import CHUNK, Limits
from squeeze_patch.errors import DownloadWarning
from tests.helpers import ROOT
from tests.processes import environment_with
from tests.servers import AT_A_TIME, MODIFIED, Answer, Asked, FileServer, TestClock, file, had, status

CONTENT = pickle.dumps(os.urandom(300_000))
OTHER = pickle.dumps(os.urandom(300_000))
HALF = len(CONTENT) // 2


def files(tmp_path: Path) -> List[str]:
    """The cache's files, by what is behind their keys."""
    return sorted(path.name[17:] for path in (tmp_path / "cache").glob("*.*"))


def ranges(server: FileServer) -> List[Tuple[Any, Any]]:
    return [(headers.get("Range"), headers.get("If-Range")) for _, headers in server.asked]


def test_a_download_is_made_once(server: FileServer, tmp_path: Path) -> None:
    seen: List[Any] = []
    path, _ = had(server, file(CONTENT), progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("_net.pkl")
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert fetch(server.url("/net.pkl")) == path
    first, second = (headers for _, headers in server.asked)
    assert (first.get("If-None-Match"), second.get("If-None-Match")) == (None, '"1"')
    assert first["Accept-Encoding"] == "identity"
    assert files(tmp_path) == ["net.pkl", "net.pkl.json"]


def test_an_error_of_the_callback_is_the_callers(server: FileServer) -> None:
    """A closed pipe behind its progress bar is no full disk, and no reason to use an older copy."""

    def closed(*_: int) -> None:
        raise BrokenPipeError(errno.EPIPE, "closed")

    for _ in ("nothing is kept", "a copy is"):
        with pytest.raises(BrokenPipeError):
            had(server, file(CONTENT, '"2"'), progress=closed)
        had(server, file(OTHER))


def test_a_changed_file_takes_the_place_of_the_old_one(server: FileServer, tmp_path: Path) -> None:
    old, _ = had(server, file(CONTENT))
    with pytest.warns(DownloadWarning, match="broke off .* in the cache is used"):
        assert had(server, file(OTHER, '"2"', sent=HALF), limits=Limits(tries=1))[0] == old
    assert old.read_bytes() == CONTENT  # whole or not at all
    new, _ = had(server, file(OTHER, '"2"'))
    assert server.asked[-1][1]["Range"] == f"bytes={HALF}-"
    assert new.read_bytes() == OTHER
    assert files(tmp_path) == ["net.pkl", "net.pkl.json"]
    assert json.loads(next((tmp_path / "cache").glob("*.json")).read_text())["etag"] == '"2"'


def test_dates_tell_states_apart_too(server: FileServer) -> None:
    had(server, file(CONTENT, "", Last_Modified=MODIFIED))
    path, _ = had(server, status(304))
    assert server.asked[-1][1]["If-Modified-Since"] == MODIFIED
    assert path.read_bytes() == CONTENT


def test_of_a_server_that_tells_nothing_the_file_is_downloaded_anew(server: FileServer) -> None:
    assert len(OTHER) == len(CONTENT)
    had(server, status(200, CONTENT))
    assert had(server, status(200, OTHER))[0].read_bytes() == OTHER
    assert had(server, lambda asked: asked.send(200, CONTENT))[0].read_bytes() == CONTENT  # no length either
    assert had(server, lambda asked: asked.send(200, OTHER))[0].read_bytes() == OTHER
    with pytest.warns(DownloadWarning, match="503 .* in the cache is used"):
        assert had(server, status(503))[0].read_bytes() == OTHER
    assert had(server, file(CONTENT))[0].read_bytes() == CONTENT  # it tells now


def test_a_date_of_this_second_tells_no_states_apart(server: FileServer) -> None:
    fresh = email.utils.formatdate(usegmt=True)
    had(server, file(CONTENT, "", Last_Modified=fresh))
    assert had(server, file(OTHER, "", Last_Modified=fresh))[0].read_bytes() == OTHER
    assert "If-Modified-Since" not in server.asked[-1][1]


@pytest.mark.parametrize(
    ("state", "told", "same"),
    [
        ({"Last_Modified": MODIFIED}, {"Last_Modified": MODIFIED}, True),
        ({"Last_Modified": MODIFIED}, {}, True),
        ({"Last_Modified": MODIFIED}, {"Last_Modified": MODIFIED.replace("2026", "2025")}, False),
        ({"ETag": '"1"', "Last_Modified": MODIFIED}, {"ETag": 'W/"1"', "Last_Modified": "x"}, True),
        ({"ETag": '"1"'}, {"ETag": '"2"'}, False),
    ],
)
def test_not_changed_has_to_be_said_of_the_copy(
    server: FileServer, state: Dict[str, str], told: Dict[str, str], same: bool
) -> None:
    """An older file that is put in the place of a newer one is not modified since."""
    had(server, file(CONTENT, "", **state))
    path, _ = had(server, status(304, **told), file(OTHER, "", **told))
    assert path.read_bytes() == (CONTENT if same else OTHER)


@pytest.mark.parametrize("answer", [status(503), status(429, Retry_After="7")])
def test_without_the_server_the_copy_is_used(server: FileServer, answer: Answer) -> None:
    path, _ = had(server, file(CONTENT))
    with pytest.warns(DownloadWarning, match=r"the server answers \d+ .*; the copy of 20..-..-.. in the cache is used"):
        again, clock = had(server, answer)
    assert (again, clock.slept) == (path, [])


def test_what_the_server_refuses_is_an_error_in_spite_of_a_copy(server: FileServer) -> None:
    path, _ = had(server, file(CONTENT))
    with pytest.raises(squeeze_patch.CheckpointError, match="404 Not Found: there is no file at this address"):
        had(server, status(404))
    with pytest.raises(squeeze_patch.CheckpointError, match="is a web page"):
        had(server, status(200, b"<html>log in</html>"))
    assert path.read_bytes() == CONTENT


def test_nobody_there(server: FileServer, tmp_path: Path) -> None:
    clock = TestClock()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/net.pkl"
        with pytest.raises(squeeze_patch.CheckpointError, match=r"the connection failed \(.*refused\); try again"):
            fetch(url, clock=clock.clock())
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]
    assert files(tmp_path) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_another_try_may_help(server: FileServer, code: int) -> None:
    path, clock = had(
        server, status(code), status(code, Retry_After="9"), status(code, Retry_After="soon"), file(CONTENT)
    )
    assert path.read_bytes() == CONTENT
    assert clock.slept == [0.5, 9.0, 2.0]


@pytest.mark.parametrize("when", ["86400", "Fri, 31 Dec 2100 00:00:00 GMT"])
def test_a_day_is_too_long_to_wait(server: FileServer, when: str) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match=r"503 .* asks to wait for \d+ seconds"):
        had(server, status(503, Retry_After=when))


@pytest.mark.parametrize(
    ("code", "cure"), [(401, "NAME:PASSWORD"), (403, "expired"), (410, "removed"), (416, "refuses")]
)
def test_refusals_are_not_tried_again(server: FileServer, tmp_path: Path, code: int, cure: str) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match=f"{code} .*{cure}"):
        had(server, status(code, CONTENT))
    assert len(server.asked) == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("state", "by"),
    [({"ETag": '"a"'}, '"a"'), ({"Last_Modified": MODIFIED}, MODIFIED)],
    ids=["etag", "date"],
)
def test_an_interrupted_download_goes_on(server: FileServer, state: Dict[str, str], by: str) -> None:
    def rest(asked: Asked) -> None:
        where = f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}"
        asked.send(206, CONTENT[HALF:], Content_Range=where, Content_Length=str(len(CONTENT) - HALF), **state)

    seen: List[Any] = []
    path, _ = had(server, file(CONTENT, "", sent=HALF, **state), rest, progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [(None, None), (f"bytes={HALF}-", by)]
    assert all(one[0] <= other[0] for one, other in zip(seen, seen[1:]))
    assert {total for _, total in seen} == {len(CONTENT)}


@pytest.mark.parametrize("state", [{"etag": ""}, {"etag": 'W/"weak"'}, {"etag": "bare"}])
def test_without_a_validator_it_starts_anew(server: FileServer, tmp_path: Path, state: Dict[str, str]) -> None:
    assert had(server, file(CONTENT, sent=HALF, **state), file(CONTENT, **state))[0].read_bytes() == CONTENT
    assert ranges(server) == [(None, None)] * 2
    server.asked.clear()
    with pytest.raises(squeeze_patch.CheckpointError, match="broke off .*; try again"):
        fetch(server.says("/b.pkl", file(CONTENT, sent=HALF, **state)), limits=Limits(tries=1))
    assert files(tmp_path) == ["net.pkl", "net.pkl.json"]


def test_a_slow_link_that_gets_on_is_not_given_up(server: FileServer) -> None:
    long = pickle.dumps(os.urandom(8 * CHUNK))
    path, clock = had(server, *[file(long, sent=CHUNK)] * 8, file(long))
    assert path.read_bytes() == long
    assert clock.slept == [0.5] * 8


def spoiled(**how: Any) -> Answer:
    """An answer to the request for the rest that is not to be used; the file itself where nothing is asked of it."""

    def answer(asked: Asked) -> None:
        if "Range" not in asked.headers:
            file(OTHER, '"2"')(asked)
            return
        headers = {"ETag": '"1"', "Content_Range": f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}", **how}
        asked.send(206, CONTENT[HALF:], Content_Length=str(len(CONTENT) - HALF), **headers)

    return answer


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (file(OTHER, '"2"'), 2),  # another file: 200, the whole of it
        (spoiled(ETag='"2"'), 3),
        (spoiled(Content_Range="nonsense"), 3),
        (spoiled(Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"), 3),
        (spoiled(Content_Range=f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}"), 3),
        (spoiled(Content_Range=f"bytes {HALF}-{len(CONTENT) - 2}/{len(CONTENT)}"), 3),
        (spoiled(Content_Encoding="gzip"), 3),
        (lambda asked: (status(416) if "Range" in asked.headers else file(OTHER, '"2"'))(asked), 3),
    ],
)
def test_a_part_of_something_else_is_dropped(server: FileServer, answer: Answer, requests: int) -> None:
    path, _ = had(server, file(CONTENT, sent=HALF), answer)
    assert path.read_bytes() == OTHER
    assert len(server.asked) == requests


@pytest.mark.parametrize("told", [{"Last_Modified": MODIFIED.replace("10:", "11:")}, {}, {"ETag": '"2"'}])
@pytest.mark.parametrize("state", [{"Last_Modified": MODIFIED}, {"ETag": '"1"'}])
def test_no_file_is_made_of_two_states(server: FileServer, state: Dict[str, str], told: Dict[str, str]) -> None:
    """Some servers send a range of whatever they have now, of the same size, whatever If-Range says."""

    def rest(asked: Asked) -> None:
        if "Range" not in asked.headers:
            asked.send(200, OTHER, Content_Length=str(len(OTHER)), **told)
            return
        where = f"bytes {HALF}-{len(OTHER) - 1}/{len(OTHER)}"
        asked.send(206, OTHER[HALF:], Content_Range=where, Content_Length=str(len(OTHER) - HALF), **told)

    path, _ = had(server, file(CONTENT, "", sent=HALF, **state), rest)
    assert path.read_bytes() == OTHER
    assert [offset is None for offset, _ in ranges(server)] == [True, False, True]


@pytest.mark.parametrize("code", [206, 304, 204])
def test_answers_that_were_not_asked_for(server: FileServer, tmp_path: Path, code: int) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match="not asked for|was not asked|sends no file"):
        had(server, lambda asked: asked.send(code, Content_Range="bytes 0-1/2"))
    assert files(tmp_path) == []


def test_the_next_run_goes_on(server: FileServer, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        had(server, file(CONTENT, sent=HALF), progress=interrupt)
    assert files(tmp_path) == ["net.pkl.part", "net.pkl.part.json"]
    had(server, file(CONTENT))
    (offset, by) = ranges(server)[-1]
    assert int(offset.split("=")[1].rstrip("-")) > 0
    assert by == '"1"'
    assert files(tmp_path) == ["net.pkl", "net.pkl.json"]
    (tmp_path / "cache" / "stray.part").write_bytes(b"")  # nobody's


def test_a_killed_run_is_continued(server: FileServer, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from squeeze_patch.checkpoints.downloads import fetch\n"
        "fetch(sys.argv[1], lambda done, total: done > 20_000 and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    environment = environment_with(ROOT, *sys.path)
    url = server.says("/net.pkl", file(CONTENT, sent=HALF), file(CONTENT))
    done = subprocess.run([sys.executable, "-c", script, url], env=environment, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    assert files(tmp_path) == ["net.pkl.part", "net.pkl.part.json"]
    assert fetch(url).read_bytes() == CONTENT
    assert ranges(server)[-1][1] == '"1"'
    next((tmp_path / "cache").glob("*.json")).write_text("{")  # a record that a crash destroyed
    assert fetch(url).read_bytes() == CONTENT


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_that_compresses_unasked(server: FileServer, chunked: bool) -> None:
    packed = gzip.compress(CONTENT)

    def answer(asked: Asked) -> None:
        if chunked:
            body = f"{len(packed):x}\r\n".encode() + packed + b"\r\n0\r\n\r\n"
            asked.send(200, body, Content_Encoding="gzip", Transfer_Encoding="chunked", Content_Length="5", ETag='"1"')
        else:
            asked.send(200, packed, Content_Encoding="gzip", Content_Length=str(len(packed)), ETag='"1"')

    def broken(asked: Asked) -> None:
        asked.send(200, packed[:1000], Content_Encoding="gzip", Content_Length=str(len(packed)), ETag='"1"')

    path, _ = had(server, broken, answer)
    assert path.read_bytes() == CONTENT
    assert ranges(server)[-1] == (None, None)  # a range would be one of the packed bytes


def test_what_cannot_be_decompressed(server: FileServer) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match="cannot be decompressed"):
        had(server, status(200, CONTENT, Content_Encoding="gzip"))


def test_no_length_is_told(server: FileServer) -> None:
    seen: List[Any] = []
    path, _ = had(server, lambda asked: asked.send(200, CONTENT), progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), 0)


def test_chunks_that_break_off(server: FileServer) -> None:
    def cut(asked: Asked) -> None:
        body = f"{HALF:x}\r\n".encode() + CONTENT[:HALF] + b"\r\n"
        asked.send(200, body, Transfer_Encoding="chunked", ETag='"1"')

    assert had(server, cut, file(CONTENT))[0].read_bytes() == CONTENT
    assert ranges(server)[-1] == (f"bytes={HALF - HALF % AT_A_TIME}-", '"1"')
