"""Addresses of files: what is one, what of it may be shown, and what its file is called on the disk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Optional, Tuple
from urllib.parse import parse_qs, unquote, urljoin, urlsplit, urlunsplit

from requests.utils import requote_uri

from squeeze_patch.errors import CheckpointError

HIDDEN = "***"
SCHEMES = {"http": 80, "https": 443}
#: of two letters or more, since C:// is a folder
_ADDRESS = re.compile(r"https?:|[a-z][a-z0-9+.-]+://", flags=re.IGNORECASE)
#: names of query parameters whose values give access; rather one too many
_SECRET = re.compile(
    "tok|key|sig|secret|pass|pwd|auth|cred|jwt|sess|hmac|policy|code|ticket|access|bearer|nonce|x-amz-|x-goog-",
    flags=re.IGNORECASE,
)
#: those that never say which file is meant, by a name that every query with them has: another day's signature of the
#: same file finds the copy of this one. A lone "signature" or "policy" may be the name of a file.
_SIGNATURES = {
    "x-amz-signature": r"x-amz-.*",
    "x-goog-signature": r"x-goog-.*",
    "awsaccesskeyid": r"awsaccesskeyid|signature|expires",
    "googleaccessid": r"googleaccessid|signature|expires",
    "key-pair-id": r"key-pair-id|signature|expires|policy",
}
_PASSWORD = r"passw(or)?d|pwd"
#: a value without a name is shown up to this length (?raw, ?download)
_SHORT = 12
#: login, a name or a number in brackets, and port
_PLACE = re.compile(
    r"([^\\]*@)?((?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*\.?|\[[0-9a-f:.]+(%[\w.~-]+)?\])(:[0-9]*)?",
    flags=re.IGNORECASE,
)
#: names that Windows keeps for devices, whatever their suffix
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", flags=re.IGNORECASE)
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Address:
    """A well-formed http or https address.

    Attributes:
        url: without user name, password and fragment.
        login: (user name, password) where the address has them.
        shown: the address without anything that gives access, to be printed and stored.
    """

    url: str
    login: Optional[Tuple[str, str]]
    shown: str

    @property
    def origin(self) -> Tuple[str, str, int]:
        parts = urlsplit(self.url)
        return parts.scheme, parts.hostname or "", parts.port or SCHEMES[parts.scheme]

    @property
    def key(self) -> str:
        """16 hexadecimal digits that stand for the file in the cache. No login and no password is in what is hashed:
        a short one could be found by trying."""
        parts = urlsplit(self.url)
        given = _parameters(parts.query)
        names = {_name(part).lower() for part in given}
        aside = "|".join([_PASSWORD, *(pattern for name, pattern in _SIGNATURES.items() if name in names)])
        query = [part for part in given if not re.fullmatch(aside, _name(part).lower())]
        scheme, host, port = self.origin
        text = urlunsplit((scheme, f"{host}:{port}", parts.path or "/", "&".join(query), ""))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The file's name, fit for every file system."""
        name = unquote(urlsplit(self.url).path.rpartition("/")[2])
        name = re.sub(r"[^A-Za-z0-9._+=@-]+", "_", name).lstrip(".").rstrip(".") or "download"
        name = f"_{name}" if _DEVICE.match(name) else name
        stem, dot, suffix = name.rpartition(".")
        if len(name) > _LONGEST_NAME and stem and len(suffix) < 10:
            return f"{stem[: _LONGEST_NAME - len(suffix) - 1]}{dot}{suffix}"
        return name[:_LONGEST_NAME]

    def follow(self, location: str) -> Address:
        """Where a redirection leads. A login goes along to the same server only.

        Raises:
            CheckpointError: it leads to no http(s) address, or from https to http.
        """
        try:
            url = urljoin(self.url, requote_uri(location))
        except ValueError:
            url = location
        scheme = url.partition(":")[0].lower()
        if scheme not in SCHEMES:
            raise CheckpointError(
                f"{self.shown}: the server redirects to {redacted(url)}, which is not followed: only http and https are"
            )
        if self.url.startswith("https:") and scheme == "http":
            raise CheckpointError(
                f"{self.shown}: the server redirects from https to {redacted(url)}, where anyone on the way could "
                "change the file; name that address yourself if you trust the way to it"
            )
        try:
            target = parse(url)
        except CheckpointError as error:
            raise CheckpointError(f"{self.shown}: the server redirects to a malformed address ({error})") from None
        scheme, host, port = self.origin
        same = {self.origin, ("https", host, 443)} if (scheme, port) == ("http", 80) else {self.origin}
        return Address(target.url, target.login or (self.login if target.origin in same else None), target.shown)


