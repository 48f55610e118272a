"""The clock capability: `capwasm:clock/clock`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from capwasm.capability import Grant, Interface, OpenContext, Risk
from capwasm.caps._tables import ByTables

from .handle import ClockState, SystemTime, TimeSource
from .model import ClockClause, ClockTable

__all__ = ["Clock"]

INTERFACE = "capwasm:clock/clock@0.1.0"


class Clock(ByTables[ClockClause, ClockState]):
    """Time, from the system unless another source is given."""

    name: ClassVar = "clock"
    title: ClassVar = "Clock"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = ClockClause
    asked: ClassVar = ClockTable
    given: ClassVar = ClockTable

    def __init__(self, source: TimeSource | None = None) -> None:
        """Take time from `source`: for replays and tests."""
        self._source = source or SystemTime()

    def risk(self, clause: ClockClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """Low."""
        return Risk.LOW, "It can tell the time and wait, within the call's own time."

    def open(self, grant: Grant[ClockClause], ctx: OpenContext) -> ClockState:
        """A clock that starts now."""
        return ClockState(grant, ctx, self._source)

    def serve(self, state: ClockState) -> Sequence[Interface]:
        """The one interface."""
        return [
            Interface(
                INTERFACE,
                {"now": state.now_ns, "monotonic": state.monotonic_ns, "sleep": state.sleep},
            )
        ]
