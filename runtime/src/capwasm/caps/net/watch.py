"""The one place where the engine waits: never past its time, its leases or its call."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Sequence
from typing import Final

from capwasm.call import CallRecord
from capwasm.errors import CapError
from capwasm.handles import Lease

from .refusal import refusal

__all__ = ["SLICE", "Watch"]

# Seconds after which a wait looks up: how late a kill or a revocation may be noticed.
SLICE: Final = 0.02


class Watch:
    """What one operation looks at before and while it blocks.

    Attributes:
        call: the call on whose behalf it runs.
        leases: what must stay in force.
        until: `time.monotonic()` at which it must have ended.
        phase: what is waited for, as a kind of `timeout`.
    """

    __slots__ = ("call", "leases", "phase", "until")

    def __init__(
        self, call: CallRecord, leases: Sequence[Lease], until: float, phase: str = ""
    ) -> None:
        """Watch these."""
        self.call = call
        self.leases = tuple(leases)
        self.until = until
        self.phase = phase

    @classmethod
    def of(
        cls, call: CallRecord, leases: Sequence[Lease], deadline: float | None, phase: str = ""
    ) -> Watch:
        """For one operation of `call`, which may also have a deadline of its own."""
        until = time.monotonic() + call.remaining()
        return cls(call, leases, until if deadline is None else min(until, deadline), phase)

    def narrowed(self, until: float, phase: str = "") -> Watch:
        """The same with less time."""
        return Watch(self.call, self.leases, min(until, self.until), phase or self.phase)

    def check(self) -> None:
        """Pass if the operation may go on.

        Raises:
            CapError: `closed` for a revoked lease, `timeout`.
            CallInterrupted, DeadlineExceeded: the call must end.
        """
        for lease in self.leases:
            try:
                lease.check()
            except CapError as exc:
                raise refusal("closed", "revoked", exc.detail) from None
        self.call.check()
        if time.monotonic() >= self.until:
            raise refusal("timeout", "timeout", kind=self.phase)

    def wait_socket(self, fileno: int, events: int) -> None:
        """Return once one of these events of `select.poll` is there.

        Raises:
            As `check`.
        """
        poller = select.poll()
        poller.register(fileno, events)
        while True:
            self.check()
            if poller.poll(max(1.0, self._slice() * 1000)):
                return

    def wait_event(self, event: threading.Event) -> None:
        """Return once the event is set.

        Raises:
            As `check`.
        """
        while not event.wait(self._slice()):
            self.check()

    def _slice(self) -> float:
        return max(0.0, min(SLICE, self.until - time.monotonic()))
