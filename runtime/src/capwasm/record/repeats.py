"""Denials that come again and again: the first ones each by itself, the rest as a number.

A plugin that asks for the same thing in a loop would fill the disk with its refusals, and have the
host wait for the disk at each.  So of denials that are the same in every word, the first `FIRST` in a
second are recorded one by one, on the disk before the plugin hears of them.  What comes on top of
them within that second is counted, and recorded with the next flush as one record that says how
often: `times`.  None is left out, and each was preceded by `FIRST` of its own kind.

A denial that differs in anything (another path, another host) is another denial.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Final

from capwasm.events import ASKED, DENIED, Event

__all__ = ["FIRST", "Repeats"]

FIRST: Final = 20
WINDOW_SECONDS: Final = 1.0
MOST_KINDS: Final = 10_000
"""Different denials that are told apart within a window; beyond, each is recorded by itself."""

_Key = tuple[Hashable, ...]


class Repeats:
    """Counts denials on their way to the log.  For any thread."""

    def __init__(self, note: Callable[[Event], None]) -> None:
        """Nothing was denied yet.

        Args:
            note: keeps an event, to be safe with the next flush; may raise `AuditError`.
        """
        self._note = note
        self._seen: dict[_Key, int] = {}
        self._until = 0.0
        # Whoever counts appends, and does nothing else: so no thread and no signal loses one.
        self._waiting: deque[tuple[_Key, Event]] = deque()
        self._owed: Counter[_Key] = Counter()
        self._events: dict[_Key, Event] = {}
        # Re-entrant, for a signal's handler may record.
        self._lock = threading.RLock()
        self._settling = False

    def takes(self, event: Event) -> bool:
        """Whether an event is one of many, and was counted here in place of a record of its own."""
        if event.verdict != DENIED or event.kind not in ASKED:
            return False
        key = _key(event)
        if key is None:
            return False
        now = time.monotonic()
        if now >= self._until:
            self._seen, self._until = {}, now + WINDOW_SECONDS
        seen = self._seen
        count = seen.get(key, 0)
        if count < FIRST:
            if count or len(seen) < MOST_KINDS:
                seen[key] = count + 1
            return False
        self._waiting.append((key, event))
        return True

    def settle(self) -> None:
        """Have what was counted kept.  What can't be stays counted.

        Raises:
            AuditError: the log can't be written.
        """
        if not self._waiting and not self._owed:
            return
        with self._lock:
            if self._settling:  # by what a signal's handler interrupted
                return
            self._settling = True
            try:
                self._settle()
            finally:
                self._settling = False

    def _settle(self) -> None:
        for _ in range(len(self._waiting)):
            key, event = self._waiting[0]
            self._owed[key] += 1
            self._events[key] = event
            self._waiting.popleft()  # only now: to count one twice is better than not at all
        for key, times in list(self._owed.items()):
            event = self._events[key]
            self._note(replace(event, details={**event.details, "times": times}))
            del self._owed[key], self._events[key]


def _key(event: Event) -> _Key | None:
    """All that an event says; None if that can't be compared."""
    try:
        details = tuple(event.details.items())
        key = (event.kind, event.plugin, event.action, event.target, event.reason, details)
        hash(key)
    except TypeError:
        return None
    return key
