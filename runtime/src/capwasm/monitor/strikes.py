"""Strikes: a plugin that is denied, breaks limits or crashes too often is stopped, as policy says.

What happens is counted from the events that are recorded anyway, never on a call's way.  A thread of
its own writes the points down once a second, together with those of other processes, and ends what
went too far: an installed version is suspended or revoked in the registry; another is held, and no
load of it is taken until a person forgives it.  What can't be written down is tried again; what runs
of the plugin here is stopped all the same.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from capwasm.errors import AuditError, CapwasmError, RegistryError
from capwasm.events import ALLOWED, ASKED, DENIED, Event, Recorder
from capwasm.grants.strikes import StrikesRule
from capwasm.registry.model import Outcome, PluginRecord, State

from .docket import Docket
from .told import Lifecycle, LifecycleKind

__all__ = ["WHO", "Installed", "Strikes"]

WHO: Final = "capwasm (strikes)"
BATCH_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 10.0
_DAY: Final = 24 * 3600
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2
# The core's own doing: too many calls at a time.
_NOT_ITS_OWN: Final = frozenset({"limit.concurrency", "limit.capacity"})
# A plugin that does without a setting or a clock asks for it at each call, and means no harm.
_REACHES: Final = ASKED - {"clock", "random", "config"}
# The registry says by these that there is nothing to take out of service.
_NOT_THERE: Final = frozenset({"registry.unknown", "registry.state"})


class Installed(Protocol):
    """What is asked of a registry."""

    def find(self, plugin_id: str) -> PluginRecord | None:
        """See `Shelf.find`."""

    def suspend(
        self, plugin_id: str, version: str | None = None, *, who: str, why: str = ""
    ) -> Outcome:
        """See `Registry.suspend`."""

    def revoke(self, plugin_id: str, version: str, *, who: str, why: str = "") -> Outcome:
        """See `Registry.revoke`."""


@dataclass(slots=True)
class _Case:
    """One plugin, in this process.

    Attributes:
        name: `id@version` of what was counted last.   last: what that was.
        points: counted here and not written down yet.
        grave: the grave thing that it did, or empty.
        over: why it is to be stopped, or empty.
    """

    name: str
    last: str = ""
    points: int = 0
    grave: str = ""
    over: str = ""


class Strikes:
    """Counts the strikes of the plugins of this process, and stops who has too many.

    Attributes:
        docket: what all processes have counted.
        standing: points by plugin id, as last written down.
    """

    def __init__(
        self,
        docket: Docket,
        rule: StrikesRule,
        recorder: Recorder,
        registry: Installed | None,
        *,
        on_strike: Callable[[Lifecycle], None],
        on_end: Callable[[Lifecycle], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make them; nothing is read and no thread runs before the first strike.

        Args:
            docket: of the home.
            rule: the operator's.
            recorder: takes an event of each plugin that is held.
            registry: of the home; without one every plugin that goes too far is held.
            on_strike: told of new points, at most once a second a plugin, on our own thread.
            on_end: told of a version that was stopped and is to be ended where it runs, on our own
                thread.
            now: seconds since 1970.
        """
        self.docket = docket
        self.standing: dict[str, int] = {}
        self._rule, self._recorder, self._registry, self._now = rule, recorder, registry, now
        self._on_strike, self._on_end = on_strike, on_end
        # Its `put` may be interrupted by a signal whose handler puts as well.
        self._queue: SimpleQueue[tuple[str, int, str, bool] | None] = SimpleQueue()
        self._cases: dict[str, _Case] = {}
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def observe(self, event: Event) -> None:
        """Take an event that was recorded; quick, and never raises."""
        if event.verdict == ALLOWED or not event.plugin:
            return
        points = self._points_of(event)
        if points is None:
            return
        grave = event.reason in self._rule.grave or event.kind in self._rule.grave
        if not grave and not (points and self._rule.suspend):
            return
        if self._thread is None and not self._start():
            return
        self._queue.put((event.plugin, points, f"{event.kind} {event.reason}".strip(), grave))

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

    def _points_of(self, event: Event) -> int | None:
        """What an event counts; None for one that is no strike, whatever policy says."""
        points = self._rule.points
        match event.kind:
            case "crash":
                return points.crash
            case "limit":
                return None if event.reason in _NOT_ITS_OWN else points.limit
            case kind if kind in _REACHES and event.verdict == DENIED:
                return points.denial
            case _:
                return None

    def _start(self) -> bool:
        with self._lock:
            if self._thread is None and not self._closed and self._pid == os.getpid():
                thread = threading.Thread(target=self._run, name="capwasm-strikes", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads; the next strike tries again
                    return False
                self._thread = thread
            return self._thread is not None

    # -- on our own thread --------------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            last = self._gather()
            for plugin_id, case in list(self._cases.items()):
                self._settle_somehow(plugin_id, case, _TRIES if last else 1)

    def _settle_somehow(self, plugin_id: str, case: _Case, tries: int) -> None:
        """Settle; who may never come back to it tries again while another process is at it."""
        for left in reversed(range(tries)):
            # A disk that is full must not end the watch.
            with contextlib.suppress(CapwasmError):
                self._settle(plugin_id, case)
                return
            time.sleep(_PAUSE_SECONDS if left else 0)

    def _gather(self) -> bool:
        """Wait for something, and then for what comes within a second; whether it was the last."""
        waiting = any(c.points or c.grave or c.over for c in self._cases.values())
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
            if self._take(*item):
                return False
            if until is None:
                until = time.monotonic() + BATCH_SECONDS

    def _take(self, name: str, points: int, what: str, grave: bool) -> bool:
        """Count one thing; whether it may be the last straw."""
        plugin_id = name.partition("@")[0]
        case = self._cases.setdefault(plugin_id, _Case(name))
        case.name, case.last = name, what
        before = self.standing.get(plugin_id, 0) + case.points
        case.points += points
        if grave:
            case.grave = case.grave or what
            return True
        # Once: what keeps coming while it is being stopped is no news.
        return before < self._rule.suspend <= before + points

    def _settle(self, plugin_id: str, case: _Case) -> None:
        """Write down what was counted, and see what it comes to."""
        rule, now = self._rule, int(self._now())
        if case.points:
            try:
                total = self.docket.add(plugin_id, case.points, now, 60 * rule.minutes)
            except CapwasmError:
                # Tried again, unless what was counted here is too much by itself.
                total = self.standing.get(plugin_id, 0) + case.points
                if not (case.grave or 0 < rule.suspend <= total):
                    raise
            case.points = 0
            self.standing[plugin_id] = total
            case.over = ""
            if rule.suspend:
                standing = f"{total:,} of {rule.suspend:,} strikes in {rule.minutes} minutes"
                if total >= rule.suspend:
                    case.over = f"{total:,} strikes in {rule.minutes} minutes, last: {case.last}"
                self._on_strike(
                    self._event(LifecycleKind.STRIKE, case, f"{standing}, last: {case.last}")
                )
        if case.grave or case.over:
            self._end(plugin_id, case, now)
        if not (case.points or case.grave or case.over):
            del self._cases[plugin_id]

    def _end(self, plugin_id: str, case: _Case, now: int) -> None:
        rule, version = self._rule, case.name.partition("@")[2]
        why = f"grave: {case.grave}" if case.grave else case.over
        evicted = bool(case.grave) or self._is_last(plugin_id, now)
        kind = LifecycleKind.EVICTED if evicted else LifecycleKind.SUSPENDED
        revoke = evicted and rule.eviction == "revoke"
        try:
            done = self._in_registry(plugin_id, version, why, revoke=revoke)
            if done is None and not any(e.held for e in self.docket.ends(plugin_id)):
                self._recorder.record(
                    Event("kill", DENIED, case.name, "hold", reason=why, details={"who": WHO})
                )
            if done is not False:
                self.docket.end(plugin_id, version, kind, why, now, held=done is None)
        finally:
            # Also when it can't be recorded: a full disk must not keep a plugin running.
            self._on_end(self._event(kind, case, why))
        case.grave = case.over = ""
        self.standing.pop(plugin_id, None)

    def _is_last(self, plugin_id: str, now: int) -> bool:
        rule = self._rule
        if not rule.evict_after:
            return False
        try:
            ends = self.docket.ends(plugin_id)
        except CapwasmError:
            return False  # nobody is ended for good by what can't be read
        return 1 + sum(e.at > now - rule.evict_days * _DAY for e in ends) >= rule.evict_after

    def _in_registry(self, plugin_id: str, version: str, why: str, *, revoke: bool) -> bool | None:
        """Take a version out of service there.

        Returns:
            Whether that was this process' doing, and not another's or a person's before; None if the
            registry can't do it, for it does not know the version, or never let it serve.

        Raises:
            RegistryError, AuditError: not now; to be tried again.
        """
        registry = self._registry
        stopped = registry and self._is_stopped(plugin_id, version, revoke=revoke)
        if registry is None or stopped is None:
            return None
        if stopped:
            return False
        try:
            if revoke:
                registry.revoke(plugin_id, version, who=WHO, why=why)
            else:
                registry.suspend(plugin_id, version, who=WHO, why=why)
        except AuditError:
            raise  # what can't be recorded does not happen
        except RegistryError as exc:
            if exc.code not in _NOT_THERE:
                raise
            return False if self._is_stopped(plugin_id, version, revoke=revoke) else None
        return True

    def _is_stopped(self, plugin_id: str, version: str, *, revoke: bool) -> bool | None:
        """Whether a version is out of service; None if the registry does not know it."""
        assert self._registry is not None
        plugin = self._registry.find(plugin_id)
        record = None if plugin is None else plugin.version(version)
        if record is None:
            return None
        ended = {State.REVOKED} if revoke else {State.REVOKED, State.SUSPENDED}
        return record.state in ended

    def _event(self, kind: LifecycleKind, case: _Case, why: str) -> Lifecycle:
        plugin_id, _, version = case.name.partition("@")
        code = "strikes.held" if kind is not LifecycleKind.STRIKE else ""
        return Lifecycle(kind, plugin_id, version, why, code=code)
