"""Addresses: which are read, where redirections lead, and that nothing that gives access is shown or sent on."""

from __future__ import annotations

import base64
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List, Tuple

import pytest

import squeeze_patch
from squeeze_patch.checkpoints.addresses import file_address, is_url, parse, redacted
from squeeze_patch.checkpoints.downloads import fetch
from squeeze_patch.cli import main
from squeeze_patch.demo import trained_generator
from tests.processes import command_runner
from tests.servers import Asked, FileServer, file, file_server, status

CONTENT = b"\x80\x04N."
#: that no output may have
SECRETS = ("hunter2", "tok3n", "s1gnature", "fr4gment")
QUERY = "?id=7&token=tok3n&X-Amz-Signature=s1gnature&%73ig=s1gnature"


@pytest.mark.parametrize("source", ["http://a/b", "HTTPS://a/b", "http:", "hf://a/b", "s3://a", "file:///a"])
def test_what_is_an_address(source: str) -> None:
    assert is_url(source)


@pytest.mark.parametrize("source", ["a.pkl", "/a/b", "C:/a", "c:\\a", "C://a", "http", "a:b", "", "a/http://b"])
def test_what_is_a_path(source: str) -> None:
    assert not is_url(source)
    assert redacted(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "http:",
        "http://",
        "http:///a.pkl",
        "http://[::1",
        "http://[::1]]/a",
        "http://a]b/",
        "http://a:99999/b",
        "http://a:0/b",
        "http://a:port/b",
        "http://a:-1/b",
        "http://a b/c",
        "http://a/b c",
        "http://a/b\n",
        "http://a/b\x00",
        "http://.a/b",
        f"http://{'a' * 64}/b",
        "http://a\\@b/c",
        "http://user:hunter2/x@host/a",
        "http://user:hunter2?x@host/a",
        "http://user:hunter2#x@[::1/a",
    ],
)
def test_malformed_addresses(source: str) -> None:
    result = command_runner().invoke(main, ["info", source])
    assert result.exit_code == 2
    assert re.fullmatch("Error: .*(this is no address|has no spaces).*\n", result.stderr)
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("source", ["ftp://u:hunter2@host/a.pkl", "s3://b/a", "gs://b/a", "hf://b/a", "file:///a.pkl"])
def test_other_schemes(source: str) -> None:
    result = command_runner().invoke(main, ["info", source])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "only http:// and https:// addresses are read" in result.stderr
    assert "hunter2" not in result.stderr


def test_capitals_and_default_ports_are_the_same_address(server: FileServer) -> None:
    url = server.says("/a.pkl", file(CONTENT))
    assert fetch(url.replace("http:", "HTTP:")) == fetch(url)
    assert parse("https://Host:443/a").key == parse("https://host/a").key != parse("http://host/a").key
    assert parse("https://host").name == parse("https://host/").name == "download"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/net.pkl", "net.pkl"),
        ("/a%2Fb%20c%5C..%2fd.pt", "a_b_c_.._d.pt"),
        ("/..%2f..%2fetc", "_.._etc"),
        ("/.hidden.pt", "hidden.pt"),
        ("/con.pkl", "_con.pkl"),
        ("/LPT1", "_LPT1"),
        ("/%F0%9F%98%80.pt", "_.pt"),
        ("/a.pt%00.exe.", "a.pt_.exe"),
        (f"/{'a' * 300}.pkl", f"{'a' * 96}.pkl"),
        (f"/{'a' * 300}", "a" * 100),
        ("/...", "download"),
    ],
)
def test_names_that_fit_every_disk(path: str, name: str) -> None:
    assert parse(f"https://host{path}?x=/y").name == name


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:pw@host/a@b?x=1@2", "https://***@host/a@b?x=1@2"),
        ("https://TOKEN@host/a", "https://***@host/a"),
        (
            "https://host/a?token=1&id=2&API_KEY=3;Signature=4&v#frag",
            "https://host/a?token=***&id=2&API_KEY=***&Signature=***&v",
        ),
        ("https://host/a?0123456789abcdef", "https://host/a?***"),
        ("https://host/a?%74oken=1", "https://host/a?%74oken=***"),
        ("https://host/a?download=true&dl=1&token=", "https://host/a?download=true&dl=1&token="),
        ("sftp://u:p@host/a", "sftp://***@host/a"),
    ],
)
def test_what_is_shown(source: str, shown: str) -> None:
    assert redacted(source) == shown


