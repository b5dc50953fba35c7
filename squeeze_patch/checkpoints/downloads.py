"""Checkpoint files behind an address: downloaded once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Callable, Optional
from urllib.parse import urlparse

import requests

from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.errors import CheckpointError

#: called with (bytes so far, bytes in all or 0 where unknown)
ByteProgress = Callable[[int, int], None]

CHUNK = 1 << 20


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
