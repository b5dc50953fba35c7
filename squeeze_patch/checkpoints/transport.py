"""Asking a server for a file: redirections, what its headers say, and failures in words that show no secret."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import requests
import urllib3.exceptions
from requests.auth import AuthBase, HTTPBasicAuth

from squeeze_patch.checkpoints.addresses import Address
from squeeze_patch.checkpoints.watchdog import Watchdog
from squeeze_patch.errors import CheckpointError

REDIRECTIONS = 10
BROKEN_OFF = "the server broke off before the end of the file"
#: answers that another try may change
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_CURES = {
    401: "it wants a login: https://NAME:PASSWORD@..., or an entry in ~/.netrc",
    403: "it does not allow it; an expired link, or a file that is not public",
    404: "there is no file at this address",
    410: "the file was removed",
}
_PROXY = (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, urllib3.exceptions.ProxyError)
_MALFORMED = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.InvalidHeader,
    urllib3.exceptions.LocationValueError,
)
#: a date tells two states of a file apart where the file was not written just then (RFC 9110, 8.8.2.2)
_SETTLED = timedelta(seconds=60)


class Interruption(CheckpointError):
    """The server cannot be reached, or broke off.

    Attributes:
        again: whether another try may help.
        wait: seconds that the server asks to wait for.
    """

    def __init__(self, message: str, again: bool = True, wait: Optional[float] = None) -> None:
        super().__init__(message)
        self.again, self.wait = again, wait


@dataclass(frozen=True)
class Validators:
    """By what a server tells two states of a file apart; "" where it says nothing that is well-formed."""

    etag: str = ""
    last_modified: str = ""

    @property
    def conditions(self) -> Dict[str, str]:
        """Headers that ask for the file only where it has changed."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}

    def agree(self, told: Validators) -> bool:
        """Whether an answer that says "not changed" is about the file of these; it may say nothing more."""
        if self.etag and told.etag:
            return _opaque(self.etag) == _opaque(told.etag)
        return told.last_modified in ("", self.last_modified)


class PlainSession(requests.Session):
    """Leaves redirections to `ask`: also where it is not to follow them, requests reads their bodies whole, however
    long."""

    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self.watchdog = watchdog
        watchdog.guard(self)

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())


def ask(
    session: PlainSession, address: Address, headers: Mapping[str, str], timeout: Tuple[float, float], longest: float
) -> requests.Response:
    """A server's answer, redirections followed, its body unread.

    Args:
        longest: seconds until the headers of an answer have to be there.

    Raises:
        Interruption: there is none, or one that may be another soon.
        CheckpointError: the server refuses, or redirects to where is not followed.
    """
    here = address
    for _ in range(REDIRECTIONS + 1):
        try:
            with session.watchdog.at_most(longest):
                answer = session.get(
                    here.url,
                    headers={"Accept-Encoding": "identity", **headers},
                    auth=_login(here),
                    timeout=timeout,
                    stream=True,
                    allow_redirects=False,
                )
            if session.watchdog.late:  # headers that were cut off look like all of them
                answer.close()
                raise OSError
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if session.watchdog.late:
                raise Interruption(f"the server has not answered after {longest:g} seconds", again=False) from None
            raise failure(error, address, timeout, here) from None  # their words have the whole address
        if answer.status_code not in (301, 302, 303, 307, 308):
            return answer
        location = session.get_redirect_target(answer)
        answer.close()
        if not location:
            raise CheckpointError(
                f"{address.shown}: the server redirects ({answer.status_code}) and does not say where"
            )
        here = here.follow(location)
    raise CheckpointError(f"{address.shown}: the server redirects in a circle, or more than {REDIRECTIONS} times")


def _login(address: Address) -> Optional[AuthBase]:
    if address.login is None:
        return None  # ~/.netrc is asked
    name, password = address.login
    return HTTPBasicAuth(name.encode(), password.encode())


