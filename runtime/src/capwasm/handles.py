"""Handles: what a guest holds instead of power.

The guest has a small number that only its own component instance can turn into a *rep*; the rep is
looked up in the table of that instance, in a slot that is never used twice.  So a handle can't be
forged, can't be carried to another instance, and a stale one finds nothing (LIFE-06, LIFE-07).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

from .errors import CapError, HandleLimitExceeded, InternalError

__all__ = ["Handle", "HandleTable", "Lease"]


class Lease:
    """The switch behind a grant: once it is off, nothing that came from the grant works.

    One lease stands behind each granted clause of each plugin; handles keep a reference to it and
    ask it before every operation.  Turning it off needs no list of handles and no lock: the next
    question gets the answer, also within a running call.
    """

    __slots__ = ("reason",)

    def __init__(self) -> None:
        """Begin in force."""
        self.reason: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the grant is in force."""
        return self.reason is None

    def revoke(self, reason: str) -> None:
        """End it, for good.  No operation *begins* after this returns."""
        self.reason = reason

    def check(self) -> None:
        """Pass if in force.

        Raises:
            CapError: `closed`; the reason goes to the audit log only.
        """
        if self.reason is not None:
            raise CapError("closed", f"revoked: {self.reason}")


class Handle:
    """Base of every object that a guest may hold.

    Subclasses call `check()` first in each operation, and free what they hold in `release()`.
    """

    __slots__ = ("_open", "lease")

    def __init__(self, lease: Lease) -> None:
        """Open under `lease`."""
        self.lease = lease
        self._open = True

    @property
    def alive(self) -> bool:
        """Whether an operation would pass `check`."""
        return self._open and self.lease.alive

    def check(self) -> None:
        """Pass if the handle is open and its grant in force.

        Raises:
            CapError: `closed`.
        """
        if not self._open:
            raise CapError("closed", "the handle was dropped")
        self.lease.check()

    def close(self) -> None:
        """Close once; later calls do nothing."""
        if self._open:
            self._open = False
            self.release()

    def release(self) -> None:
        """Free what the handle holds.  Called once."""


HandleT = TypeVar("HandleT", bound=Handle)


class HandleTable:
    """The handles of one instance: rep to object.  Reps count up and are never used again."""

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` handles at a time."""
        self._limit = limit
        self._next = 1
        self._live: dict[int, Handle] = {}
        # Calls into one instance never overlap, but eviction may come from another thread.
        self._lock = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._live.values()))

    def add(self, handle: Handle) -> int:
        """Keep `handle`; return its rep.

        Raises:
            HandleLimitExceeded: too many at a time (the handle is closed).
            CapError: `closed`, when the instance is going away (the handle is closed).
        """
        with self._lock:
            full = len(self._live) >= self._limit or self._next >= 2**32
            if not full and not self._closed:
                rep, self._next = self._next, self._next + 1
                self._live[rep] = handle
                return rep
        handle.close()
        if full:
            raise HandleLimitExceeded(f"more than {self._limit} handles at a time")
        raise CapError("closed", "the instance is closed")

    def get(self, rep: int, kind: type[HandleT]) -> HandleT:
        """The handle of that rep, which must be of that kind.

        Raises:
            CapError: `closed`: never there, dropped, or of another kind.
        """
        handle = self._live.get(rep)
        if not isinstance(handle, kind):
            raise CapError("closed", f"no {kind.__name__} at this handle")
        return handle

    def take(self, rep: int, kind: type[HandleT]) -> HandleT:
        """Forget the handle of that rep without closing it: its owner is the host again.

        Raises:
            CapError: `closed`: never there, dropped, or of another kind.
        """
        with self._lock:
            handle = self.get(rep, kind)
            del self._live[rep]
        return handle

    def drop(self, rep: int) -> None:
        """Forget and close the handle of that rep, if there is one."""
        with self._lock:
            handle = self._live.pop(rep, None)
        if handle is not None:
            handle.close()

    def close_all(self) -> None:
        """Close every handle, newest first, and take no more.

        Raises:
            InternalError: a handle could not be closed; all the others are.
        """
        with self._lock:
            self._closed = True
        failed: Exception | None = None
        # Each is forgotten when it is closed: what an interrupt left is closed by the next who asks.
        for rep in reversed(list(self._live)):
            try:
                if (handle := self._live.get(rep)) is not None:
                    handle.close()
            except Exception as exc:  # noqa: BLE001 - the next one holds power too
                failed = failed or exc
            self._live.pop(rep, None)
        if failed is not None:
            raise InternalError(f"a handle was not closed: {type(failed).__name__}") from failed
