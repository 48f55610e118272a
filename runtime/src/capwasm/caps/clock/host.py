"""The clock capability: `capwasm:clock/clock`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from capwasm.capability import Capability, Grant, Interface, OpenContext, Parsed, Risk, Side
from capwasm.caps._tables import parse_tables

from .handle import ClockState, SystemTime, TimeSource
from .model import ClockClause, ClockTable

__all__ = ["Clock"]

INTERFACE = "capwasm:clock/clock@0.1.0"


class Clock(Capability[ClockClause, ClockState]):
    """Time, from the system unless another source is given."""

    name: ClassVar = "clock"
    title: ClassVar = "Clock"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = ClockClause

    def __init__(self, source: TimeSource | None = None) -> None:
        """Take time from `source`: for replays and tests."""
        self._source = source or SystemTime()

    def schema(self, side: Side) -> dict[str, Any]:  # noqa: ARG002  the same on each side
        """JSON Schema of `[clock]`."""
        return ClockTable.model_json_schema()

    def parse(
        self,
        tables: Sequence[Mapping[str, Any]],
        side: Side,  # noqa: ARG002  the same on each side
    ) -> Parsed[ClockClause]:
        """The clause of the table."""
        return parse_tables(
            tables,
            ClockTable,
            lambda t: [ClockClause(t.resolution_ms, t.wall, t.sleep)],
            repeated=False,
        )

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
