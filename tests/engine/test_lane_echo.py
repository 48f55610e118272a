"""Random types and values through a composed component: as on the other ways, to the word."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.engine import types as t
from capwasm.errors import ValueLimitExceeded
from tests.engine.echo import plain
from tests.engine.laned import LanedEcho
from tests.engine.test_plan import REFUSED
from tests.engine.test_plan_property import JUNK, TYPED, TYPES, values

_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(TYPED)
@_SETTINGS
def test_allows_every_value_of_every_type(typed) -> None:
    type_, samples = typed
    echo = LanedEcho(type_)
    for value in samples:
        wanted = plain(value)
        out = echo(value)
        assert plain(echo.seen[-1]) == wanted, "as the host function saw it"
        assert plain(out) == wanted, "as the caller got it back"
        assert plain(echo(out)) == wanted, "what was lifted can be lowered again"
    assert not echo.failures


@pytest.mark.case("TYP-04", "TYP-05")
@given(TYPES.flatmap(lambda x: st.tuples(st.just(x), values(x))), st.lists(JUNK, max_size=6))
@_SETTINGS
def test_refuses_or_keeps_every_junk_value_as_the_other_way_does(typed, junk) -> None:
    type_, good = typed
    ways = LanedEcho(type_), LanedEcho(type_, lane=False)
    for value in junk:
        verdicts = []
        for echo in ways:
            entered = len(echo.seen)
            try:
                verdicts.append(plain(echo(value)))
            except (TypeError, ValueError) as exc:
                assert len(echo.seen) == entered, "the guest was not entered"
                verdicts.append((type(exc), str(exc)))
        assert verdicts[0] == verdicts[1]
    for echo in ways:
        assert plain(echo(good)) == plain(good), "a refusal leaves nothing behind"


@pytest.mark.case("RES-16", "RES-18")
@given(TYPED, st.integers(0, 400))
@_SETTINGS
def test_refuses_the_same_sizes_as_the_other_way(typed, limit) -> None:
    type_, samples = typed
    ways = [LanedEcho(type_, lane=lane, value_bytes=limit) for lane in (True, False)]
    for value in samples:
        verdicts = []
        for echo in ways:
            try:
                verdicts.append(plain(echo(value)))
            except ValueLimitExceeded:
                verdicts.append("too large")
        assert verdicts[0] == verdicts[1]


@pytest.mark.case("TYP-04", "TYP-05", "TYP-06", "TYP-07")
@pytest.mark.parametrize(
    ("type_", "value", "error", "message"), REFUSED, ids=map(str, range(len(REFUSED)))
)
def test_refuses_an_argument_and_a_result_in_the_same_words(type_, value, error, message) -> None:
    told = []
    for echo in (LanedEcho(type_), LanedEcho(type_, lane=False)):
        with pytest.raises(error) as info:
            echo(value)
        assert echo.seen == []
        told.append(str(info.value))
    assert told[0] == told[1]


MANY = t.Record(None, tuple((f"f{i}", t.Prim("u64")) for i in range(17)))
SHAPES = [
    pytest.param(MANY, {f"f{i}": 2**64 - 1 - i for i in range(17)}, id="parameters by pointer"),
    pytest.param(t.Prim("u8"), 7, id="one slot"),
    pytest.param(t.Prim("f32"), -0.5, id="one slot of a float"),
    pytest.param(t.Prim("f64"), 0.1, id="one slot of a double"),
    pytest.param(t.Prim("s8"), -1, id="a sign"),
    pytest.param(t.Result(t.List(t.Prim("u8")), t.Prim("f32")), None, id="joined"),
    pytest.param(t.List(t.Prim("u8")), bytes(range(256)) * 4000, id="a megabyte"),
    pytest.param(t.List(t.List(t.Prim("u16"))), [[1, 2], [], [65535] * 9], id="lists in a list"),
]


@pytest.mark.parametrize(("type_", "value"), SHAPES)
def test_allows_every_shape_that_the_adapters_know(type_, value) -> None:
    from capwasm.values import Err, Ok

    echo = LanedEcho(type_)
    for x in [Ok(b"\xff" * 33), Err(1.5), Ok(b"")] if value is None else [value]:
        for _ in range(3):  # what one call leaves does not show in the next
            assert plain(echo(x)) == plain(x)
            assert plain(echo.seen[-1]) == plain(x)


@pytest.mark.case("LIFE-08")
def test_calls_may_nest_and_keep_their_values_apart() -> None:
    # One codec for each call under way: an inner call must not write in the outer one's.
    outer, inner = (LanedEcho(t.List(t.List(t.Prim("u32")))) for _ in range(2))
    inner.host = lambda x: [[len(x)], *x]
    outer.host = lambda x: inner([*x, [7] * 500]) if len(x) < 3 else x
    assert outer([[1], [2, 3]]) == [[3], [1], [2, 3], [7] * 500]
    assert outer.seen == [[[1], [2, 3]]]
    assert inner.seen == [[[1], [2, 3], [7] * 500]]
    outer.host = lambda x: inner(b"not a list")
    with pytest.raises(Exception, match="told on the record"):
        outer([[1]])
    assert isinstance(outer.failures[-1], TypeError)
