"""Receiving a file over several tries: what has come is kept, and continued where the server vouches that it is of the
same file."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple

import requests
import urllib3.exceptions

from squeeze_patch.checkpoints.addresses import Address
from squeeze_patch.checkpoints.cache import CachedFile, CacheRecord, CacheSlot
from squeeze_patch.checkpoints.file_kinds import ends_early
from squeeze_patch.checkpoints.transport import (
    BROKEN_OFF,
    Interruption,
    PlainSession,
    Validators,
    ask,
    content_length,
    content_range,
    failure,
    is_encoded,
    lasting_validators,
    refuse,
    strong_validator,
    validators,
)
from squeeze_patch.checkpoints.watchdog import Watchdog
from squeeze_patch.errors import CheckpointError

#: called with (bytes so far, bytes in all or 0 where unknown)
ByteProgress = Callable[[int, int], None]

CHUNK = 1 << 20
#: bytes that are waited for where urllib3 (1.26) cannot say what has come by now
PIECE = 1 << 10


@dataclass(frozen=True)
class Limits:
    """When a download is given up.

    Attributes:
        connect, read: seconds without a sign of the server; its headers have `connect` and `window`.
        total: seconds of the whole download.
        rate, window: fewer bytes a second than ``rate`` over ``window`` seconds.
        size: bytes of the file.
        tries: how often, unless `CHUNK` bytes and more came since the last failure.
        backoff: seconds to the second try, doubled each time, give or take a half.
        wait: seconds between two tries, also where the server asks for more.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 12 * 3600.0
    rate: float = 1000.0
    window: float = 60.0
    size: int = 8 << 30
    tries: int = 5
    backoff: float = 0.5
    wait: float = 120.0

    @property
    def timeout(self) -> Tuple[float, float]:
        return self.connect, self.read


@dataclass(frozen=True)
class Clock:
    """Time and chance, for tests to set."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


LIMITS, CLOCK = Limits(), Clock()


class ProgressFailed(Exception):
    """The caller's progress callback raised an OSError (its pipe is closed, say), which is none of the download's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _StartAnew(Exception):
    """The server does not go on with what is there."""


