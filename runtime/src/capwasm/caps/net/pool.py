"""Connections kept for the next request of the same plugin, grant, origin and address (NET-28)."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import h11

from capwasm.handles import Lease

from .url import Address
from .wire import PinnedStream

__all__ = ["Connection", "Pool"]

MAX_HEAD: Final = 64 * 1024  # bytes of the head of a response (NET-23)
MAX_IDLE: Final = 8
IDLE_SECONDS: Final = 15.0


@dataclass(slots=True, eq=False)
class Connection:
    """An HTTP/1.1 connection over a pinned stream, and the grant under which it was made.

    Attributes:
        http: what was said on it so far.
        idle_since: `time.monotonic()` at which it was last given back.
    """

    stream: PinnedStream
    lease: Lease
    origin: str
    http: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    )
    idle_since: float = 0.0

    def rest(self) -> bool:
        """Make it ready for another request; says whether it can serve one.

        What was sent after the end of an answer would be taken for the beginning of the next one,
        so nobody may have sent a thing that was not asked for.
        """
        if self.stream.closed:
            return False
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
            return False
        if self.http.trailing_data[0]:
            return False
        self.http.start_next_cycle()
        self.idle_since = time.monotonic()
        return True

    def expired(self) -> bool:
        """Whether it was idle for too long, or the other end has said something since."""
        return time.monotonic() > self.idle_since + IDLE_SECONDS or self.stream.has_news()

    def close(self) -> None:
        """Close it, at once."""
        self.stream.close()


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
            connection.close()
        return found

    def give(self, connection: Connection) -> None:
        """Keep the connection if it can be used again; else close it."""
        with self._lock:
            if connection.lease.alive and not self._closed and connection.rest():
                self._idle.append(connection)
            else:
                connection.close()
            self._idle, doomed = self._sorted_out()
            doomed += self._idle[:-MAX_IDLE]
            self._idle = self._idle[-MAX_IDLE:]
        for other in doomed:
            other.close()

    def close(self) -> None:
        """Close all, and keep none from now on."""
        with self._lock:
            self._closed = True
            doomed, self._idle = self._idle, []
        for connection in doomed:
            connection.close()

    def _sorted_out(self) -> tuple[list[Connection], list[Connection]]:
        keep: list[Connection] = []
        doomed: list[Connection] = []
        for connection in self._idle:
            good = connection.lease.alive and not connection.expired()
            (keep if good else doomed).append(connection)
        return keep, doomed
