from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.caps.clock import ClockClause, ClockState, SystemTime
from capwasm.errors import CallInterrupted, GuestTrap
from capwasm.limits import Limits
from tests.helpers import grant_of, in_call, open_context


class Virtual:
    """Time that moves only when somebody sleeps, or when the test says so."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_123_456_789
        self.mono = 987_654_321
        self.naps: list[int] = []

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.mono

    def sleep_ns(self, ns: int) -> None:
        self.naps.append(ns)
        self.mono += ns
        self.wall += ns


def clock(*clauses: ClockClause, source=None, deny=(), path=Path("/nowhere")):
    grant = grant_of(*clauses, deny=deny)
    ctx = open_context(path)
    return ClockState(grant, ctx, source or Virtual()), grant, ctx


def test_allows_time_rounded_down_to_the_resolution() -> None:
    source = Virtual()
    state, _, _ = clock(ClockClause(100), source=source)
    source.mono += 1_999_999_999

    assert state.now_ns() == 1_700_000_000_100_000_000
    assert state.monotonic_ns() == 1_900_000_000
    assert state.resolution_ns() == 100_000_000


def test_a_date_that_is_set_stands_still_while_time_goes_on() -> None:
    source = Virtual()
    state, _, _ = clock(ClockClause(date="2027-01-31T00:00:00Z"), source=source)
    source.sleep_ns(3_000_000_000)

    assert state.now_ns() == 1_801_353_600_000_000_000
    assert state.monotonic_ns() == 3_000_000_000


def test_allows_the_true_date_where_one_rule_does() -> None:
    fixed = ClockClause(date="2027-01-31T00:00:00Z")
    state, grant, _ = clock(fixed, ClockClause(1000))
    assert state.now_ns() == 1_700_000_000_000_000_000
    assert state.monotonic_ns() % 1_000_000 == 0

    grant.allow[1].lease.revoke("enough")
    assert state.now_ns() == 1_801_353_600_000_000_000


def test_refuses_to_tell_how_long_the_host_has_been_up() -> None:
    state, _, _ = clock(ClockClause(), source=SystemTime())

    assert state.monotonic_ns() < 10**9


@pytest.mark.case("PER-09")
def test_refuses_to_go_back_when_a_finer_grant_is_revoked() -> None:
    source = Virtual()
    state, grant, _ = clock(ClockClause(1, wall=False), ClockClause(1000), source=source)
    source.mono += 1_500_000_000
    before = state.monotonic_ns()
    grant.allow[0].lease.revoke("test")

    assert before == 1_500_000_000
    assert state.monotonic_ns() == before
    source.mono += 600_000_000
    assert state.monotonic_ns() == 2_000_000_000


@pytest.mark.parametrize("wall", [-1, -(2**70), 2**70])
def test_allows_no_time_outside_64_bits(wall: int) -> None:
    source = Virtual()
    source.wall = wall
    state, _, _ = clock(ClockClause(), source=source)

    assert 0 <= state.now_ns() < 2**64


@given(
    st.integers(1, 10_000),
    st.lists(st.integers(0, 10**10), min_size=1, max_size=8),
)
def test_allows_only_multiples_of_the_resolution_that_never_fall(
    resolution: int, steps: list[int]
) -> None:
    source = Virtual()
    state, _, _ = clock(ClockClause(resolution), source=source)
    last = 0
    for step in steps:
        source.mono += step
        now = state.monotonic_ns()
        assert now % (resolution * 1_000_000) == 0
        assert now >= last
        last = now


def test_refuses_the_date_and_waiting_where_not_granted() -> None:
    state, _, ctx = clock(ClockClause(wall=False, sleep=False))

    with in_call():
        assert state.monotonic_ns() == 0
        with pytest.raises(GuestTrap, match="wall is not granted"):
            state.now_ns()
        with pytest.raises(GuestTrap, match="sleep is not granted"):
            state.sleep(1)
    assert [(e.kind, e.verdict, e.action) for e in ctx.recorder.events] == [
        ("clock", "denied", "wall"),
        ("clock", "denied", "sleep"),
    ]


def test_refuses_what_a_deny_rule_names_and_allows_the_rest() -> None:
    state, _, _ = clock(ClockClause(), deny=(ClockClause(wall=False, sleep=True),))

    with in_call():
        assert state.now_ns() > 0
        assert state.monotonic_ns() == 0
        with pytest.raises(GuestTrap):
            state.sleep(1)


@pytest.mark.case("LIFE-05")
def test_refuses_all_of_it_once_revoked() -> None:
    state, grant, _ = clock(ClockClause())
    with in_call():
        assert state.now_ns() > 0
        grant.allow[0].lease.revoke("test")
        for operation in (state.now_ns, state.monotonic_ns, lambda: state.sleep(1)):
            with pytest.raises(CallInterrupted, match="revoked"):
                operation()


def test_allows_to_sleep_in_slices_until_the_end() -> None:
    source = Virtual()
    state, _, _ = clock(ClockClause(), source=source)

    with in_call():
        state.sleep(50_000_001)

    assert sum(source.naps) == 50_000_001
    assert max(source.naps) <= 20_000_000


@pytest.mark.case("RES-24", "RES-04")
@pytest.mark.parametrize("limits", [Limits(host_call_ms=80), Limits(wall_ms=80)])
def test_refuses_to_sleep_for_years(limits: Limits) -> None:
    state, _, _ = clock(ClockClause(), source=SystemTime())
    begin = time.monotonic()

    with in_call(limits):
        state.sleep(2**64 - 1)

    assert 0.05 < time.monotonic() - begin < 5


@pytest.mark.case("RES-24", "LIFE-05")
@pytest.mark.parametrize("how", ["cancel", "revoke"])
def test_refuses_to_sleep_on_when_another_thread_says_so(how: str) -> None:
    state, grant, _ = clock(ClockClause(), source=SystemTime())
    begin = time.monotonic()
    with in_call() as call:
        action = {
            "cancel": lambda: call.interrupt("killed"),
            "revoke": lambda: grant.allow[0].lease.revoke("test"),
        }[how]
        timer = threading.Timer(0.05, action)
        timer.start()
        with pytest.raises(CallInterrupted):
            state.sleep(4_000_000_000)
        timer.join()

    assert time.monotonic() - begin < 2
