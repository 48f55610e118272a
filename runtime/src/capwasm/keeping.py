"""The books of one plugin: how each call into it ended, for the audit log and the numbers."""

from __future__ import annotations

from collections.abc import Callable

from .call import CallRecord
from .errors import (
    AuditError,
    CallInterrupted,
    CapwasmError,
    GuestError,
    InstanceClosedError,
    InternalError,
    LimitExceeded,
)
from .events import DENIED, FAILED, Event, Recorder
from .instance import Instance
from .record.tally import Tally, tallies_of

__all__ = ["Books"]


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
            case InstanceClosedError():
                pass
            case GuestError() | InternalError():
                self.record("crash", FAILED, action=action, reason=code, target=error.message[:500])
            case RecursionError():
                pass
            case _:  # a signal's handler has raised it, in the guest or beside it
                self.record("kill", DENIED, action=action, reason=f"{code} in the core")
