"""The error budget: a new version that fails too often, early on, goes back by itself.

The highest version of a plugin is on trial while it is new: for its first calls or hours, as policy
says.  Its failures are counted from the events that are recorded anyway, never on a call's way; a
thread of its own writes them down in batches, together with those of other processes.  When the
budget is spent the registry goes back to the version that served before, which is a rollback like a
person's: verified, decided on, recorded.  The version that failed is suspended, and no update takes
it again; a person may.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Final

from capwasm.capsule.trust import utc_now
from capwasm.errors import AuditError, CapwasmError, RegistryError
from capwasm.events import ALLOWED, FAILED, Event
from capwasm.grants.updates import ErrorBudget

from .counts import Counts
from .model import State, VersionRecord
from .registry import Registry

__all__ = ["WHO", "Health", "is_failure"]

WHO: Final = "capwasm (error budget)"
BATCH_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 10.0
# The core's own doing: too many calls at a time, and what it stopped itself.
_NOT_ITS_OWN: Final = frozenset(
    {
        "limit.concurrency",
        "limit.capacity",
        "guest.interrupted",
        "guest.closed",
        "guest.exit",
        "guest.busy",
    }
)
# What may be otherwise in a moment, and how often and how long it is waited for.
_PASSING: Final = frozenset({"registry.busy", "registry.unusable"})
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2


def is_failure(reason: str) -> bool:
    """Whether a call that ended so is the plugin's failure: a crash, a trap, a broken limit."""
    return reason not in _NOT_ITS_OWN and (
        reason == "internal" or reason.startswith(("guest.", "limit."))
    )


@dataclass(slots=True)
class _Trial:
    """One version on trial.

    Attributes:
        record: as it began to serve.   until: when its trial ends at the latest.
        calls, failures: counted here and not written down yet.
        seen, failed: what all processes together have written down.
    """

    record: VersionRecord
    until: datetime
    calls: int = 0
    failures: int = 0
    seen: int = 0
    failed: int = 0


