"""Values as JSON: what goes out comes back in, and every misfit is told with its place."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.engine import types as t
from capwasm.engine.classes import field_name
from capwasm.jsonvalues import JsonValueError, from_json, from_text, to_json
from capwasm.values import Err, Ok, Some, Variant
from tests.engine.echo import Echo, plain
from tests.engine.test_plan_property import TYPED, TYPES

STRING, U8, S8, F32 = t.Prim("string"), t.Prim("u8"), t.Prim("s8"), t.Prim("f32")
_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def exact(type_: t.ValType | None, value: Any) -> Any:
    """The value as it is after it crossed: an f32 has the bits of one."""
    match type_, value:
        case t.Prim("f32"), float():
            # As in `plain`, and in the component model, there is one NaN; its sign does not cross.
            return struct.pack("f", math.nan if math.isnan(value) else value)
        case t.List(element), list():
            return [exact(element, x) for x in value]
        case t.Tuple(items), tuple():
            return tuple(map(exact, items, value))
        case t.Record(_, fields), dict():
            return {n: exact(x, value[field_name(n)]) for n, x in fields}
        case t.Option(payload), Some(inner):
            return Some(exact(payload, inner))
        case t.Option(payload), _:
            return exact(payload, value)
        case t.Result(ok, _), Ok(inner):
            return Ok(exact(ok, inner))
        case t.Result(_, err), Err(inner):
            return Err(exact(err, inner))
        case t.Variant(_, cases), Variant(case, inner):
            return Variant(case, exact(dict(cases)[case], inner))
        case _:
            return plain(value)


@given(TYPED)
@_SETTINGS
def test_allows_every_value_to_come_back_as_it_went_out(typed: Any) -> None:
    type_, samples = typed
    for value in samples:
        text = json.dumps(to_json(type_, value), allow_nan=False)
        back = from_json(type_, json.loads(text))

        assert exact(type_, back) == exact(type_, value)
        assert to_json(type_, back) == json.loads(text)


@given(TYPED)
@settings(_SETTINGS, max_examples=25)
def test_allows_what_a_component_returned_to_be_its_argument(typed: Any) -> None:
    type_, samples = typed
    echo = Echo(type_)
    for value in samples:
        returned = echo(value)
        document = to_json(type_, returned)

        assert plain(echo(from_json(type_, document))) == plain(returned)


DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", 2**70, "nan"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "ok", "err", "some", "base64"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(TYPES, DOCUMENTS)
@_SETTINGS
def test_refuses_or_reads_any_document_and_nothing_else_happens(type_: Any, document: Any) -> None:
    try:
        value = from_json(type_, document, "x")
    except JsonValueError as exc:
        faults = exc.faults
    else:
        json.dumps(to_json(type_, value), allow_nan=False)
        return
    assert faults
    assert all(f.path.startswith("x") and len(f.message) <= 400 for f in faults)


@given(TYPES, st.text(max_size=12) | st.sampled_from(["[" * 100_000, "NaN", "9" * 5000, '"']))
@_SETTINGS
def test_refuses_or_reads_any_word_of_a_command_line(type_: Any, text: str) -> None:
    with contextlib.suppress(JsonValueError):
        to_json(type_, from_text(type_, text, "x"))


REPORT = t.Record(
    "report",
    (
        ("city", STRING),
        ("max-degrees", S8),
        ("note", t.Option(STRING)),
        ("kind", t.Enum("kind", ("sun", "rain"))),
        ("shape", t.Variant("shape", (("none", None), ("circle", U8)))),
        ("marks", t.Flags("marks", ("new", "old"))),
        ("raw", t.List(U8)),
    ),
)
GOOD = {
    "city": "Oslo",
    "max-degrees": -7,
    "kind": "sun",
    "shape": {"circle": 3},
    "marks": ["old"],
    "raw": "text",
}


def test_allows_a_record_with_wit_names_and_a_left_out_option() -> None:
    assert from_json(REPORT, GOOD) == {
        "city": "Oslo",
        "max_degrees": -7,
        "note": None,
        "kind": "sun",
        "shape": Variant("circle", 3),
        "marks": {"old"},
        "raw": b"text",
    }
    assert to_json(REPORT, from_json(REPORT, GOOD)) == {**GOOD, "note": None}


def test_refuses_with_every_fault_and_its_path() -> None:
    bad = {
        "max-degrees": 200,
        "note": 5,
        "kind": "snow",
        "shape": {"circle": "x", "none": None},
        "marks": ["old", "odd"],
        "raw": {"base64": "!"},
        "extra": 1,
    }
    with pytest.raises(JsonValueError) as caught:
        from_json(REPORT, bad, "report")

    assert {f.path: f.message for f in caught.value.faults} == {
        "report.extra": ("unknown field; valid: city, max-degrees, note, kind, shape, marks, raw"),
        "report.city": "missing: string",
        "report.max-degrees": "expected s8 (-128 to 127), got 200",
        "report.note": "expected string, got int",
        "report.kind": "expected one of sun, rain; got 'snow'",
        "report.shape": "expected one of none, circle; got 'circle'",
        "report.marks[1]": "expected one of new, old; got 'odd'",
        "report.raw": "not valid base64",
    }


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (STRING, "Oslo", "Oslo"),
        (STRING, '"Oslo"', "Oslo"),
        (STRING, "42", "42"),
        (STRING, "null", "null"),
        (STRING, "", ""),
        (STRING, '{"a": 1', '{"a": 1'),
        (t.Option(STRING), "null", None),
        (t.Option(STRING), '"null"', "null"),
        (t.Option(STRING), "7", "7"),
        (t.Prim("char"), "7", "7"),
        (t.Prim("u64"), str(2**64 - 1), 2**64 - 1),
        (t.Prim("bool"), "true", True),
        (F32, "-inf", None),
        (F32, '"-inf"', -math.inf),
        (F32, "3", 3.0),
        (t.Enum(None, ("true", "b")), "true", "true"),
        (t.Variant(None, (("a", None),)), "a", Variant("a")),
        (t.Variant(None, (("a", U8),)), '{"a": 1}', Variant("a", 1)),
        (t.List(U8), "[1, 2]", b"[1, 2]"),
        (t.List(U8), '{"base64": "AAE="}', b"\0\1"),
        (t.List(S8), "[1, -2]", [1, -2]),
        (t.Result(U8, None), '{"err": null}', Err(None)),
        (t.Option(t.Option(U8)), '{"some": null}', Some(None)),
    ],
)
def test_allows_words_by_type(type_: Any, text: str, value: Any) -> None:
    if value is None and text != "null":
        with pytest.raises(JsonValueError, match="expected JSON of f32"):
            from_text(type_, text)
    else:
        assert from_text(type_, text) == value


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (U8, "256"),
        (U8, "1.0"),
        (U8, "x"),
        (F32, "1e39"),
        (t.Prim("f64"), "1e999"),
        (t.Prim("bool"), "1"),
        (t.Prim("char"), "ab"),
        (STRING, '"\\ud800"'),
        (t.List(S8), "7"),
        (t.List(U8), '{"base64": "\u00e9"}'),
        (t.Tuple((U8, U8)), "[1]"),
        (t.Record(None, (("a", U8),)), '{"a": 1, "a": 2}'),
        (t.Variant(None, (("a", U8),)), "a"),
        (t.Variant(None, (("a", None),)), '{"a": 1}'),
        (t.Own(t.ResourceId("", "file", imported=True)), '{"handle": "file"}'),
    ],
)
def test_refuses_words_that_do_not_fit(type_: Any, text: str) -> None:
    with pytest.raises(JsonValueError):
        from_text(type_, text, "x")


def test_allows_to_look_at_a_handle() -> None:
    resource = t.ResourceId("capwasm:fs/files@0.1.0", "file", imported=True)

    assert to_json(t.Own(resource), object()) == {"handle": "capwasm:fs/files@0.1.0.file"}


def test_allows_an_f32_with_the_fewest_digits_that_are_it() -> None:
    for value in (0.1, -3.2, 1e-45, 3.4028234663852886e38, 16777216.0):
        single = struct.unpack("f", struct.pack("f", value))[0]
        assert len(str(to_json(F32, single))) <= len(str(value))
