"""From Python values to what stands in a frame: one function a type, built once; see `wire`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

from capwasm.engine import checks
from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue, over_limit
from capwasm.engine.lift import FORMATS, WIDTHS

from .wire import Crossing

__all__ = ["Encode", "encoder"]

Encode: TypeAlias = Callable[[Any, Crossing], Any]

_F32 = Struct("=f")


def encoder(type_: t.ValType, classes: Classes, hint: str) -> Encode:  # noqa: C901 - one case a type
    """The function that makes a frame's objects of Python values of `type_`.

    It raises `BadValue`, or what `Crossing.charge` and `Handles.number` raise.

    Args:
        type_: the type.
        classes: where records get their classes.
        hint: names classes that the interface doesn't name.
    """
    match type_:
        case t.Prim("string"):
            return _text_out
        case t.Prim("bool"):
            return lambda value, _c: checks.as_bool(value)
        case t.Prim("char"):
            return lambda value, _c: checks.as_char(value)
        case t.Prim("f32" | "f64" as word):
            return lambda value, _c: _float_out(value, word)
        case t.Prim(word):
            return lambda value, _c: checks.as_int(value, word)
        case t.List(t.Prim("u8")):
            return _bytes_out
        case t.List(t.Prim(word)) if word in FORMATS:
            return _numbers_out(type_, word)
        case t.List(element):
            return _list_out(type_, encoder(element, classes, hint))
        case t.Record():
            return _record_out(type_, classes, hint)
        case t.Tuple(items):
            return _tuple_out(
                type_, [encoder(x, classes, f"{hint}-{i}") for i, x in enumerate(items)]
            )
        case t.Enum(_, words):
            places = {n: i for i, n in enumerate(words)}
            return lambda value, _c: places[checks.as_word(value, places, type_)]
        case t.Flags():
            return _flags_out(type_)
        case t.Option(payload):
            return _option_out(type_, encoder(payload, classes, hint))
        case t.Variant(_, cases):
            named = [(f"{hint}-{n}", x) for n, x in cases]
        case t.Result(ok, err):
            named = [(f"{hint}-ok", ok), (f"{hint}-error", err)]
        case t.Own(resource) | t.Borrow(resource):
            lend = isinstance(type_, t.Borrow)
            return lambda value, c: c.handles.number(resource, value, lend=lend)
    return _case_out(type_, [None if x is None else encoder(x, classes, n) for n, x in named])


def _text_out(value: Any, c: Crossing) -> str:
    # A character is a byte at least: too long is known before anything is encoded.
    if isinstance(value, str) and str.__len__(value) > c.left:
        raise over_limit(c.limit)
    data = checks.as_text(value)
    c.charge(len(data))
    return value if type(value) is str else data.decode()


def _float_out(value: Any, word: str) -> float:
    number = checks.as_float(value, word)
    if word == "f64":
        return number
    try:
        rounded: float = _F32.unpack(_F32.pack(number))[0]
    except OverflowError:
        raise BadValue.value(f"{checks.show(number)} is too large for {word}") from None
    return rounded


def _bytes_out(value: Any, c: Crossing) -> Any:
    c.charge(checks.bytes_size(value))
    return c.put(checks.as_bytes(value))


def _numbers_out(type_: t.List, word: str) -> Encode:
    code, width = FORMATS[word], WIDTHS[word]
    exact = {{"?": bool, "f": float, "d": float}.get(code, int)}
    one = encoder(t.Prim(word), Classes(), "x")

    def encode(value: Any, c: Crossing) -> Any:
        items = checks.as_list(value, type_, width, c)
        form = f"={len(items)}{code}"
        try:
            if set(map(type, items)) - exact:
                raise struct.error
            packed = struct.pack(form, *items)
        except (struct.error, OverflowError):
            # Something is odd: one by one, which converts what may be converted, or says what.
            packed = struct.pack(form, *_each(one, items, c))
        return c.put(packed)

    return encode


def _each(element: Encode, items: Any, c: Crossing) -> list[Any]:
    made: list[Any] = []
    try:
        for item in items:
            made.append(element(item, c))  # noqa: PERF401 - its length is where the fault is
    except BadValue as fault:
        raise fault.at(f"[{len(made)}]") from None
    return made


def _list_out(type_: t.List, element: Encode) -> Encode:
    return lambda value, c: _each(element, checks.as_list(value, type_, 32, c), c)


def _record_out(type_: t.Record, classes: Classes, hint: str) -> Encode:
    take = checks.as_fields(type_, classes.record(type_, hint))
    steps = [(f".{n}", encoder(x, classes, f"{hint}-{n}")) for n, x in type_.fields]
    total = 48 * len(steps)

    def encode(value: Any, c: Crossing) -> list[Any]:
        fields = take(value)
        c.charge(total)
        made, step = [], ""
        try:
            for (step, go), item in zip(steps, fields, strict=True):  # noqa: B007 - for the fault
                made.append(go(item, c))
        except BadValue as fault:
            raise fault.at(step) from None
        return made

    return encode


def _tuple_out(type_: t.Tuple, parts: list[Encode]) -> Encode:
    total = 32 * len(parts)

    def encode(value: Any, c: Crossing) -> list[Any]:
        items = checks.as_items(value, type_)
        c.charge(total)
        made: list[Any] = []
        try:
            for go, item in zip(parts, items, strict=True):
                made.append(go(item, c))
        except BadValue as fault:
            raise fault.at(f"[{len(made)}]") from None
        return made

    return encode


def _flags_out(type_: t.Flags) -> Encode:
    bits = {n: 1 << i for i, n in enumerate(type_.names)}

    def encode(value: Any, c: Crossing) -> int:
        found = checks.as_words(value, bits, type_)
        c.charge(16 * len(found))
        return sum(bits[n] for n in found)

    return encode


def _payload_out(go: Encode | None, value: Any, step: str, c: Crossing) -> Any:
    if go is None:
        return None
    c.charge(32)
    try:
        return go(value, c)
    except BadValue as fault:
        raise fault.at(step) from None


def _option_out(type_: t.Option, inner: Encode) -> Encode:
    apart = checks.as_case(type_)

    def encode(value: Any, c: Crossing) -> Any:
        some, payload, step = apart(value)
        return [_payload_out(inner, payload, step, c)] if some else None

    return encode


def _case_out(type_: t.ValType, cases: list[Encode | None]) -> Encode:
    apart = checks.as_case(type_)

    def encode(value: Any, c: Crossing) -> list[Any]:
        number, payload, step = apart(value)
        return [number, _payload_out(cases[number], payload, step, c)]

    return encode