class FileReceiver:
    """One download of an address into its part in the cache.

    Args:
        kept: the whole file of an earlier download; the server is asked whether it has changed.
    """

    def __init__(
        self,
        address: Address,
        slot: CacheSlot,
        kept: Optional[CachedFile],
        progress: Optional[ByteProgress],
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.address, self.slot, self.kept = address, slot, kept
        self.progress, self.limits, self.clock = progress, limits, clock
        self.started = clock.now()
        self.until = time.monotonic() + limits.total
        self.watchdog = Watchdog()
        self.parts = True  # whether the server is asked to go on with a part
        self.conditions = True  # whether it is asked for a changed file only
        self.written = 0  # bytes of this run
        self.validators = Validators()
        self.continues = False  # whether the server says that it can send a part

    def run(self) -> bool:
        """Fill the part, over several tries; False where the file that is kept is the server's.

        Raises:
            Interruption: it cannot be had now. What came is kept where it can be continued.
            CheckpointError: it cannot be had at all.
        """
        tries = 0
        with PlainSession(self.watchdog) as session:
            while True:
                before = self.written
                try:
                    return self._try(session)
                except _StartAnew:
                    self.parts = False
                    self.slot.discard()
                except Interruption as error:
                    tries = 0 if self.written - before >= CHUNK else tries + 1
                    self._wait(error, tries)

    def _wait(self, error: Interruption, tries: int) -> None:
        """Until the next try; raises where there is none."""
        limits = self.limits
        idle = self.kept is not None and self.written == 0  # no need to insist: there is a copy
        if not error.again or idle or tries >= limits.tries:
            raise error
        pause = min(limits.backoff * 2 ** max(tries - 1, 0), limits.wait) * (0.5 + self.clock.chance())
        if error.wait is not None and error.wait > limits.wait:
            raise Interruption(f"{error} and asks to wait for {error.wait:.0f} seconds", again=False)
        pause = max(pause, error.wait or 0.0)
        if self.clock.now() + pause - self.started > limits.total:
            raise error
        self.clock.sleep(pause)

    def _try(self, session: PlainSession) -> bool:
        part = self.slot.unfinished() if self.parts else None
        headers: Dict[str, str] = {}
        if self.kept is not None and self.conditions:
            headers = dict(self.kept.record.validators.conditions)
        if part is not None:
            headers["Range"] = f"bytes={part.bytes}-"
            headers["If-Range"] = part.record.etag or part.record.last_modified
        longest = min(self.limits.connect + self.limits.window, self.until - time.monotonic())
        answer = ask(session, self.address, headers, self.limits.timeout, longest)
        with answer:
            if answer.status_code == 416 and part is not None:
                raise _StartAnew
            refuse(answer, self.address)
            if self._unchanged(answer, conditional=bool({"If-None-Match", "If-Modified-Since"} & set(headers))):
                return False
            with self.watchdog.at_most(self.until - time.monotonic()):
                self._receive(answer, part)
            return True

    def _unchanged(self, answer: requests.Response, conditional: bool) -> bool:
        """Whether the file that is kept is the server's. A server that gives nothing to ask by sends the file anew: by
        its size, two states cannot be told apart."""
        if answer.status_code != 304:
            return False
        if self.kept is None or not conditional:
            raise self._error("the server says that the file has not changed, which it was not asked")
        if not self.kept.record.validators.agree(validators(answer.headers)):
            self.conditions = False  # put there with an older date, for example, which is not "modified since"
            raise _StartAnew
        return True

    def _receive(self, answer: requests.Response, part: Optional[CachedFile]) -> None:
        """The body, behind the part where the server goes on with it."""
        length, encoded = content_length(answer.headers, self.address), is_encoded(answer.headers)
        self.continues = answer.status_code == 206 or answer.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        offset, total = 0, None if encoded else length
        if answer.status_code == 206:
            if part is None:
                raise self._error("the server sends a part of the file that was not asked for")
            offset, total = self._continued(answer, part, encoded)
        else:
            strong = "" if encoded else strong_validator(answer.headers)
            by = (strong, "") if strong.startswith('"') else ("", strong)
            self.slot.begin(CacheRecord(self.address.shown, *by, size=total or 0))
            self.validators = lasting_validators(answer.headers)
        self._check_size(total or 0)
        free = shutil.disk_usage(self.slot.folder).free
        if total is not None and total - offset > free:
            raise OSError(0, f"the file needs {total - offset:,} bytes, {free:,} are free")
        done = self._copy(answer, offset, total)
        short = answer.raw.tell() < length if length is not None else total is None and ends_early(self.slot.part)
        if short or (total is not None and done < total):
            raise Interruption(BROKEN_OFF)
        if total is not None and done > total:
            raise _StartAnew

    def _continued(self, answer: requests.Response, part: CachedFile, encoded: bool) -> Tuple[int, Optional[int]]:
        """(first byte, bytes in all) of an answer that goes on with the part; raises where it is of something else."""
        span, found, record = content_range(answer.headers), validators(answer.headers), part.record
        offset, size = part.bytes, record.size
        if span is None or encoded or span[0] != offset or (size and span[1] not in (None, size)):
            raise _StartAnew
        by = (found.etag, record.etag) if record.etag else (found.last_modified, record.last_modified)
        if by[0] != by[1]:  # also where it does not say: some servers know Range, and not If-Range
            raise _StartAnew
        self.validators = lasting_validators(answer.headers)
        return offset, span[1] or size or None

    def _copy(self, answer: requests.Response, done: int, total: Optional[int]) -> int:
        # whatever has come, at once: waiting for a whole chunk, a drip would pass as a download
        read, most = getattr(answer.raw, "read1", None), CHUNK
        if read is None:  # of what is packed, a piece may be nothing yet, which is how the end looks, too
            read, most = answer.raw.read, CHUNK if answer.headers.get("Content-Encoding") else PIECE
        since, at = self.clock.now(), done
        self._tell(done, total)
        with self.slot.open_part() as stream:
            stream.seek(done)
            stream.truncate()
            while True:
                try:
                    chunk = read(most, decode_content=True)
                except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                    self._check_time()
                    raise failure(error, self.address, self.limits.timeout) from None
                if not chunk:
                    self._check_time()
                    stream.flush()
                    os.fsync(stream.fileno())  # before it becomes the file
                    return done
                stream.write(chunk)
                done += len(chunk)
                self.written += len(chunk)
                self._check_size(done)
                self._tell(done, total)
                now = self.clock.now()
                self._check_time(now)
                if now - since >= self.limits.window:
                    if done - at < self.limits.rate * (now - since):
                        raise Interruption(f"fewer than {self.limits.rate:g} bytes a second come", again=False)
                    since, at = now, done

    def _check_time(self, now: Optional[float] = None) -> None:
        if self.watchdog.late or (now is not None and now - self.started > self.limits.total):
            raise Interruption(f"it takes longer than {self.limits.total / 3600:.1f} hours", again=False)

    def _tell(self, done: int, total: Optional[int]) -> None:
        if self.progress is not None:
            try:
                self.progress(done, total or 0)
            except OSError as error:
                raise ProgressFailed(error) from error

    def _check_size(self, size: int) -> None:
        if size > self.limits.size:
            raise self._error(
                f"it is larger than {self.limits.size / 1e9:.1f} GB, more than any checkpoint that is known; if it is "
                "one, download it by other means and name the file"
            )

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"cannot download {self.address.shown}: {what}")
