"""`wasi:clocks`, from the clock capability.

A timer is a number in a handle: it starts no thread and no host timer, so ten thousand of them cost
what the handle limit lets them.  There is no time zone: where the host stands is nobody's business.
"""

from __future__ import annotations

from typing import Protocol

from capwasm.capability import HostFunc, Interface
from capwasm.handles import Lease

from ._refuse import Ledger, Refused, named
from .io import Pollable

__all__ = ["Timer", "interfaces"]

_SECOND = 1_000_000_000


class _Clock(Protocol):
    """The part of the clock capability's state that is used here; all in nanoseconds.

    These functions have no error to return, so a state that refuses ends the call itself.
    """

    def resolution_ns(self) -> int:
        """The length of one step."""

    def now_ns(self) -> int:
        """Since 1970-01-01T00:00:00Z."""

    def monotonic_ns(self) -> int:
        """Since some moment; never goes back."""

    def sleep(self, ns: int, /) -> None:
        """Wait, at most as long as a host call may; end the call when it is cancelled."""


class Timer(Pollable):
    """Ready from an instant of the monotonic clock on."""

    __slots__ = ("_at", "_clock")

    def __init__(self, clock: _Clock, at: int) -> None:
        """Ready once the clock shows `at`."""
        super().__init__(Lease())
        self._clock = clock
        self._at = at

    def wait_ns(self) -> int:
        """Nanoseconds left."""
        return self._at - self._clock.monotonic_ns()

    def pause(self, ns: int) -> None:
        """Sleep by the clock that was granted."""
        self._clock.sleep(ns)


def interfaces(clock: _Clock | None, ledger: Ledger) -> list[Interface]:
    """`wasi:clocks/*`; `clock` is the clock capability's state, or None where not granted."""
    timezone = Interface(
        named("clocks/timezone"),
        {"display": lambda _when: _UTC, "utc-offset": lambda _when: 0},
        signatures=_UNSTABLE,
    )
    return [*(_granted(clock) if clock is not None else _refused(ledger)), timezone]


# Behind a feature gate in the WIT text, so not in the ABI table.
_UNSTABLE = {
    "display": (
        "func(when: record{seconds: u64, nanoseconds: u32}) -> "
        "record{utc-offset: s32, name: string, in-daylight-saving-time: bool}"
    ),
    "utc-offset": "func(when: record{seconds: u64, nanoseconds: u32}) -> s32",
}
_UTC = {"utc_offset": 0, "name": "UTC", "in_daylight_saving_time": False}


def _granted(clock: _Clock) -> list[Interface]:
    return [
        Interface(
            named("clocks/monotonic-clock"),
            {
                # Go's runtime takes a clock that shows zero for one that doesn't work, and ends.
                "now": lambda: max(1, clock.monotonic_ns()),
                "resolution": clock.resolution_ns,
                "subscribe-instant": lambda at: Timer(clock, at),
                "subscribe-duration": lambda ns: Timer(clock, clock.monotonic_ns() + ns),
            },
        ),
        Interface(
            named("clocks/wall-clock"),
            {
                "now": lambda: _datetime(clock.now_ns()),
                "resolution": lambda: _datetime(clock.resolution_ns()),
            },
        ),
    ]


def _refused(ledger: Ledger) -> list[Interface]:
    def all_of(interface: str, *names: str) -> Interface:
        functions: dict[str, HostFunc] = {
            name: Refused(ledger, f"wasi:{interface}.{name}", table="clock") for name in names
        }
        return Interface(named(interface), functions)

    return [
        all_of(
            "clocks/monotonic-clock", "now", "resolution", "subscribe-instant", "subscribe-duration"
        ),
        all_of("clocks/wall-clock", "now", "resolution"),
    ]


def _datetime(ns: int) -> dict[str, int]:
    return {"seconds": ns // _SECOND, "nanoseconds": ns % _SECOND}
