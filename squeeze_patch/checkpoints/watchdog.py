"""Connections that are ended at a set time, whatever is being waited for.

A timeout of a socket begins anew with every byte: a server that sends its headers, or the sizes of its chunks, byte by
byte holds a client for as long as it likes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Iterator, Optional

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Watchdog:
    """Of one connection at a time, the latest.

    Attributes:
        late: whether a connection was ended.
    """

    def __init__(self) -> None:
        self.late = False
        self._socket: Optional[socket.socket] = None

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """End the connection where the block takes longer: it is read as if the server had broken off."""
        timer = threading.Timer(max(seconds, 0.0), self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def watch(self, connection: Optional[socket.socket]) -> None:
        self._socket = connection
        if self.late:
            self._end()

    def _end(self) -> None:
        self.late = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # not TLS's own, which another thread must not call while this one reads
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def guard(self, session: requests.Session) -> None:
        """Watch every connection that a session makes."""
        for scheme in ("http://", "https://"):
            session.mount(scheme, _WatchedAdapter(self))


class _WatchedAdapter(HTTPAdapter):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._pools = {
            "http": _watched(HTTPConnectionPool, watchdog),
            "https": _watched(HTTPSConnectionPool, watchdog),
        }
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager: Any = super().proxy_manager_for(*args, **options)
        if not args or not str(args[0]).lower().startswith("socks"):  # those have classes of their own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _watched(pool: Any, watchdog: Watchdog) -> Any:
    """A class of connection pools whose connections are watched."""
    plain: Any = pool.ConnectionCls

    class Watched(plain):  # type: ignore[misc]
        def connect(self: HTTPConnection) -> None:
            plain.connect(self)
            watchdog.watch(self.sock)

    return type(pool.__name__, (pool,), {"ConnectionCls": Watched})
