"""Time: `[clock]` in plugin.toml.  `time` and `datetime` work too, with the same grant.

started = clock.monotonic()
clock.sleep(0.1)
print(clock.now().isoformat(), clock.monotonic() - started)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from ._bindings import ClockImport, guard, load

__all__ = ["monotonic", "now", "sleep"]

_clock = cast("ClockImport", load("capwasm_clock", "capwasm_guest.clock"))


def now() -> datetime:
    """The date and time, in UTC."""
    guard("clock")
    return datetime.fromtimestamp(_clock.now() / 1e9, UTC)


def monotonic() -> float:
    """Seconds since some moment; never goes back."""
    guard("clock")
    return _clock.monotonic() / 1e9


def sleep(seconds: float) -> None:
    """Wait, at most as long as a host call may take (`limits.host-call-ms`)."""
    guard("clock")
    _clock.sleep(max(0, int(seconds * 1e9)))
