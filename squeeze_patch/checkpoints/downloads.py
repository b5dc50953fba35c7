"""Checkpoint files behind an address: downloaded once, whole or not at all."""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from squeeze_patch.checkpoints.addresses import Address, parse
from squeeze_patch.checkpoints.cache import CachedFile, CacheRecord, CacheSlot, cache_dir
from squeeze_patch.checkpoints.checksums import check_sum, sha256_of
from squeeze_patch.checkpoints.file_kinds import check_checkpoint
from squeeze_patch.checkpoints.receiving import CLOCK, LIMITS, ByteProgress, Clock, FileReceiver, Limits, ProgressFailed
from squeeze_patch.checkpoints.transport import Interruption
from squeeze_patch.errors import CheckpointError, DownloadWarning


def fetch(
    url: str,
    progress: Optional[ByteProgress] = None,
    *,
    sha256: Optional[str] = None,
    folder: Optional[Path] = None,
    limits: Limits = LIMITS,
    clock: Clock = CLOCK,
) -> Path:
    """Download a file once; later calls ask the server whether it has changed, and return the cached copy if not, or if
    there is no server to ask.

    Args:
        progress: called with (bytes so far, bytes in all or 0 where unknown).
        sha256: of the file that is wanted, 64 hexadecimal digits. A cached copy that has it is not asked about, and is
            returned under a name of its own, by its sum: nobody's later download takes its place. (Where the cache
            cannot be written to, it is the cached copy itself.)
        folder: to download into; default the cache.
        limits, clock: when it is given up, and by what clock.

    Raises:
        CheckpointError: the address cannot be read, what is there is no checkpoint or not the wanted one, or the cache
            cannot be written to.
    """
    address = parse(url)
    slot = CacheSlot(folder or cache_dir(), address)
    kept = slot.whole()
    if sha256 is not None:
        found = _with_sum(slot, kept, sha256.lower())
        if found is not None:
            return found
    try:
        with slot.locked(limits.total):
            path = _current(address, slot, sha256, progress, limits, clock)
            whole = slot.whole()
            return path if sha256 is None or whole is None else slot.hold(whole, sha256.lower()) or path
    except ProgressFailed as failed:
        raise failed.error from None
    except OSError as error:
        cure = "free some space there, or name another folder"
        cure += " with SQUEEZE_CACHE" if folder is None else " for temporary files with TMPDIR"
        what = f"{slot.folder}: nothing can be downloaded into this folder ({error.strerror or error}); {cure}"
        if kept is None or slot.whole() is None:
            raise CheckpointError(what) from None
    return _copy_of(kept, f"it cannot be asked about: {what}", sha256)


def _with_sum(slot: CacheSlot, kept: Optional[CachedFile], sha256: str) -> Optional[Path]:
    """A copy in the cache that has this sum."""
    held = slot.held(sha256)
    if held is not None:
        return held.path
    if kept is None:
        return None
    try:
        return slot.hold(kept, sha256)
    except OSError:
        return kept.path if sha256_of(kept.path) == sha256 else None


def _current(
    address: Address,
    slot: CacheSlot,
    sha256: Optional[str],
    progress: Optional[ByteProgress],
    limits: Limits,
    clock: Clock,
) -> Path:
    """The server's file, once it is in the cache; the cached one where the server cannot be reached."""
    kept = _undamaged(slot.whole(), sha256)
    receiver = FileReceiver(address, slot, kept, progress, limits, clock)
    try:
        changed = receiver.run()
        if changed:
            return _enter(address, slot, receiver, sha256)
        slot.discard()
    except Interruption as error:
        if kept is not None:
            return _copy_of(kept, str(error), sha256)
        resumable = receiver.continues and slot.unfinished() is not None
        cure = "what has come is kept, and the same command goes on from there" if resumable else "try again"
        raise CheckpointError(f"cannot download {address.shown}: {error}; {cure}") from None
    except CheckpointError:
        slot.discard()
        raise
    finally:
        if slot.unfinished() is None:
            slot.discard()
    assert kept is not None
    return _checked(kept, sha256)


def _undamaged(kept: Optional[CachedFile], sha256: Optional[str]) -> Optional[CachedFile]:
    """A cached file is looked through where a sum is wanted; a damaged one goes."""
    if kept is None or sha256 is None or sha256_of(kept.path) == kept.record.sha256:
        return kept
    kept.remove()
    return None


def _enter(address: Address, slot: CacheSlot, receiver: FileReceiver, sha256: Optional[str]) -> Path:
    """What was received becomes the cached file, if it is what was wanted."""
    check_checkpoint(slot.part, address)
    found = sha256_of(slot.part)
    if sha256 is not None:
        check_sum(found, sha256, address.shown)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told = receiver.validators
    return slot.finish(CacheRecord(address.shown, told.etag, told.last_modified, slot.part.stat().st_size, found, now))


def _copy_of(kept: CachedFile, why: str, sha256: Optional[str]) -> Path:
    """The cached copy, of which the server could not be asked."""
    path = _checked(kept, sha256)
    warnings.warn(
        DownloadWarning(f"{kept.record.address}: {why}; the copy of {kept.record.date[:10]} in the cache is used"),
        stacklevel=4,
    )
    return path


def _checked(kept: CachedFile, sha256: Optional[str]) -> Path:
    """A cached file, if it is the wanted one. Else it stays: a mistyped sum costs no second download."""
    if sha256 is not None:
        check_sum(sha256_of(kept.path), sha256, kept.record.address)
    return kept.path
