"""Who keeps instances, and the books of their calls: how each ended, for the audit log and the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .call import CallRecord
from .errors import (
    AuditError,
    CallInterrupted,
    CapwasmError,
    GuestError,
    InstanceClosedError,
    InternalError,
    LimitExceeded,
    LinkError,
    ShimError,
)
from .events import DENIED, FAILED, Event, Recorder
from .record.tally import Gate, Tally, tallies_of

if TYPE_CHECKING:
    from .instance import Instance

__all__ = ["NOBODY", "Books", "Keeper"]


class Keeper(Protocol):
    """Who keeps an instance, and the books of its calls.

    Attributes:
        gate: while it is shut, `admit` is asked before each call.
    """

    gate: Gate

    def admit(self) -> None:
        """Pass if a call may begin."""

    def tally(self, action: str) -> Tally | None:
        """Where calls that went well are counted."""

    def failed(self, record: CallRecord, error: BaseException) -> None:
        """Record a call that did not go well; called before the instance is given back."""

    def closed(self, instance: Instance) -> None:
        """Forget the instance."""


class _Nobody:
    gate = Gate()

    def admit(self) -> None:
        pass

    def tally(self, action: str) -> None:
        pass

    def failed(self, record: CallRecord, error: BaseException) -> None:
        pass

    def closed(self, instance: Instance) -> None:
        pass


NOBODY = _Nobody()


class Books:
    """The `Keeper` of a plugin's instances."""

    def __init__(
        self, recorder: Recorder, plugin: str, on_closed: Callable[[Instance], None]
    ) -> None:
        """Keep them.

        Args:
            recorder: where failures go at once, and what was counted before long.
            plugin: `id@version`.
            on_closed: told of each instance that has let go of everything.
        """
        self._recorder = recorder
        self._plugin = plugin
        self._tallies = tallies_of(recorder)
        self.gate = self._tallies.gate
        self.admit = self._tallies.admit
        self.closed = on_closed

    def tally(self, action: str) -> Tally:
        """Where the calls of one function of one instance are counted."""
        return self._tallies.tally(self._plugin, action)

    def record(self, kind: str, verdict: str, **fields: object) -> None:
        """Record an event of this plugin.

        Raises:
            AuditError: it can't be kept.
        """
        self._recorder.record(Event(kind, verdict, self._plugin, **fields))  # type: ignore[arg-type]

    def failed(self, record: CallRecord, error: BaseException) -> None:
        """Record a call that failed, and what that means.

        Raises:
            AuditError: it can't be kept.
        """
        if isinstance(error, AuditError):
            return  # it would be refused again
        if type(error) is RuntimeError and record.failure is None:
            return  # the runtime was closed, or never was for this process: nothing has happened
        action = record.function
        code = error.code if isinstance(error, CapwasmError) else type(error).__name__
        self.record(
            "call",
            FAILED,
            action=action,
            reason=code,
            details={
                "ms": round(record.seconds * 1000, 3),
                "fuel": record.fuel,
                "host-calls": record.host_calls,
                "output-bytes": record.output_bytes,
                "net-bytes": record.net_bytes,
            },
        )
        match error:
            case LimitExceeded():
                self.record("limit", DENIED, action=action, reason=code)
            case CallInterrupted():
                self.record("kill", DENIED, action=action, reason=error.message)
            case (
                InstanceClosedError()
                | ShimError()
                | GuestError(code="guest.backoff" | "guest.busy")
            ):
                pass  # nothing of it ran
            case GuestError(code="guest.exit"):
                pass  # its own last word
            case GuestError() | InternalError() | LinkError():
                self.record("crash", FAILED, action=action, reason=code, target=error.message[:500])
            case RecursionError():
                pass
            case _:  # a signal's handler has raised it, in the guest or beside it
                self.record("kill", DENIED, action=action, reason=f"{code} in the core")
