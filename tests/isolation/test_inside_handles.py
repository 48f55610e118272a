"""Handles and resources in a component's own process: numbers of the host's, numbers of the guest's."""

from __future__ import annotations

from typing import Any

import pytest

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.errors import CapError, OutputLimitExceeded
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Ok
from capwasm_shim.protocol import Outcome
from tests.kit import guest

from .conftest import Enter
from .scripted import Failed

LEASE = Lease()
SIGNATURES = {
    "open": "func(n: u32) -> own<test:host/things.thing>",
    "[method]thing.number": (
        "func(self: borrow<test:host/things.thing>) -> result<u32, enum{closed, denied}>"
    ),
    "give": "func(t: own<test:host/things.thing>) -> u32",
}


class Thing(Handle):
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        super().__init__(LEASE)
        self.n = n

    def number(self) -> int:
        self.check()
        if self.n == 13:
            raise CapError("denied")
        return self.n

    def release(self) -> None:
        CLOSED.append(self.n)


CLOSED: list[int] = []


def give(thing: Thing) -> int:
    thing.close()
    return thing.n


def things(**others: Any) -> Interface:
    functions: dict[str, Any] = {
        "open": Thing,
        "[method]thing.number": Thing.number,
        "give": give,
    } | others
    return Interface("test:host/things@1.0.0", functions, {"thing": Thing}, SIGNATURES)


@pytest.fixture(autouse=True)
def _none_closed() -> None:
    CLOSED.clear()


@pytest.mark.case("LIFE-06")
def test_a_handle_is_used_and_dropped(enter: Enter) -> None:
    process = enter(guest("keeper"), things())
    process.call("open", 0, 7)
    process.call("open", 1, 8)
    assert process.call("use", 0) == Ok(7)
    assert len(process.handles[0]) == 2
    process.call("drop", 0)
    # Told with the very message that ends the call, so the host closes it now.
    assert (CLOSED, process.dropped, len(process.handles[0])) == ([7], [1], 1)
    assert process.call("use", 1) == Ok(8)


@pytest.mark.case("LIFE-07")
def test_a_handle_that_is_given_away_is_not_dropped(enter: Enter) -> None:
    process = enter(guest("keeper"), things())
    process.call("open", 0, 7)
    assert process.call("give", 0) == 7
    assert (CLOSED, process.dropped, len(process.handles[0])) == ([7], [], 0)
    with pytest.raises(Failed) as told:
        process.call("use", 0)
    assert told.value.code == "guest.trap"


def test_a_refusal_is_a_value(enter: Enter) -> None:
    process = enter(guest("keeper"), things())
    process.call("open", 0, 13)
    assert process.call("use", 0) == Err("denied")
    assert process.call("use", 0) == Err("denied")


@pytest.mark.case("LIFE-06")
def test_refuses_a_forged_handle_before_the_host_is_asked(enter: Enter) -> None:
    process = enter(guest("keeper"), things())
    process.call("open", 0, 7)
    process.asked.clear()
    with pytest.raises(Failed) as told:
        process.call("forge", 77)
    assert told.value.code == "guest.trap"
    assert process.asked == []
    # The dead instance's handles are the host's to close, and are not told one by one.
    assert (process.dropped, CLOSED) == ([], [])
    process.close_instance()
    assert CLOSED == [7]


def test_no_handle_is_left_for_the_next_instance(enter: Enter) -> None:
    process = enter(guest("keeper"), things())
    process.call("open", 0, 7)
    process.close_instance()
    process.open()
    process.call("open", 5, 9)
    assert process.call("use", 5) == Ok(9)
    with pytest.raises(Failed) as told:
        process.call("use", 0)
    assert told.value.code == "guest.trap"


def test_more_handles_than_allowed_end_the_call(enter: Enter) -> None:
    process = enter(guest("keeper"), things(), handles=3)
    for slot in range(3):
        process.call("open", slot, slot)
    process.call("drop", 1)
    process.call("open", 1, 5)
    with pytest.raises(Failed) as told:
        process.call("open", 3, 3)
    assert told.value.outcome == Outcome.ABORTED  # the host's table has refused first


def test_what_the_host_aborts_is_over(enter: Enter) -> None:
    def full(_n: int) -> Thing:
        raise OutputLimitExceeded("too much")

    process = enter(guest("keeper"), things(open=full))
    with pytest.raises(Failed) as told:
        process.call("open", 0, 7)
    assert (told.value.outcome, told.value.said) == (Outcome.ABORTED, None)
    assert process.stats[1] == 0
    process.open()


@pytest.mark.case("RES-03")
def test_the_guest_pays_for_what_the_host_does(enter: Enter) -> None:
    def dear(n: int) -> Thing:
        current_call().charge_host_work(n)
        return Thing(n)

    process = enter(guest("keeper"), things(open=dear), fuel=1_000_000)
    process.call("open", 0, 0)
    cheap = process.stats[0]
    process.call("open", 1, 400_000)
    assert process.stats[0] - cheap == 400_000
    process.call("open", 2, 2_000_000)  # all there is, and the host ends it for the rest
    assert process.stats[0] == 1_000_000


@pytest.mark.case("RES-14")
def test_refuses_more_host_calls_than_allowed(enter: Enter) -> None:
    process = enter(guest("keeper"), things(), host_calls=1)
    process.call("open", 0, 7)  # each call has its own
    assert process.call("use", 0) == Ok(7)


@pytest.mark.case("LIFE-09")
def test_the_guests_own_resources_are_numbers(enter: Enter) -> None:
    process = enter(guest("resource"))
    even, other = process.call("make", 4), process.call("make", 6)
    assert even != other
    assert process.call("number", even) == 4
    process.drop(even)
    assert process.call("number", other) == 6
    odd = process.call("make", 3)
    with pytest.raises(Failed) as told:
        process.drop(odd)
    assert told.value.code == "guest.trap"
    assert process.stats == [0, 0]


@pytest.mark.parametrize("wrong", [0, 2, -1, 2**40], ids=["none", "never", "negative", "huge"])
def test_refuses_a_resource_that_there_is_not(enter: Enter, wrong: int) -> None:
    process = enter(guest("resource"))
    process.call("make", 4)
    with pytest.raises(Exception):  # noqa: B017  it ends, or is spoken to too late
        process.drop(wrong)
    assert process.ended().number == 70
