"""Files: written whole or not at all, read from a path or a URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, Callable, Iterator, Optional
from urllib.parse import urlparse

from squeeze_patch.errors import CheckpointError

#: called with (bytes so far, bytes in all or 0 where unknown)
ByteProgress = Callable[[int, int], None]

CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at ``path`` only when the block ends without an error.

    It is written beside the target, flushed to the disk and renamed; an interruption leaves the target as it was.
    """
    path = Path(os.path.realpath(path))  # behind a link, the file it points to is replaced
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, _mode_for(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _mode_for(path: Path) -> int:
    """Permissions of the file that is replaced, or those of any new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def is_url(source: str) -> bool:
    return urlparse(source).scheme in ("http", "https")


def cache_dir() -> Path:
    """``$SQUEEZE_CACHE``, or squeeze_patch in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SQUEEZE_CACHE") or Path(base) / "squeeze_patch")


def fetch(url: str, progress: Optional[ByteProgress] = None) -> Path:
    """Download a file once; later calls return the cached copy.

    Raises:
        CheckpointError: the address cannot be read.
    """
    import requests

    name = Path(urlparse(url).path).name or "download"
    target = cache_dir() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with requests.get(url, stream=True, timeout=30, headers={"Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise CheckpointError(f"{url} is a web page, not a file; use the address of the download itself")
            total = int(answer.headers.get("Content-Length", 0))
            done = 0
            with atomic_write(target) as stream:
                for chunk in answer.iter_content(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
                if total and done != total and "Content-Encoding" not in answer.headers:
                    raise CheckpointError(f"{url} broke off after {done:,} of {total:,} bytes; try again")
    except requests.RequestException as error:
        raise CheckpointError(f"cannot download {url}: {error}") from error
    return target