class Health:
    """Watches the versions that this process loads.  For any thread."""

    def __init__(
        self,
        registry: Registry,
        budget: ErrorBudget,
        on_sent_back: Callable[[str, str, str], None],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make one; no thread runs before the first version is on trial.

        Args:
            registry: of the home.
            budget: the operator's.
            on_sent_back: told a plugin, a version that serves no more, and why, on our own thread.
            now: the time, with a zone.
        """
        self._registry, self._budget, self._now = registry, budget, now
        self._on_sent_back = on_sent_back
        self._counts = Counts(registry.root)
        # Its `put` may be interrupted by a signal whose handler puts as well.
        self._queue: SimpleQueue[VersionRecord | tuple[str, int, int] | None] = SimpleQueue()
        self._names: set[str] = set()
        self._trials: dict[str, _Trial] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def watch(self, record: VersionRecord) -> None:
        """Count what becomes of the version that serves; to be called before its code runs."""
        if not self._budget.failures or record.name in self._names:
            return
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="capwasm-health", daemon=True
                )
                self._thread.start()
        self._names.add(record.name)
        self._queue.put(record)

    def observe(self, event: Event) -> None:
        """Take an event that was recorded; quick, and never raises."""
        if event.kind != "call" or event.plugin not in self._names:
            return
        if event.verdict == ALLOWED:
            calls = event.details.get("calls", 1)
            self._queue.put((event.plugin, calls if type(calls) is int else 1, 0))
        elif event.verdict == FAILED and is_failure(event.reason):
            self._queue.put((event.plugin, 1, 1))

    def close(self) -> None:
        """Write down what was counted, and end.  Called again, does nothing."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None or self._pid != os.getpid():
            return
        self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    # -- on our own thread --------------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            last = self._gather()
            for trial in list(self._trials.values()):
                self._settle_somehow(trial, _TRIES if last else 1)
        self._counts.close()

    def _settle_somehow(self, trial: _Trial, tries: int) -> None:
        """Settle; who may never come back to it tries again while another process is at it."""
        for left in reversed(range(tries)):
            # A disk that is full must not end the watch.
            with contextlib.suppress(CapwasmError):
                self._settle(trial)
            open_still = trial.calls or trial.failed >= self._budget.failures
            if trial.record.name not in self._trials or not open_still:
                return
            if left:
                time.sleep(_PAUSE_SECONDS)

    def _gather(self) -> bool:
        """Wait for something, and then for what comes within a second; whether it was the last."""
        spent = self._budget.failures  # and could not be sent back yet
        waiting = any(t.calls or t.failed >= spent for t in self._trials.values())
        until: float | None = time.monotonic() + BATCH_SECONDS if waiting else None
        while True:
            try:
                item = self._queue.get(
                    timeout=None if until is None else max(0.0, until - time.monotonic())
                )
            except Empty:
                return False
            if item is None:
                return True
            if self._take(item):
                return False
            if until is None:
                until = time.monotonic() + BATCH_SECONDS

    def _take(self, item: VersionRecord | tuple[str, int, int]) -> bool:
        """Count one thing; whether the budget may be spent."""
        if isinstance(item, VersionRecord):
            self._begin_somehow(item)
            if item.name not in self._trials:
                self._names.discard(item.name)
            return False
        name, calls, failures = item
        trial = self._trials.get(name)
        if trial is None:
            return False
        trial.calls += calls
        # What fails after its first calls and hours is no longer what a new version does.
        if trial.seen + trial.calls <= self._budget.calls and self._now() < trial.until:
            trial.failures += failures
        return trial.failed + trial.failures >= self._budget.failures

    def _begin_somehow(self, record: VersionRecord) -> None:
        # What is not put on trial now never is, so a file that another process makes is waited for.
        for left in reversed(range(_TRIES)):
            try:
                self._begin(record)
            except CapwasmError:
                time.sleep(_PAUSE_SECONDS if left else 0)
            else:
                return

    def _begin(self, record: VersionRecord) -> None:
        """Put a version on trial if it is new, and there is one to go back to."""
        plugin = self._registry.show(record.plugin)
        back = any(
            v.state is State.REVIEWED and plugin.accepted(v.version) for v in plugin.versions
        )
        until = datetime.fromisoformat(record.changed.when) + timedelta(hours=self._budget.hours)
        if record.version != plugin.highest or not back or self._now() >= until:
            return
        trial = _Trial(record, until)
        count = self._counts.add(*_key(record), 0, 0, over=False)
        if not count.over:
            trial.seen, trial.failed = count.calls, count.failures
            self._trials[record.name] = trial

    def _settle(self, trial: _Trial) -> None:
        """Write down what was counted, and see what it comes to."""
        record, budget = trial.record, self._budget
        if not trial.calls and trial.failed < budget.failures and self._now() < trial.until:
            return
        count = self._counts.add(*_key(record), trial.calls, trial.failures, over=False)
        trial.calls = trial.failures = 0
        trial.seen, trial.failed = count.calls, count.failures
        if count.over:
            self._end(trial)
        elif count.failures >= budget.failures:
            self._send_back(trial, count.calls)
        elif count.calls >= budget.calls or self._now() >= trial.until:
            self._counts.add(*_key(record), 0, 0, over=True)
            self._end(trial)

    def _send_back(self, trial: _Trial, calls: int) -> None:
        record = trial.record
        why = f"{trial.failed} of its first {calls} calls failed"
        try:
            self._registry.rollback(record.plugin, who=WHO, why=why, leaving=record.version)
        except AuditError:
            return  # what can't be recorded does not happen; tried again
        except CapwasmError as exc:
            if isinstance(exc, RegistryError) and exc.code in _PASSING:
                return
            plugin = self._registry.find(record.plugin)
            if plugin is not None and plugin.serving == record.version:
                # There is no way back, and the registry has recorded why.  A person is needed.
                self._counts.add(*_key(record), 0, 0, over=True)
                self._end(trial)
                return
            why = f"{record.version} serves no more"  # another process was faster, or a person
        self._end(trial)
        self._on_sent_back(record.plugin, record.version, why)
        self._counts.forget(record.plugin, record.version)

    def _end(self, trial: _Trial) -> None:
        self._names.discard(trial.record.name)
        self._trials.pop(trial.record.name, None)


def _key(record: VersionRecord) -> tuple[str, str, str]:
    return record.plugin, record.version, record.changed.when
