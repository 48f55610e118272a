"""Time that stands still until a test, or the plugin's own waiting, moves it on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["EPOCH", "SteppedTime"]

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""When a bench's clock starts."""


class SteppedTime:
    """A `caps.clock.TimeSource`.  For any thread."""

    def __init__(self, start: datetime = EPOCH) -> None:
        """Stand at `start`, which has a time zone."""
        self._lock = threading.Lock()
        self._wall = _ns(start)
        self._gone = 0

    @property
    def now(self) -> datetime:
        """The time of day that the plugin reads; set it to jump there."""
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._wall // 1000)

    @now.setter
    def now(self, when: datetime) -> None:
        with self._lock:
            self._wall = _ns(when)

    @property
    def elapsed(self) -> float:
        """Seconds that were stepped or slept so far."""
        return self._gone / 1e9

    def step(self, seconds: float) -> None:
        """Let time go by, at once.

        Raises:
            ValueError: backwards; set `now` for that.
        """
        if seconds < 0:
            raise ValueError("time that goes by goes forward; set now to jump back")
        self.sleep_ns(round(seconds * 1e9))

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._wall

    def monotonic_ns(self) -> int:
        """Nanoseconds that went by; a jump of the time of day does not show here."""
        return self._gone

    def sleep_ns(self, ns: int) -> None:
        """Let them go by without waiting."""
        with self._lock:
            self._wall += ns
            self._gone += ns


def _ns(when: datetime) -> int:
    if when.tzinfo is None:
        raise ValueError("a time needs a time zone: datetime(..., tzinfo=UTC)")
    return round((when - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1)) * 1000
