from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.caps.random import RandomClause, RandomState, SeededBytes, system_bytes
from capwasm.errors import CallInterrupted, CapError
from tests.helpers import grant_of, in_call, open_context


def state_of(*clauses: RandomClause, deny=(), source=system_bytes):
    grant, ctx = grant_of(*clauses, deny=deny), open_context(Path("/nowhere"))
    return RandomState(grant, ctx, source), grant, ctx


@given(st.integers(0, 65536))
def test_allows_exactly_as_many_bytes_as_asked_and_charges_each(length: int) -> None:
    state, _, _ = state_of(RandomClause())
    with in_call() as call:
        assert len(state.bytes(length)) == length
        assert call.host_fuel == length


@pytest.mark.case("RES-15")
@pytest.mark.parametrize("length", [65537, 2**32 - 1, 2**40])
def test_refuses_more_than_64_kib_and_draws_nothing(length: int) -> None:
    drawn: list[int] = []
    state, _, ctx = state_of(RandomClause(2**60), source=lambda n: drawn.append(n) or b"")

    with in_call() as call, pytest.raises(CapError) as caught:
        state.bytes(length)

    assert caught.value.word == "too-large"
    assert not drawn
    assert call.host_fuel == 0
    assert [(e.kind, e.verdict) for e in ctx.recorder.events] == [("random", "denied")]


@pytest.mark.case("RES-15")
def test_refuses_more_than_the_grant_says() -> None:
    state, _, _ = state_of(RandomClause(16))

    with in_call():
        assert len(state.bytes(16)) == 16
        with pytest.raises(CapError, match="too-large"):
            state.bytes(17)


@pytest.mark.case("LIFE-05")
@pytest.mark.parametrize("why", ["nothing granted", "denied", "revoked"])
def test_refuses_without_a_grant_in_force(why: str) -> None:
    clauses = () if why == "nothing granted" else (RandomClause(),)
    state, grant, ctx = state_of(*clauses, deny=(RandomClause(),) if why == "denied" else ())
    if why == "revoked":
        grant.allow[0].lease.revoke("test")

    with in_call():
        with pytest.raises(CapError, match="denied"):
            state.bytes(1)
        with pytest.raises(CallInterrupted):
            state.next_u64()
    assert len(ctx.recorder.of("denied")) == 2


def test_allows_bytes_that_differ_each_time() -> None:
    state, _, _ = state_of(RandomClause())
    with in_call():
        assert len({state.bytes(16) for _ in range(64)}) == 64
        assert all(0 <= state.next_u64() < 2**64 for _ in range(64))


def test_allows_a_replay_only_from_an_explicit_seed() -> None:
    first, again, other = SeededBytes(b"a"), SeededBytes(b"a"), SeededBytes(b"b")
    lengths = [1, 32, 100]

    drawn = [first(n) for n in lengths]
    assert drawn == [again(n) for n in lengths]
    assert drawn != [other(n) for n in lengths]
