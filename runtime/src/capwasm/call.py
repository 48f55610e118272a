"""The record of one call into a plugin: its clock, its budgets, and what went wrong.

A call runs on one thread from start to end, host functions included, so the record is found through
that thread (`threads.Here`), and the call that it was made from through the record.  Every budget of a
call is charged here and nowhere else.

A record is of one call and never used again: so who wants to interrupt a call that has just ended
reaches nothing, and never the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

from .errors import (
    CallInterrupted,
    DeadlineExceeded,
    HostCallLimitExceeded,
    InternalError,
    NetBudgetExceeded,
    OutputLimitExceeded,
    RecursionLimitExceeded,
)
from .handles import HandleTable
from .limits import Limits
from .threads import LOCAL, Here

__all__ = [
    "CallOwner",
    "CallRecord",
    "CallStats",
    "call_under_way",
    "continued",
    "current_call",
    "entered",
    "nest",
]


class CallOwner(Protocol):
    """The instance that a call runs in, as the boundary needs it."""

    boundary: Any
    handles: HandleTable

    def host_call(self, slot: int, args: tuple[Any, ...]) -> Any:
        """Run the host function of that slot."""


class _Nowhere:
    """The owner of a call that runs in no instance."""

    def __getattr__(self, name: str) -> Any:
        raise InternalError("a host function ran outside an instance")


_NOWHERE: Any = _Nowhere()


class CallRecord:
    """One call: made when it begins, thrown away when it returns.

    Attributes:
        plugin: the plugin's id.   function: the export that was called.
        limits: what the call may use.   owner: the instance that runs it.
        started: `time.monotonic()` at its beginning.   deadline: at which it ends.
        failure: the first failure that must end the call; the boundary raises it after the guest
            has unwound, whatever the engine says.
        cancelled: why another thread wants the call to end, or None.
        outer: the call from whose host function this one was made, or None.
        host_fuel: what host work has cost, as far as it isn't taken from the guest's fuel yet.
        fuel, seconds: what it used in all, once it has returned.
        here: the thread it runs on, or None.
    """

    __slots__ = (
        "cancelled",
        "deadline",
        "failure",
        "fuel",
        "function",
        "here",
        "host_calls",
        "host_fuel",
        "limits",
        "net_bytes",
        "outer",
        "output_bytes",
        "owner",
        "plugin",
        "seconds",
        "started",
    )

    def __init__(
        self, plugin: str, function: str, limits: Limits, owner: CallOwner = _NOWHERE
    ) -> None:
        """Start the clock."""
        self.plugin = plugin
        self.function = function
        self.limits = limits
        self.owner = owner
        self.host_calls = self.host_fuel = self.output_bytes = self.net_bytes = self.fuel = 0
        self.failure: BaseException | None = None
        self.cancelled: str | None = None
        self.outer: CallRecord | None = None
        self.here: Here | None = None
        self.seconds = 0.0
        self.started = started = monotonic()
        self.deadline = started + limits.wall_ms / 1000

    def restart(self) -> None:
        """Start the clock anew: what came before was not the guest's to answer for."""
        self.started = monotonic()
        self.deadline = self.started + self.limits.wall_ms / 1000
        if self.outer is not None:
            self.deadline = min(self.deadline, self.outer.deadline)

    # -- time ----------------------------------------------------------------------------------

    def remaining(self) -> float:
        """Seconds that a host call may block from now: the least of its limit and the deadline."""
        return max(0.0, min(self.limits.host_call_ms / 1000, self.deadline - monotonic()))

    def check(self) -> None:
        """Pass if the call may go on, and those that it was made from.

        Raises:
            CallInterrupted: another thread cancelled it, or the call that it was made from has to
                end; that one's own record has the reason.
            DeadlineExceeded: its time is over.
        """
        if self.outer is not None:
            try:
                self.outer.check()
            except BaseException as exc:
                self.outer.fail(exc)
                raise CallInterrupted(
                    "the call that it was made from has ended", context=self.plugin
                ) from exc
        if self.cancelled is not None:
            raise CallInterrupted(self.cancelled, context=self.plugin)
        if self.failure is not None:
            raise CallInterrupted("it has failed already", context=self.plugin)
        if monotonic() >= self.deadline:
            raise DeadlineExceeded(
                f"longer than {self.limits.wall_ms} ms (limits.wall-ms)", context=self.plugin
            )

    def interrupt(self, reason: str) -> None:
        """Ask the call to end; it does at its next host call or epoch tick.  Any thread."""
        if self.cancelled is None:
            self.cancelled = reason

    # -- budgets -------------------------------------------------------------------------------

    def charge_host_call(self) -> None:
        """Count one host call.

        Raises:
            HostCallLimitExceeded, CallInterrupted, DeadlineExceeded: the call must end.
        """
        self.host_calls += 1
        if self.host_calls > self.limits.host_calls:
            raise HostCallLimitExceeded(
                f"more than {self.limits.host_calls} host calls (limits.host-calls)",
                context=self.plugin,
            )
        self.check()

    def charge_host_work(self, fuel: int) -> None:
        """Have the guest pay for work done on its behalf; taken from its fuel at the boundary."""
        self.host_fuel += fuel

    def charge_output(self, size: int) -> None:
        """Count bytes written to the log, stdout or stderr.

        Raises:
            OutputLimitExceeded: the call must end.
        """
        self.output_bytes += size
        if self.output_bytes > self.limits.output_bytes:
            raise OutputLimitExceeded(
                f"more than {self.limits.output_bytes} bytes (limits.output-bytes)",
                context=self.plugin,
            )

    def charge_net(self, size: int) -> None:
        """Count bytes sent or received over the network.

        Raises:
            NetBudgetExceeded: the call must end.
        """
        self.net_bytes += size
        if self.net_bytes > self.limits.net_bytes:
            raise NetBudgetExceeded(
                f"more than {self.limits.net_bytes} bytes (limits.net-bytes)", context=self.plugin
            )

    def fail(self, error: BaseException) -> None:
        """Keep the first failure that must end the call."""
        if self.failure is None:
            self.failure = error


