"""One `Recorder` for a runtime: the audit log first, then numbers, log lines and the embedder."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, FAILED, Event, NullRecorder, Recorder, record_all

from .logs import LEVELS, get_logger
from .metrics import Metrics
from .redact import Redactor
from .repeats import Repeats
from .tally import Ledger, Tallies

__all__ = ["Recorders"]

# Log levels by verdict.  What is allowed is the ordinary case: the audit log has it.
_LEVELS: Final = {"allowed": "debug", "denied": "warning", "failed": "warning"}


class _Here(threading.local):
    inside = False


class Recorders:
    """Passes each event on, in this order; only the audit log can refuse it.

    What fails after the audit log (the embedder's hook, a log handler) is itself recorded, and
    nobody else notices.
    """

    def __init__(
        self,
        audit: Recorder,
        redactor: Redactor,
        *,
        metrics: Metrics | None = None,
        hook: Callable[[Event], None] | None = None,
        log: bool = True,
        unaudited: bool = False,
    ) -> None:
        """Combine them.

        Args:
            audit: an `AuditLog`.
            redactor: cleans the event before the hook and the log see it.
            metrics: counts it.
            hook: the embedder's own; called on the thread that caused the event, so it is quick; of
                calls that went well, which are told of many at a time, on the log's own thread.
                Events that the hook itself causes do not come back to it.
            log: whether each event is also a log line, denials and failures as warnings.
            unaudited: whether a recorder that keeps nothing is really meant.

        Raises:
            ValueError: `audit` keeps nothing, and `unaudited` is not set.
        """
        if isinstance(audit, NullRecorder) and not unaudited:
            raise ValueError("a runtime needs an audit log; say unaudited=True to do without")
        self._audit, self._redactor, self._metrics, self._hook = audit, redactor, metrics, hook
        self._log = log
        self._logger: Any = None  # made for the first line: structlog takes long to import
        self._listens = logging.getLogger("capwasm.events").isEnabledFor
        self._here = _Here()
        self._noted: deque[tuple[Event, bool]] = deque()  # and whether the numbers know of it
        self._ledger = ledger = audit if isinstance(audit, Ledger) else None
        self._repeats: Repeats | None = None
        if ledger is None:
            self.tallies = Tallies(self.record)
        else:
            self.tallies = Tallies(self._note, ledger, lambda: self._unkept(Event("call", ALLOWED)))
            self._repeats = repeats = Repeats(lambda event: self._note(event, counted=True))
            ledger.on_flush(repeats.settle, lambda: None)
            ledger.on_flush(self.tallies.settle, self._tell_noted)
        self._failures: dict[str, tuple[float, int]] = {}
        self._listeners: tuple[Callable[[Event], None], ...] = ()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tell a part of the runtime of every event too, as it is: it is quick and never raises."""
        self._listeners = (*self._listeners, listener)

    def record(self, event: Event) -> None:
        """Record it in the audit log, then tell the others.

        What was counted of the same plugin's calls is recorded before it.  A denial like many others
        is counted; see `repeats`.

        Raises:
            AuditError: it could not be kept; the operation must not happen.
        """
        repeats = self._repeats
        if repeats is not None and repeats.takes(event):
            self._count_later(event)
            return
        try:
            self.tallies.settle(event.plugin)
            self._audit.record(event)
        except AuditError:
            self._unkept(event)
            raise
        self._tell_noted()
        self._tell(event)

    def record_all(self, events: Sequence[Event]) -> None:
        """Record them all in the audit log, which waits for the disk once; then tell the others.

        Raises:
            AuditError: not all could be kept; none of the operations may happen.
        """
        try:
            for plugin in {event.plugin for event in events}:
                self.tallies.settle(plugin)
            record_all(self._audit, events)
        except AuditError:
            for event in events:
                self._unkept(event)
            raise
        self._tell_noted()
        for event in events:
            self._tell(event)

    def flush(self) -> None:
        """Have all that has happened by now on record, and told of.

        Raises:
            AuditError: the audit log can't be written.
        """
        if self._ledger is not None:
            self._ledger.flush()

    def _note(self, event: Event, *, counted: bool = False) -> None:
        """Keep what was counted, and tell the others after the flush, not in the midst of it."""
        assert self._ledger is not None
        self._ledger.note(event)
        self._noted.append((event, counted))

    def _tell_noted(self) -> None:
        while self._noted:
            with contextlib.suppress(IndexError):  # another thread was at it
                event, counted = self._noted.popleft()
                if not counted:
                    self._number(event)
                self._show(event)

    def _count_later(self, event: Event) -> None:
        """One of many: it is recorded with the others, and numbers and limits know of it now.

        Raises:
            AuditError: the log can't be written, so nothing can be recorded later.
        """
        assert self._ledger is not None
        try:
            self._ledger.ready()
        except AuditError:
            self._unkept(event)
            raise
        self._ledger.wake()
        self._number(event)

    def _unkept(self, event: Event) -> None:
        if self._metrics is not None:
            self._metrics.failed("audit")
        self._say(Event("gap", FAILED, reason="audit", action=event.kind), "error")

    def _tell(self, event: Event) -> None:
        self._number(event)
        self._show(event)

    def _number(self, event: Event) -> None:
        if self._metrics is not None:
            self._metrics.observe(event)
        for listen in self._listeners:
            listen(event)

    def _show(self, event: Event) -> None:
        self._say(event, _LEVELS[event.verdict])
        if self._hook is not None and not self._here.inside:
            self._call(self._hook, event)

    def _call(self, hook: Callable[[Event], None], event: Event) -> None:
        self._here.inside = True
        try:
            hook(self._clean(event))
        except Exception as exc:  # noqa: BLE001  the embedder's, and it must not stop the plugin
            self._failed("hook", event, exc)
        finally:
            self._here.inside = False

    def _say(self, event: Event, level: str) -> None:
        if not self._log or not self._listens(LEVELS[level]):
            return
        if self._logger is None:
            self._logger = get_logger(self._redactor, "capwasm.events")
        fields = {
            name: getattr(event, name)
            for name in ("plugin", "action", "target", "reason")
            if getattr(event, name)
        }
        try:
            method = getattr(self._logger, level)
            method(f"{event.kind} {event.verdict}", **fields, **_as_words(event))
        except Exception as exc:  # noqa: BLE001  a handler of the embedder's
            if event.kind != "gap":
                self._failed("log", event, exc)

    def _failed(self, which: str, event: Event, exc: Exception) -> None:
        """Record that a listener failed, once a second: its kind of error, never its text."""
        if self._metrics is not None:
            self._metrics.failed(which)
        last, count = self._failures.get(which, (0.0, 0))
        now = time.monotonic()
        if last and now - last < 1:
            self._failures[which] = (last, count + 1)
            return
        self._failures[which] = (now, 0)
        self._audit.record(
            Event(
                "gap",
                FAILED,
                action=which,
                target=event.kind,
                reason=type(exc).__name__,
                details={"failures": count + 1},
            )
        )

    def _clean(self, event: Event) -> Event:
        fields = (event.plugin, event.action, event.target, event.reason, event.details)
        clean = self._redactor.value(fields)
        return event if clean is fields else Event(event.kind, event.verdict, *clean)


def _as_words(event: Event) -> dict[str, Any]:
    return {"details": dict(event.details)} if event.details else {}
