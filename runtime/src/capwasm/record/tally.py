"""Calls that went well: counted while they are made, recorded together when the log is flushed.

A record of the audit log costs ten times what a call does, so it is not made on the call's way.  Each
function of each instance has a `Tally`, which the call adds itself to; the first call after a flush
puts the tally on a list.  With the next flush, and before anything else is recorded of the same
plugin, what is on the list becomes one `call` event for each function: of one call, it reads as that
call's own; of many, it has their number and their sums.

Only calls that succeeded are counted here.  What was denied or failed is recorded by itself, at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, Event, Recorder

__all__ = ["SECONDS", "Gate", "Ledger", "Tallies", "Tally", "buckets", "tallies_of"]

SECONDS: Final = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
"""Bounds, in seconds, by which calls are counted as so quick."""

_FASTEST: Final = SECONDS[0]
_WORDS: Final = (*(f"{1000 * s:g}" for s in SECONDS), "more")


class Gate:
    """One flag that every call looks at: shut while the log can't be written."""

    __slots__ = ("shut",)

    def __init__(self) -> None:
        """Open."""
        self.shut = False


@runtime_checkable
class Ledger(Recorder, Protocol):
    """A recorder with a flusher: it can be told of many calls at a time, later."""

    gate: Gate

    def ready(self) -> None:
        """Pass if what is done now can be recorded later.

        Raises:
            AuditError: not; it must not be done.
        """

    def note(self, event: Event) -> None:
        """Keep `event`, to be safe with the next flush.

        Raises:
            AuditError: it was not kept.
        """

    def wake(self) -> None:
        """Have what waits flushed before long."""

    def flush(self) -> None:
        """Bring all that was recorded or counted to where it is kept.

        Raises:
            AuditError: it can't be.
        """

    def on_flush(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Call `before` at the beginning of each flush, and `after` at its end."""


# calls, seconds, fuel, host calls, bytes of output, bytes over the network; then a tuple of how many
# were slow, by the bounds from the second on (the rest was quicker than the first).
_Total: TypeAlias = tuple[int, float, int, int, int, int, tuple[int, ...]]
_ZERO: Final[_Total] = (0, 0.0, 0, 0, 0, 0, (0,) * len(SECONDS))


class Tally:
    """The calls of one function in one instance.

    Who runs the instance adds, so never two at a time; any thread may read.  The sums only grow, and
    are replaced as one object: no reader sees half a call, and no call is counted by half if a
    signal comes in between.
    """

    __slots__ = ("_tallies", "action", "listed", "plugin", "told", "total")

    def __init__(self, tallies: Tallies, plugin: str, action: str) -> None:
        """No calls yet."""
        self._tallies = tallies
        self.plugin = plugin
        self.action = action
        self.total = self.told = _ZERO
        self.listed = False

    def add(self, seconds: float, fuel: int, host_calls: int, output: int, net: int) -> None:
        """Count one call."""
        n, all_seconds, all_fuel, all_calls, all_output, all_net, slow = self.total
        if seconds > _FASTEST:
            slow = _one_more(slow, seconds)
        self.total = (
            n + 1,
            all_seconds + seconds,
            all_fuel + fuel,
            all_calls + host_calls,
            all_output + output,
            all_net + net,
            slow,
        )
        if not self.listed:
            self._tallies.put_on_list(self)


def _one_more(slow: tuple[int, ...], seconds: float) -> tuple[int, ...]:
    at = bisect_left(SECONDS, seconds) - 1
    return (*slow[:at], slow[at] + 1, *slow[at + 1 :])


class Tallies:
    """All tallies of one recorder."""

    def __init__(
        self,
        note: Callable[[Event], None],
        ledger: Ledger | None = None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin.

        Args:
            note: takes the events; may raise `AuditError`.
            ledger: has `settle` called with each flush; without one, every call is recorded by
                itself, at once.
            on_refused: told of each call that `admit` refuses.
        """
        self._note, self._ledger, self._on_refused = note, ledger, on_refused
        self.gate = Gate() if ledger is None else ledger.gate
        self._listed: dict[str, deque[Tally]] = {}  # by plugin; a queue once made stays
        # Re-entrant, for a signal handler may record.
        self._lock = threading.RLock()
        self._settling = False

    def tally(self, plugin: str, action: str) -> Tally:
        """A tally for one function of one instance of that plugin."""
        return Tally(self, plugin, action)

    def admit(self) -> None:
        """Pass if a call may begin; to be asked while the gate is shut.

        Raises:
            AuditError: what it does could not be recorded.
        """
        try:
            if self._ledger is not None:
                self._ledger.ready()
        except AuditError:
            self._on_refused()
            raise

    def put_on_list(self, tally: Tally) -> None:
        """There is something to tell of it."""
        queue = self._listed.get(tally.plugin)
        if queue is None:
            queue = self._listed.setdefault(tally.plugin, deque())
        # In this order: set last, it could undo what `settle` has set meanwhile.
        tally.listed = True
        queue.append(tally)
        if self._ledger is None:
            self.settle(tally.plugin)
        else:
            self._ledger.wake()

    def settle(self, plugin: str | None = None) -> None:
        """Record what was counted, of that plugin or of all.

        What can't be recorded stays on the list.

        Raises:
            AuditError: the log can't be written.
        """
        queues = list(self._listed.values()) if plugin is None else [self._listed.get(plugin)]
        for queue in queues:
            if not queue:
                continue
            if self._ledger is not None:
                self._ledger.ready()
            with self._lock:
                if self._settling:  # by what a signal's handler interrupted
                    return
                self._settling = True
                try:
                    self._settle(queue)
                finally:
                    self._settling = False

    def _settle(self, queue: deque[Tally]) -> None:
        # Others append meanwhile; what is taken away is taken away here alone, and last.
        count = len(queue)
        parts: dict[str, dict[Tally, _Total]] = {}
        for index in range(count):
            tally = queue[index]
            # First, so that who adds from now on puts it on the list again.
            tally.listed = False
            # Once, also if it is on the list twice: what could not be recorded stayed there.
            parts.setdefault(tally.action, {})[tally] = tally.total
        for action, totals in parts.items():
            event = _event(queue[0].plugin, action, totals)
            if event is not None:
                self._note(event)
            for tally, total in totals.items():
                tally.told = total
        for _ in range(count):
            queue.popleft()


def tallies_of(recorder: Recorder) -> Tallies:
    """Those of `recorder`, or new ones that record each call by itself."""
    found = getattr(recorder, "tallies", None)
    return found if isinstance(found, Tallies) else Tallies(recorder.record)


def _event(plugin: str, action: str, totals: dict[Tally, _Total]) -> Event | None:
    """What these say that was not told yet."""
    sums: list[Any] = list(_ZERO[:-1])
    slow = list(_ZERO[-1])
    total: Any
    for tally, total in totals.items():
        told: Any = tally.told
        plugin = tally.plugin
        for i in range(len(sums)):
            sums[i] += total[i] - told[i]
        if total[-1] is not told[-1]:
            slow = [n + a - b for n, a, b in zip(slow, total[-1], told[-1], strict=True)]
    calls, seconds, fuel, host_calls, output, net = sums
    if not calls:
        return None
    details: dict[str, Any] = {
        "ms": round(seconds * 1000, 3),
        "fuel": fuel,
        "host-calls": host_calls,
        "output-bytes": output,
        "net-bytes": net,
    }
    if calls > 1:
        counts = (calls - sum(slow), *slow)
        within = {word: n for word, n in zip(_WORDS, counts, strict=True) if n}
        details = {"calls": calls} | details | {"within-ms": within}
    return Event("call", ALLOWED, plugin, action, details=details)


def buckets(within: object) -> list[int] | None:
    """How many calls were within each bound, and beyond; None if `within` is not of an `_event`."""
    if not isinstance(within, dict):
        return None
    counts = [within.get(word, 0) for word in _WORDS]
    return counts if all(type(n) is int and 0 <= n < 2**63 for n in counts) else None