def refuse(answer: requests.Response, address: Address) -> None:
    """Raise for answers that bring no file."""
    code = answer.status_code
    if code in _TRANSIENT or code >= 500:
        raise Interruption(f"the server answers {_status(code)}", wait=retry_after(answer.headers))
    if code >= 400:
        cure = _CURES.get(code, "it refuses")
        raise CheckpointError(f"cannot download {address.shown}: the server answers {_status(code)}: {cure}")
    if code not in (200, 203, 206, 304):
        raise CheckpointError(f"cannot download {address.shown}: the server answers {_status(code)} and sends no file")


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def failure(
    error: BaseException, address: Address, timeout: Tuple[float, float], here: Optional[Address] = None
) -> CheckpointError:
    """What went wrong, in words of our own: those of requests have the whole address, secrets included.

    Args:
        here: where redirections led.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CheckpointError(
                f"cannot download {address.shown}: the server's certificate is not accepted ({cause.verify_message}); "
                "REQUESTS_CA_BUNDLE names a file with a certificate authority of your own"
            )
    if any(isinstance(cause, _PROXY) for cause in causes):
        return Interruption("the proxy that the environment names (https_proxy) cannot be used")
    if isinstance(error, (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError)):
        return CheckpointError(f"cannot download {address.shown}: what the server sends cannot be decompressed")
    if isinstance(error, _MALFORMED) or (isinstance(error, ValueError) and not isinstance(error, OSError)):
        return CheckpointError(f"cannot download {address.shown}: the address, or a header of the answer, is malformed")
    if any(isinstance(cause, (urllib3.exceptions.TimeoutError, socket.timeout)) for cause in causes) and not any(
        isinstance(cause, urllib3.exceptions.NewConnectionError)
        for cause in causes  # a timeout by its class alone
    ):
        connecting = any(isinstance(cause, urllib3.exceptions.ConnectTimeoutError) for cause in causes)
        return Interruption(f"the server says nothing for {timeout[0 if connecting else 1]:g} seconds")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Interruption(f"the name of its server, {(here or address).origin[1]}, is not found")
    if any(isinstance(cause, http.client.IncompleteRead) for cause in causes):  # that of urllib3 is one, too
        return Interruption(BROKEN_OFF)
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return Interruption(f"the connection failed ({reasons[-1] if reasons else 'it broke off'})")


def _causes(error: Optional[BaseException]) -> Iterator[BaseException]:
    """An exception and what it wraps, in whatever way it does."""
    todo, seen = [error], set()
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__context__, one.__cause__, getattr(one, "reason", None), *one.args]


def content_length(headers: Mapping[str, str], address: Address) -> Optional[int]:
    """The bytes of the body on their way, where they are known."""
    text = headers.get("Content-Length")
    if text is None or "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    values = [value.strip() for value in text.split(",")]
    if len(set(values)) != 1 or not re.fullmatch("[0-9]{1,18}", values[0]):
        raise CheckpointError(
            f"cannot download {address.shown}: the server says Content-Length: {text[:40]}, which is no size"
        )
    return int(values[0])


def content_range(headers: Mapping[str, str]) -> Optional[Tuple[int, Optional[int]]]:
    """(first byte, bytes of the whole file if they are known), or None where the header is none."""
    found = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", headers.get("Content-Range", "").strip()
    )
    if found is None:
        return None
    first, last, total = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
    return (first, total) if first <= last and (total is None or last == total - 1) else None


def is_encoded(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def validators(headers: Mapping[str, str]) -> Validators:
    etag, date = headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip()
    return Validators(
        etag if re.fullmatch(r'(W/)?"[\x21\x23-\x7e]{0,500}"', etag) else "",
        date if len(date) < 60 and date.isascii() and _date(date) else "",
    )


def lasting_validators(headers: Mapping[str, str]) -> Validators:
    """Those by which a file can be asked about later: a date alone is none where the file was written just then and may
    be written once more within the same second."""
    found = validators(headers)
    return found if found.etag or _settled(headers) else Validators()


def strong_validator(headers: Mapping[str, str]) -> str:
    """What If-Range can be asked with: an ETag that is not weak, or a date some time before the answer's."""
    found = validators(headers)
    if found.etag.startswith('"'):
        return found.etag
    return found.last_modified if _settled(headers) else ""


def _settled(headers: Mapping[str, str]) -> bool:
    modified, now = _date(headers.get("Last-Modified", "").strip()), _date(headers.get("Date", ""))
    return modified is not None and now is not None and now - modified >= _SETTLED


def _opaque(etag: str) -> str:
    return etag[2:] if etag.startswith("W/") else etag


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    moment = _date(text)
    return max((moment - datetime.now(timezone.utc)).total_seconds(), 0.0) if moment else None


def _date(text: str) -> Optional[datetime]:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