def test_the_key_is_of_the_file_and_not_of_the_login() -> None:
    one = parse(f"https://u:hunter2@host/a{QUERY}")
    assert one.key == parse("https://host/a?id=7&token=tok3n&x-amz-signature=another&%73ig=s1gnature").key
    assert one.key != parse("https://host/a?id=8&token=tok3n").key
    assert one.key != parse("https://host/a?id=7&token=other").key  # it may say which file is meant


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("signature=a", "signature=b", False),
        ("sig=a", "sig=b", False),
        ("policy=a", "policy=b", False),
        ("expires=1", "expires=2", False),
        ("x-amz-file=a", "x-amz-file=b", False),
        ("Signature=a&Expires=1&AWSAccessKeyId=k", "Expires=2&AWSAccessKeyId=l&Signature=b", True),
        ("AWSAccessKeyId=k&policy=a", "AWSAccessKeyId=k&policy=b", False),
        ("Policy=a&Signature=b&Key-Pair-Id=c", "Policy=d&Signature=e&Key-Pair-Id=f", True),
        ("Key-Pair-Id=c&id=1", "Key-Pair-Id=c&id=2", False),
        ("X-Goog-Signature=a&X-Goog-Date=1", "X-Goog-Signature=b&X-Goog-Date=2", True),
        ("GoogleAccessId=a&Expires=1&Signature=c", "GoogleAccessId=a&Expires=2&Signature=d", True),
    ],
)
def test_what_in_a_query_names_no_file(one: str, other: str, same: bool) -> None:
    assert (parse(f"https://host/a?{one}").key == parse(f"https://host/a?{other}").key) == same


def invoke(*arguments: str) -> Tuple[int, str]:
    result = command_runner().invoke(main, list(arguments))
    text = result.output + result.stderr + repr(result.exception)
    return result.exit_code, text


def bad(asked: Asked) -> None:
    asked.send(200, b"x", Content_Length="abc")


