"""The clock of one instance.  The only file here that asks the system for the time."""

from __future__ import annotations

import time
from typing import Final, Protocol

from capwasm.call import current_call
from capwasm.capability import Grant, OpenContext
from capwasm.errors import CallInterrupted, GuestTrap
from capwasm.events import DENIED

from .model import ClockClause, Operation

__all__ = ["ClockState", "SystemTime", "TimeSource"]

# How long a cancelled or revoked sleeper may sleep on.
SLICE_NS: Final = 20_000_000
MAX_NS: Final = 2**64 - 1


class TimeSource(Protocol):
    """Where time comes from: the system, or a record of it in replays and tests."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since any moment; never goes back."""

    def sleep_ns(self, ns: int) -> None:
        """Let about `ns` nanoseconds of `monotonic_ns` go by."""


class SystemTime:
    """The system's own clocks."""

    def wall_ns(self) -> int:
        """The real-time clock."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns()

    def sleep_ns(self, ns: int) -> None:
        """Sleep, with the interpreter free for other threads."""
        time.sleep(ns / 1e9)


class ClockState:
    """What one instance sees of time.

    The functions of a clock have no error to return, so a refusal ends the call.
    """

    __slots__ = ("_ctx", "_grant", "_last", "_source", "_start")

    def __init__(self, grant: Grant[ClockClause], ctx: OpenContext, source: TimeSource) -> None:
        """Start at zero: how long the host has been up is not the guest's business."""
        self._grant = grant
        self._ctx = ctx
        self._source = source
        self._start = source.monotonic_ns()
        self._last = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z, rounded down; 0 before that; or a date that is set.

        Raises:
            GuestTrap: `wall` is not granted.
            CallInterrupted: the grant was revoked.
        """
        finest = self._finest("wall")
        now = finest.date_ns
        if now is None:
            now = min(max(self._source.wall_ns(), 0), MAX_NS)
        return now - now % (finest.resolution_ms * 1_000_000)

    def monotonic_ns(self) -> int:
        """Nanoseconds since the instance was opened, rounded down; never goes back.

        Raises:
            GuestTrap: a rule denies clocks.
            CallInterrupted: the grant was revoked.
        """
        step = self._step("monotonic")
        now = self._source.monotonic_ns() - self._start
        # A clause revoked in between may have made the steps coarser.
        self._last = max(self._last, now - now % step)
        return self._last

    def resolution_ns(self) -> int:
        """The length of one step of both clocks.

        Raises:
            GuestTrap: a rule denies clocks.
            CallInterrupted: the grant was revoked.
        """
        return self._step("monotonic")

    def sleep(self, ns: int) -> None:
        """Wait `ns` nanoseconds, or until the host call's or the call's time runs out (RES-24).

        Raises:
            GuestTrap: `sleep` is not granted.
            CallInterrupted: the call was cancelled, or the grant revoked, before or meanwhile.
        """
        call = current_call()
        latest = time.monotonic() + call.remaining()  # of the real clock, whatever the source
        end = self._source.monotonic_ns() + ns
        while True:
            self._step("sleep")
            if call.cancelled is not None:
                raise CallInterrupted(call.cancelled, context=self._ctx.plugin)
            real = int((latest - time.monotonic()) * 1e9)
            left = min(end - self._source.monotonic_ns(), real)
            if left <= 0:
                return
            self._source.sleep_ns(min(left, SLICE_NS))

    def _step(self, operation: Operation) -> int:
        """Nanoseconds of a step, for the operation."""
        return self._finest(operation).resolution_ms * 1_000_000

    def _finest(self, operation: Operation) -> ClockClause:
        """The finest clause in force that allows the operation; one with the true date comes first."""

        def allows(clause: ClockClause) -> bool:
            return clause.allows(operation)

        if self._grant.deny.any(lambda c: c.denies(operation)) is None:
            found = [g.clause for g in self._grant.allow if g.lease.alive and allows(g.clause)]
            if found:
                wall = operation == "wall"
                return min(found, key=lambda c: (wall and c.date is not None, c.resolution_ms))
        revoked = any(allows(g.clause) for g in self._grant.allow if not g.lease.alive)
        reason = "revoked" if revoked else "not granted"
        self._ctx.record("clock", DENIED, action=operation, reason=reason)
        message = f"clock: {operation} is {reason}"
        if revoked:
            raise CallInterrupted(message, context=self._ctx.plugin)
        raise GuestTrap(message, context=self._ctx.plugin)
