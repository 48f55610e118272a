"""Random types, random values of them: what goes in comes out, on both ways, in both directions."""

from __future__ import annotations

from string import ascii_lowercase

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.engine import types as t
from capwasm.engine.checks import INT_RANGES
from capwasm.engine.classes import field_name
from capwasm.errors import ValueLimitExceeded
from capwasm.values import Err, Ok, Some, Variant
from tests.engine.echo import Echo, plain

PRIMS = [t.Prim(w) for w in ("bool", *INT_RANGES, "f32", "f64", "char", "string")]
_WORD = st.text(ascii_lowercase, min_size=1, max_size=6)
_NAMES = st.lists(
    st.one_of(_WORD, st.builds("{}-{}".format, _WORD, _WORD), st.sampled_from(["class", "from"])),
    min_size=1,
    max_size=5,
    unique=True,
)


def _named(names: st.SearchStrategy, parts: st.SearchStrategy) -> st.SearchStrategy:
    return names.flatmap(
        lambda ns: st.tuples(*[parts] * len(ns)).map(lambda ps: tuple(zip(ns, ps, strict=True)))
    )


def _compound(inner: st.SearchStrategy) -> st.SearchStrategy:
    maybe = st.none() | inner
    return st.one_of(
        st.builds(t.List, inner),
        st.builds(t.Option, inner),
        st.builds(t.Result, maybe, maybe),
        st.builds(t.Tuple, st.lists(inner, min_size=1, max_size=4).map(tuple)),
        st.builds(t.Record, st.none(), _named(_NAMES, inner)),
        st.builds(t.Variant, st.none(), _named(_NAMES, maybe)),
    )


WORDS = st.one_of(
    st.builds(t.Enum, st.none(), _NAMES.map(tuple)),
    st.builds(t.Flags, st.none(), _NAMES.map(tuple)),
)
TYPES = st.recursive(st.sampled_from(PRIMS) | WORDS, _compound, max_leaves=8)


def values(type_: t.ValType | None) -> st.SearchStrategy:
    """Values as a caller would write them: plain words, mappings."""
    match type_:
        case None:
            return st.none()
        case t.Prim("bool"):
            return st.booleans()
        case t.Prim("string"):
            return st.text(max_size=40)
        case t.Prim("char"):
            return st.characters(exclude_categories=["Cs"])
        case t.Prim("f32"):
            return st.floats(width=32)
        case t.Prim("f64"):
            return st.floats()
        case t.Prim(word):
            return st.integers(*INT_RANGES[word])
        case t.List(t.Prim("u8")):
            return st.binary(max_size=70)
        case t.List(element):
            return st.lists(values(element), max_size=6)
        case t.Tuple(items):
            return st.tuples(*map(values, items))
        case t.Record(_, parts):
            return st.fixed_dictionaries({field_name(n): values(x) for n, x in parts})
        case t.Enum(_, words):
            return st.sampled_from(words)
        case t.Flags(_, words):
            return st.frozensets(st.sampled_from(words))
        case t.Option(payload):
            wrap = Some if isinstance(payload, t.Option) else lambda x: x
            return st.none() | values(payload).map(wrap)
        case t.Result(ok, err):
            return values(ok).map(Ok) | values(err).map(Err)
        case t.Variant(_, cases):
            return st.one_of([st.builds(Variant, st.just(n), values(x)) for n, x in cases])
        case _:
            raise AssertionError(type_)


TYPED = TYPES.flatmap(lambda x: st.tuples(st.just(x), st.lists(values(x), min_size=1, max_size=4)))
_SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(TYPED)
@_SETTINGS
def test_allows_every_value_of_every_type_on_both_ways(typed) -> None:
    type_, samples = typed
    fast, slow = Echo(type_), Echo(type_, fast=False)
    assert flat_of(fast) == flat_of(slow) == strip(type_)
    for value in samples:
        wanted = plain(value)
        for echo in (fast, slow):
            out = echo(value)
            assert plain(echo.seen[-1]) == wanted, "as the host function saw it"
            assert plain(out) == wanted, "as the caller got it back"
            assert plain(echo(out)) == wanted, "what was lifted can be lowered again"
        assert not fast.failures
        assert not slow.failures


def strip(type_: t.ValType | None) -> object:
    """The structure alone, without names."""
    match type_:
        case None | t.Prim():
            return type_
        case t.Record(_, parts) | t.Variant(_, parts):
            return (type(type_), tuple((n, strip(x)) for n, x in parts))
        case t.Enum(_, words) | t.Flags(_, words):
            return (type(type_), words)
        case t.Result(ok, err):
            return (t.Result, strip(ok), strip(err))
        case _:
            return (type(type_), tuple(map(strip, t.children(type_))))


def flat_of(echo: Echo) -> object:
    """The type that `walk` found for the echo's parameter."""
    (export,) = [i for i in echo.types.exports if i.name == ""]
    ((_, found),) = export.function("g").params
    return strip(found)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just(object()),
    st.just("\ud800"),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(_WORD, st.integers(), max_size=2),
    st.builds(Ok, st.none()),
    st.builds(Variant, _WORD, st.integers()),
    st.builds(Some, st.integers()),
)


@pytest.mark.case("TYP-04", "TYP-05")
@given(TYPES.flatmap(lambda x: st.tuples(st.just(x), values(x))), st.lists(JUNK, max_size=6))
@_SETTINGS
def test_refuses_or_keeps_every_junk_value_and_goes_on(typed, junk) -> None:
    type_, good = typed
    fast, slow = Echo(type_), Echo(type_, fast=False)
    for value in junk:
        verdicts = []
        for echo in (fast, slow):
            entered = len(echo.seen)
            refused: Exception | None = None
            try:
                verdicts.append(plain(echo(value)))
            except (TypeError, ValueError) as exc:
                verdicts.append(str(exc))
                refused = exc
            if refused is not None:
                assert type(refused) in {TypeError, ValueError}
                assert str(refused).startswith("argument x"), "the path is told"
                assert len(echo.seen) == entered, "the guest was not entered"
        assert verdicts[0] == verdicts[1], "both ways agree, to the word"
    for echo in (fast, slow):
        assert plain(echo(good)) == plain(good), "a refusal leaves nothing behind"


@pytest.mark.case("RES-16", "RES-18")
@given(TYPED, st.integers(0, 400))
@_SETTINGS
def test_refuses_the_same_sizes_on_both_ways(typed, limit) -> None:
    type_, samples = typed
    fast, slow = Echo(type_, value_bytes=limit), Echo(type_, value_bytes=limit, fast=False)
    for value in samples:
        verdicts = []
        for echo in (fast, slow):
            try:
                verdicts.append(plain(echo(value)))
            except ValueLimitExceeded:
                verdicts.append("too large")
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] in ("too large", plain(value))