class CallStats:
    """What a call used; filled in when it ends.

    Attributes:
        fuel: instructions (about), host work included.   seconds: wall-clock time.
        host_calls, output_bytes, net_bytes: as counted by the call's record.
    """

    __slots__ = ("fuel", "host_calls", "net_bytes", "output_bytes", "seconds")

    def __init__(self, record: CallRecord) -> None:
        """Read the record of a call that has returned."""
        self.fuel = record.fuel
        self.seconds = record.seconds
        self.host_calls = record.host_calls
        self.output_bytes = record.output_bytes
        self.net_bytes = record.net_bytes


def current_call() -> CallRecord:
    """The call that runs on this thread.

    Raises:
        InternalError: there is none; a host function ran outside a call.
    """
    call = LOCAL.here.call
    if call is None:
        raise InternalError("a host function ran outside a call")
    return call


def call_under_way() -> CallRecord | None:
    """The call that runs on this thread, if one does."""
    return LOCAL.here.call


def nest(record: CallRecord, here: Here) -> None:
    """Put `record` within the call that runs on that thread, if one does.

    Raises:
        RecursionLimitExceeded: calls are nested deeper than `limits.depth`, or than this thread's
            stack allows (RES-12, LIFE-08).
    """
    depth, deepest, call = 0, record.limits.depth, here.call
    while call is not None:
        depth, deepest, call = depth + 1, min(deepest, call.limits.depth), call.outer
    if depth >= deepest:
        raise RecursionLimitExceeded(
            f"calls nested deeper than {deepest} (limits.depth)", context=record.plugin
        )
    if here.room < 1:
        raise RecursionLimitExceeded("no room on this thread's stack", context=record.plugin)
    record.outer = here.call
    if record.outer is not None:
        # An inner call can't outlive the outer one's time.
        record.deadline = min(record.deadline, record.outer.deadline)


@contextmanager
def continued(call: CallRecord | None) -> Iterator[None]:
    """Have this thread, which runs no call, go on for one that waits until it is done."""
    here = LOCAL.here
    here.call = call
    try:
        yield
    finally:
        here.call = None


@contextmanager
def entered(record: CallRecord) -> Iterator[CallRecord]:
    """Make `record` the current call of this thread, without an instance.

    What `Instance` does for a guest, for those who run a host function by itself.

    Raises:
        RecursionLimitExceeded: as `nest`.
    """
    here = LOCAL.here
    call, room = here.call, here.room
    nest(record, here)
    here.call, here.room = record, room - 1
    try:
        yield record
    finally:
        here.call, here.room = call, room