@pytest.mark.parametrize(
    "answers",
    [
        [status(404)],
        [status(503, Retry_After="999")],
        [status(200, b"<html>")],
        [bad],
        [status(302, Location=f"/b{QUERY}")],
        [status(302, Location=f"http://u:hunter2@[::1/b{QUERY}")],
        [status(302, Location=f"ftp://u:hunter2@host/b{QUERY}")],
        [status(302, Location=f"http://u:hunter2@127.0.0.1:1/b{QUERY}")],
        [file(CONTENT), status(500)],
        [file(CONTENT)],
    ],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.usefixtures("no_waiting")
def test_secrets_stay(server: FileServer, tmp_path: Path, answers: List[Any], debug: List[str]) -> None:
    server.says("/a.pkl", *answers)
    url = server.url(f"/a.pkl{QUERY}#fr4gment", login="user:hunter2@")
    printed = "".join(invoke("info", url, *debug)[1] for _ in range(2))
    printed += (
        invoke("compare", url, url, *debug)[1] + invoke("cache", "list")[1] + invoke("cache", "list", "--json")[1]
    )
    for path in (tmp_path / "cache").rglob("*"):
        printed += path.name + (path.read_text() if path.suffix == ".json" else "")
    assert "a.pkl" in printed
    assert [secret for secret in SECRETS if secret in printed] == []
    _, headers = server.asked[0]
    assert headers["Authorization"] == f"Basic {base64.b64encode(b'user:hunter2').decode()}"


def test_tables_show_no_secrets(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.says("/a.pkl", file(pickle.dumps({"G_ema": trained_generator()})))
    url, figures = server.url(f"/a.pkl{QUERY}", login="user:hunter2@"), tmp_path / "figures.json"
    how = ["--trust", "--samples", "2", "--device", "cpu"]
    code, printed = invoke("compare", url, url, *how, "--json", str(figures), "--grid", str(tmp_path / "grid.png"))
    assert code == 0, printed
    printed += figures.read_text()
    module = sys.modules["squeeze_patch.cli.report"]  # by its name, the package has the command
    monkeypatch.setattr(module, "measure", lambda *_, **__: SimpleNamespace(to_dict=dict))
    code, more = invoke("report", url, "--against", url, "--trust", "--device", "cpu", "--json")
    assert code == 2  # both are dense
    code, more = invoke("report", url, "--trust", "--device", "cpu", "--json")
    assert code == 0, more
    printed += more + invoke("convert", url, str(tmp_path / "out.pkl"), "--trust", "--init", "weights", "--json")[1]
    assert "/a.pkl?id=7&token=***" in printed
    assert [secret for secret in SECRETS if secret in printed] == []


def test_a_login_goes_to_its_own_server_only(server: FileServer) -> None:
    with file_server() as other:
        server.says("/there.pkl", status(302, Location=other.says("/a.pkl", file(CONTENT))))
        server.says("/here.pkl", status(302, Location="/a.pkl"))
        server.says("/a.pkl", file(CONTENT))
        for name in ("/there.pkl", "/here.pkl"):
            fetch(server.url(name, login="user:p%40ss@"))
        assert "Authorization" not in other.asked[0][1]
    sent = [headers.get("Authorization") for _, headers in server.asked]
    assert sent == [f"Basic {base64.b64encode(b'user:p@ss').decode()}"] * 3


def test_where_redirections_lead(server: FileServer) -> None:
    start = parse("https://user:pw@host/a?x=1")
    assert start.follow("b c?y=2").url == "https://host/b%20c?y=2"
    assert start.follow("//other/b").login is None
    assert start.follow("https://host/b").login == ("user", "pw")
    assert start.follow("https://host:444/b").login is None
    assert start.follow("https://me:mine@other/b").login == ("me", "mine")
    assert parse("http://user:pw@host/a").follow("https://host/a").login == ("user", "pw")
    assert parse("http://user:pw@host:81/a").follow("https://host/a").login is None
    with pytest.raises(squeeze_patch.CheckpointError, match="from https to http://host/a"):
        start.follow("http://host/a")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(301), "does not say where"),
        (status(302, Location="/a.pkl"), "in a circle"),
        (status(302, Location="file:/etc/passwd"), "redirects to file:/etc/passwd, which is not followed"),
        (status(302, Location="file:///etc/passwd"), "which is not followed"),
        (status(307, Location="ftp://host/a.pkl"), "which is not followed"),
        (status(308, Location="javascript:alert(1)"), "which is not followed"),
        (status(302, Location="http://[::1/a"), "to a malformed address"),
        (status(302, Location="http://a:99999/a"), "to a malformed address"),
        (status(302, Location=""), "does not say where"),
        (status(300), "300 Multiple Choices and sends no file"),
        (status(200, CONTENT, Content_Length="abc"), "Content-Length: abc, which is no size"),
        (status(200, CONTENT, Content_Length="-1"), "Content-Length: -1, which is no size"),
        (status(200, CONTENT, Content_Length="4, 5"), "Content-Length: 4, 5, which is no size|malformed"),
        (status(200, CONTENT, Content_Length="9" * 30), "which is no size"),
        (status(200, CONTENT, Content_Length="9" * 15), "larger than"),
        (status(206, CONTENT, Content_Range="nonsense"), "not asked for"),
    ],
)
def test_malformed_answers(server: FileServer, tmp_path: Path, answer: Any, message: str) -> None:
    with pytest.raises(squeeze_patch.CheckpointError, match=message):
        fetch(server.says("/a.pkl", answer))
    assert list((tmp_path / "cache").glob("*.*")) == []


@pytest.mark.parametrize("etag", ['"a"\r\n b', "a", '"a\x01"', '"' + "a" * 600 + '"', ""])
def test_malformed_etags_are_not_sent_back(server: FileServer, etag: str) -> None:
    url = server.says("/a.pkl", file(CONTENT, etag, Last_Modified="yesterday", Retry_After="x"))
    assert fetch(url) == fetch(url)
    assert {"If-None-Match", "If-Modified-Since"} & set(server.asked[-1][1]) == set()


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("https://huggingface.co/a/b/blob/main/n.pkl", "https://huggingface.co/a/b/resolve/main/n.pkl"),
        ("https://github.com/a/b/blob/main/n.pkl?token=1", "https://github.com/a/b/raw/main/n.pkl?token=***"),
        ("https://www.dropbox.com/s/x/n.pkl?dl=0", "https://www.dropbox.com/s/x/n.pkl?dl=1"),
        (
            "https://drive.google.com/file/d/1A-b/view",
            "https://drive.usercontent.google.com/download?id=1A-b&export=download&confirm=t",
        ),
        (
            "https://drive.google.com/uc?id=1A-b",
            "https://drive.usercontent.google.com/download?id=1A-b&export=download&confirm=t",
        ),
        ("https://huggingface.co/a/b/resolve/main/n.pkl", None),
        ("https://host/blob/n.pkl", None),
    ],
)
def test_pages_of_known_sites(page: str, address: Any) -> None:
    assert file_address(parse(page)) == address