def is_url(source: str) -> bool:
    """Whether this is an address rather than a path; `parse` says whether it is one that can be read."""
    return _ADDRESS.match(source) is not None


def parse(text: str) -> Address:
    """An address, checked.

    Raises:
        CheckpointError: it is malformed, or neither http nor https.
    """
    shown, scheme = redacted(text), text.partition(":")[0].lower()
    if scheme not in SCHEMES:
        cure = "give the path itself" if scheme == "file" else "fetch it with the tool of that store, and give the path"
        raise CheckpointError(f"{shown}: only http:// and https:// addresses are read; {cure}")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise CheckpointError(f"{shown}: an address has no spaces and line ends; write %20 for a space")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit("http:"), "", None
    if not _PLACE.fullmatch(parts.netloc) or not host or port == 0:
        raise CheckpointError(
            f"{shown}: this is no address of a file: it wants https://host/path, or :port behind host"
        )
    login = None
    if "@" in parts.netloc:
        login = unquote(parts.username or ""), unquote(parts.password or "")
    place = f"[{host}]" if ":" in host else host
    netloc = place if port in (None, SCHEMES[scheme]) else f"{place}:{port}"
    return Address(urlunsplit((scheme, netloc, parts.path, parts.query, "")), login, shown)


def redacted(source: str) -> str:
    """A path as it is; of an address, also of a malformed one, what gives no access."""
    if not is_url(source):
        return source
    try:
        urlsplit(source).port  # noqa: B018 - raises
        login = r"[^/?#]*@"
    except ValueError:
        login = r".*@"  # the password has a slash, perhaps, or a question mark
    source = re.sub(rf"^([^:]*:/*){login}", rf"\g<1>{HIDDEN}@", source, flags=re.DOTALL)
    head, mark, query = source.partition("#")[0].partition("?")
    return head + mark + "&".join(_shown_parameter(part) for part in _parameters(query))


def _parameters(query: str) -> Tuple[str, ...]:
    return tuple(query.replace(";", "&").split("&")) if query else ()


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0])


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return name if len(name) <= _SHORT else HIDDEN
    return f"{name}={HIDDEN}" if value and _SECRET.search(unquote(name)) else parameter


def file_address(address: Address) -> Optional[str]:
    """The address of the file that a known site shows at this one as a page, if it is such a one."""
    parts = urlsplit(address.shown)
    host = (parts.hostname or "").lower()
    if host in ("huggingface.co", "hf.co") and "/blob/" in parts.path:
        return address.shown.replace("/blob/", "/resolve/", 1)
    if host == "github.com" and "/blob/" in parts.path:
        return address.shown.replace("/blob/", "/raw/", 1)
    if host == "www.dropbox.com" and "dl=0" in parts.query:
        return address.shown.replace("dl=0", "dl=1", 1)
    if host in ("drive.google.com", "docs.google.com", "drive.usercontent.google.com"):
        found = re.search(r"/file/d/([\w-]+)", parts.path)
        names = [found[1]] if found else parse_qs(parts.query).get("id", [])
        if names:
            return f"https://drive.usercontent.google.com/download?id={names[0]}&export=download&confirm=t"
    return None
