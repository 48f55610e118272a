"""The record of one call into a plugin: its clock, its budgets, and what went wrong.

A call runs on one thread from start to end, host functions included, so the record is found through
a thread-local stack.  Every budget of a call is charged here and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from .threads import guests_that_fit

__all__ = [
    "CallOwner",
    "CallRecord",
    "call_under_way",
    "continued",
    "current_call",
    "entered",
    "has_room",
    "running_calls",
]


class CallOwner(Protocol):
    """The instance that a call runs in, as the boundary needs it."""

    boundary: Any
    handles: HandleTable

    def host_call(self, slot: int, args: tuple[Any, ...]) -> Any:
        """Run the host function of that slot."""


class CallRecord:
    """One call: made when it begins, thrown away when it returns.

    Attributes:
        plugin: the plugin's id.   function: the export that was called.
        limits: what the call may use.
        deadline: `time.monotonic()` at which it ends.
        failure: the first failure that must end the call; the boundary raises it after the guest
            has unwound, whatever the engine says.
        cancelled: why another thread wants the call to end, or None.
        outer: the call from whose host function this one was made, or None.
    """

    __slots__ = (
        "_owner",
        "cancelled",
        "deadline",
        "failure",
        "function",
        "host_calls",
        "host_fuel",
        "limits",
        "net_bytes",
        "outer",
        "output_bytes",
        "plugin",
        "started",
    )

    def __init__(
        self, plugin: str, function: str, limits: Limits, owner: CallOwner | None = None
    ) -> None:
        """Start the clock."""
        self.plugin = plugin
        self.function = function
        self.limits = limits
        self._owner = owner
        self.started = time.monotonic()
        self.deadline = self.started + limits.wall_ms / 1000
        self.host_calls = 0
        self.host_fuel = 0
        self.output_bytes = 0
        self.net_bytes = 0
        self.failure: BaseException | None = None
        self.cancelled: str | None = None
        self.outer: CallRecord | None = None

    @property
    def owner(self) -> CallOwner:
        """The instance that runs it.

        Raises:
            InternalError: the call runs in none.
        """
        if self._owner is None:
            raise InternalError("a host function ran outside an instance")
        return self._owner

    # -- time ----------------------------------------------------------------------------------

    def remaining(self) -> float:
        """Seconds that a host call may block from now: the least of its limit and the deadline."""
        return max(0.0, min(self.limits.host_call_ms / 1000, self.deadline - time.monotonic()))

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
        if time.monotonic() >= self.deadline:
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


class _Stack(threading.local):
    def __init__(self) -> None:
        self.calls: list[CallRecord] = []
        self.elsewhere = 0  # how many of them stand on the stack of another thread


_STACK = _Stack()


def current_call() -> CallRecord:
    """The call that runs on this thread.

    Raises:
        InternalError: there is none; a host function ran outside a call.
    """
    if not _STACK.calls:
        raise InternalError("a host function ran outside a call")
    return _STACK.calls[-1]


def call_under_way() -> CallRecord | None:
    """The call that runs on this thread, if one does."""
    return _STACK.calls[-1] if _STACK.calls else None


def running_calls() -> tuple[CallRecord, ...]:
    """The calls that are under way on this thread, outermost first."""
    return tuple(_STACK.calls)


def has_room() -> bool:
    """Whether this thread's stack can take one more guest."""
    return len(_STACK.calls) - _STACK.elsewhere < guests_that_fit()


@contextmanager
def continued(calls: tuple[CallRecord, ...]) -> Iterator[None]:
    """Have this thread, which runs no call, go on for one that waits until it is done."""
    _STACK.calls[:], _STACK.elsewhere = calls, len(calls)
    try:
        yield
    finally:
        _STACK.calls.clear()
        _STACK.elsewhere = 0


@contextmanager
def entered(record: CallRecord) -> Iterator[CallRecord]:
    """Make `record` the current call of this thread.

    Raises:
        RecursionLimitExceeded: calls are nested deeper than `limits.depth`, or than this thread's
            stack allows (RES-12, LIFE-08).
    """
    calls = _STACK.calls
    if len(calls) >= min((record.limits.depth, *(c.limits.depth for c in calls))):
        raise RecursionLimitExceeded(
            f"calls nested deeper than {record.limits.depth} (limits.depth)", context=record.plugin
        )
    if not has_room():
        raise RecursionLimitExceeded("no room on this thread's stack", context=record.plugin)
    if calls:
        record.outer = calls[-1]
        # An inner call can't outlive the outer one's time.
        record.deadline = min(record.deadline, calls[-1].deadline)
    calls.append(record)
    try:
        yield record
    finally:
        calls.pop()
