"""Connections kept for the next request of the same plugin, grant, origin and address (NET-28)."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpcore

from capwasm.handles import Lease

from .refusal import refusal
from .url import Address, Url, host_text
from .wire import PinnedStream

__all__ = ["Connection", "Pool", "protocol_errors"]

MAX_IDLE: Final = 8
IDLE_SECONDS: Final = 15.0


class _Http(httpcore.HTTP11Connection):
    """httpcore's connection with a smaller bound on the head of a response (NET-23)."""

    MAX_INCOMPLETE_EVENT_SIZE = 64 * 1024


@dataclass(slots=True, eq=False)
class Connection:
    """An HTTP/1.1 connection over a pinned stream, and the grant under which it was made."""

    http: httpcore.HTTP11Connection
    stream: PinnedStream
    lease: Lease
    origin: str

    @classmethod
    def over(cls, stream: PinnedStream, url: Url, lease: Lease) -> Connection:
        """Speak HTTP over a fresh stream."""
        where = httpcore.Origin(url.scheme.encode(), host_text(url.host).encode(), url.port)
        http = _Http(origin=where, stream=stream, keepalive_expiry=IDLE_SECONDS)
        return cls(http, stream, lease, url.origin)

    def is_clean(self) -> bool:
        """Whether it may serve another request: idle, and nothing was sent that nobody asked for.

        httpcore would take what came in the same piece as the end of one answer for the beginning
        of the next, so its parser's rest is looked at; where that can't be, nothing is kept.
        """
        parser = getattr(self.http, "_h11_state", None)
        return self.http.is_idle() and parser is not None and parser.trailing_data[0] == b""


class Pool:
    """The idle connections of one instance.  Nothing is ever shared between two."""

    def __init__(self) -> None:
        """Begin empty."""
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, lease: Lease, origin: str, addresses: Collection[Address]) -> Connection | None:
        """An idle connection to one of the addresses just checked, under the same grant."""
        with self._lock:
            keep, doomed = self._sorted_out()
            found = next(
                (
                    c
                    for c in reversed(keep)
                    if c.lease is lease and c.origin == origin and c.stream.address in addresses
                ),
                None,
            )
            self._idle = [c for c in keep if c is not found]
        for connection in doomed:
            connection.http.close()
        return found

    def give(self, connection: Connection) -> None:
        """Keep the connection if it can be used again; else close it."""
        with self._lock:
            if connection.is_clean() and connection.lease.alive and not self._closed:
                self._idle.append(connection)
            else:
                connection.http.close()
            self._idle, doomed = self._sorted_out()
            doomed += self._idle[:-MAX_IDLE]
            self._idle = self._idle[-MAX_IDLE:]
        for other in doomed:
            other.http.close()

    def close(self) -> None:
        """Close all, and keep none from now on."""
        with self._lock:
            self._closed = True
            doomed, self._idle = self._idle, []
        for connection in doomed:
            connection.http.close()

    def _sorted_out(self) -> tuple[list[Connection], list[Connection]]:
        keep: list[Connection] = []
        doomed: list[Connection] = []
        for connection in self._idle:
            good = connection.lease.alive and not connection.http.has_expired()
            (keep if good else doomed).append(connection)
        return keep, doomed


@contextmanager
def protocol_errors() -> Iterator[None]:
    """Turn what httpcore raises into refusals; its texts may hold parts of a message.

    Raises:
        CapError: `too-large` for the head of a response, `unavailable`.
    """
    try:
        yield
    except httpcore.RemoteProtocolError as exc:
        if getattr(exc.__cause__, "error_status_hint", 0) == 431:
            raise refusal("too-large", "headers", "the response's head is too large") from None
        raise refusal("unavailable", "protocol", "the answer is not HTTP/1.1") from None
    except httpcore.LocalProtocolError:
        raise refusal("invalid", "bad-header", "the request can't be put into HTTP/1.1") from None
    except (httpcore.NetworkError, httpcore.ConnectionNotAvailable):
        raise refusal("unavailable", "unreachable", "the connection broke off") from None
