"""Values in frames: the same as in process, both ways; and whatever else stands in a frame is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.engine import types as t
from capwasm.engine.abi import canonical, table
from capwasm.engine.abi_types import function_type, parse
from capwasm.engine.classes import Classes
from capwasm.errors import ValueLimitExceeded
from capwasm.isolation.codec import Codec
from capwasm.isolation.decode import decoder
from capwasm.isolation.wire import Crossing
from capwasm_shim.frames import ProtocolFault
from tests.engine.echo import Echo, plain
from tests.engine.test_plan_property import JUNK, TYPED, TYPES, values

_SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HANDLES: Any = SimpleNamespace(handle=None)  # for types that have none


def through_a_frame(value: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(value), max_map_len=0)


class Wired:
    """What `Echo` does, through frames: there as an argument, back as a result."""

    def __init__(self, type_: t.ValType, limit: int = 1 << 24) -> None:
        self.codec = Codec("g", t.FuncType((("x", type_),), type_), Classes())
        self.limit = limit

    def crossing(self) -> Crossing:
        return Crossing(self.limit, HANDLES)

    def __call__(self, value: Any) -> Any:
        raw = through_a_frame(self.codec.encode_args((value,), self.crossing()))
        (seen,) = self.codec.decode_args(raw, self.crossing())
        raw = through_a_frame(self.codec.encode_result(seen, self.crossing()))
        return self.codec.decode_result(raw, self.crossing())


@given(TYPED)
@_SETTINGS
def test_allows_every_value_of_every_type_as_in_process(typed: Any) -> None:
    type_, samples = typed
    wired = Wired(type_)
    for value in samples:
        out = wired(value)
        assert plain(out) == plain(value)
        assert plain(wired(out)) == plain(value), "what came back can go again"


@pytest.mark.case("TYP-04", "TYP-05")
@given(TYPES.flatmap(lambda x: st.tuples(st.just(x), values(x))), st.lists(JUNK, max_size=6))
@_SETTINGS
def test_refuses_what_is_refused_in_process_in_the_same_words(typed: Any, junk: Any) -> None:
    type_, good = typed
    echo, wired = Echo(type_), Wired(type_)
    for value in [*junk, good]:
        verdicts = []
        for way in (echo, wired):
            try:
                verdicts.append((None, plain(way(value))))
            except (TypeError, ValueError) as exc:
                verdicts.append((type(exc), str(exc)))
        assert verdicts[0] == verdicts[1]


@pytest.mark.case("RES-16", "RES-18", "IPC-04")
@given(TYPED, st.integers(0, 400))
@_SETTINGS
def test_refuses_the_same_sizes_as_in_process(typed: Any, limit: int) -> None:
    type_, samples = typed
    echo, wired = Echo(type_, value_bytes=limit), Wired(type_, limit)
    for value in samples:
        verdicts = []
        for way in (echo, wired):
            try:
                verdicts.append(plain(way(value)))
            except ValueLimitExceeded:
                verdicts.append("too large")
        assert verdicts[0] == verdicts[1]


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(-300, 300), st.integers(-(2**63), 2**64 - 1),
    st.floats(), st.text(max_size=3), st.binary(max_size=9), st.builds(memoryview, st.binary(max_size=8)),
)  # fmt: skip
OBJECTS = st.recursive(ATOMS, lambda x: st.lists(x, max_size=4), max_leaves=16)


@pytest.mark.case("IPC-05")
@given(TYPES, st.lists(OBJECTS, min_size=1, max_size=8), st.integers(0, 2000))
@settings(_SETTINGS, max_examples=120)
def test_whatever_stands_in_a_frame_is_a_value_of_the_type_or_a_fault(
    type_: t.ValType, raws: list[Any], limit: int
) -> None:
    wired = Wired(type_)
    decode = decoder(type_, Classes(), "x")
    for raw in raws:
        try:
            value = decode(raw, Crossing(limit, HANDLES))
        except (ProtocolFault, ValueLimitExceeded):
            continue
        assert plain(wired(value)) == plain(value), "it is of the type, for it can cross as one"


@pytest.mark.case("IPC-05")
@pytest.mark.parametrize(
    ("type_", "raws"),
    [
        ("bool", [0, 1, None, "true"]),
        ("u8", [-1, 256, True, 1.0, "1"]),
        ("s64", [2**63, -(2**63) - 1]),
        ("f32", [1, "1", 1e39, None]),
        ("f64", [1, True]),
        ("char", ["", "ab", "\ud800", 97]),
        ("string", [b"x", "\udfff", None]),
        ("list<u8>", ["x", [1, 2], None]),
        ("list<u32>", [[1], b"123", "1234"]),
        ("list<bool>", [b"\0\1\2", b"\1\2\1"]),
        ("list<string>", [{}, ("x",), "x", [1]]),
        ("option<u8>", [[], [1, 2], 1, [None]]),
        ("result<u8, string>", [[0], [2, 1], [0, None], [1, 1], [True, "x"], [0, 1, 2], 0]),
        ("result<_, _>", [[0, 1], [1, 0], []]),
        ("enum{a, b}", [2, -1, "a", None, True]),
        ("flags{a, b}", [4, -1, [0], True]),
        ("variant{a(_), b(u8)}", [[0, 1], [1, None], [2, None], [0], 0]),
        ("record{a: u8, b: u8}", [[1], [1, 2, 3], {"a": 1}, [1, "2"]]),
        ("tuple<u8>", [[], [1, 2], 1]),
        ("own<a:b/c.d>", [0, -1, 2**32, True, "1", None]),
        ("borrow<a:b/c.d>", [0, [1]]),
    ],
)
def test_refuses_what_is_almost_right(type_: str, raws: list[Any]) -> None:
    codec = Codec("f", parse(f"func() -> {type_}"), Classes())
    for raw in raws:
        with pytest.raises(ProtocolFault):
            codec.decode_result(raw, Crossing(1000, HANDLES))


def test_refuses_a_result_where_there_is_none() -> None:
    codec = Codec("f", t.FuncType((), None), Classes())
    assert codec.decode_result(None, Crossing(0, HANDLES)) is None
    with pytest.raises(ProtocolFault):
        codec.decode_result(0, Crossing(0, HANDLES))


# -- our own signatures ------------------------------------------------------------------------------


def test_every_signature_of_the_table_is_read_and_written_again() -> None:
    for interface, functions in table().items():
        for name, text in functions.items():
            type_ = function_type(interface, name)
            assert type_ is not None
            assert canonical(type_) == text
    assert function_type("capwasm:fs/files", "no-such") is None


@given(TYPES, st.none() | TYPES)
@_SETTINGS
def test_every_signature_is_read_as_it_was_written(param: t.ValType, result: Any) -> None:
    text = canonical(t.FuncType((("x", param),), result))
    assert canonical(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "func", "func()", "func() -> ", "func() -> u9", "func() -> list<u8", "func() -> u8 ",
        "func(x u8) -> _", "func(x: u8 y: u8) -> _", "func() -> result<u8>", "func() -> enum{a b}",
        "func() -> tuple<>", "func() -> own<>x", "func() -> record{a}", "func() -> _,",
    ],
)  # fmt: skip
def test_refuses_what_is_no_signature(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
