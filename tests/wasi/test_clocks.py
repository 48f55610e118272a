"""Clocks come from the clock capability or not at all."""

from __future__ import annotations

import pytest

from capwasm.errors import GuestTrap
from tests.helpers import in_call

from .served import VirtualTime, Wasi, clock_state


def test_allows_the_granted_clock_at_its_step() -> None:
    source = VirtualTime()
    wasi = Wasi({"clock": clock_state(source)})

    with in_call():
        assert wasi["clocks/wall-clock.now"]() == {
            "seconds": 1_700_000_000,
            "nanoseconds": 123_000_000,
        }
        assert wasi["clocks/wall-clock.resolution"]() == {"seconds": 0, "nanoseconds": 1_000_000}
        assert wasi["clocks/monotonic-clock.resolution"]() == 1_000_000
        assert wasi["clocks/monotonic-clock.now"]() == 1
        source.now += 5_400_000
        assert wasi["clocks/monotonic-clock.now"]() == 5_000_000


@pytest.mark.parametrize(
    "function",
    [
        "clocks/wall-clock.now",
        "clocks/wall-clock.resolution",
        "clocks/monotonic-clock.now",
        "clocks/monotonic-clock.resolution",
        "clocks/monotonic-clock.subscribe-instant",
        "clocks/monotonic-clock.subscribe-duration",
    ],
)
def test_refuses_a_clock_that_is_not_granted_and_names_the_table(function: str) -> None:
    wasi = Wasi()

    for _ in range(3):
        with in_call(), pytest.raises(GuestTrap) as caught:
            wasi[function](1) if "subscribe" in function else wasi[function]()

    assert caught.value.code == "grant.denied"
    assert caught.value.faults[0].fix == "[clock]"
    # Once a function, however often it is called.
    [event] = wasi.events
    assert (event.verdict, event.action) == ("denied", f"wasi:{function}")


def test_refuses_to_wait_on_a_clock_that_may_not() -> None:
    wasi = Wasi({"clock": clock_state(VirtualTime(), sleep=False)})

    with in_call():
        timer = wasi["clocks/monotonic-clock.subscribe-duration"](10**9)
        assert timer.ready() is False
        with pytest.raises(GuestTrap, match="sleep"):
            timer.block()


def test_refuses_the_wall_clock_where_only_the_other_is_granted() -> None:
    wasi = Wasi({"clock": clock_state(VirtualTime(), wall=False)})

    with in_call():
        assert wasi["clocks/monotonic-clock.now"]() == 1
        with pytest.raises(GuestTrap, match="wall"):
            wasi["clocks/wall-clock.now"]()


def test_refuses_to_tell_where_the_host_stands() -> None:
    wasi = Wasi()

    assert wasi["clocks/timezone.utc-offset"](None) == 0
    assert wasi["clocks/timezone.display"](None) == {
        "utc_offset": 0,
        "name": "UTC",
        "in_daylight_saving_time": False,
    }
