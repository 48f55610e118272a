"""From what stands in a frame, which may be anything, to Python values: one function a type; see `wire`."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

from capwasm.engine import checks
from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import over_limit
from capwasm.engine.lift import FORMATS, WIDTHS
from capwasm.values import Err, Ok, Some
from capwasm.values import Variant as VariantValue
from capwasm_shim.frames import ProtocolFault

from .wire import Crossing

__all__ = ["Decode", "decoder"]

Decode: TypeAlias = Callable[[Any, Crossing], Any]

_F32 = Struct("=f")


def _fault(type_: object) -> ProtocolFault:
    return ProtocolFault(f"not a value of {str(type_)[:100]}")


def decoder(type_: t.ValType, classes: Classes, hint: str) -> Decode:  # noqa: C901 - one case a type
    """The function that makes Python values of `type_` of a frame's objects, which may be anything.

    It raises `ProtocolFault`, or what `Crossing.charge` and `Handles.handle` raise.

    Args:
        type_: the type.
        classes: where records, enums and flags get their classes.
        hint: names classes that the interface doesn't name.
    """
    match type_:
        case t.Prim("string"):
            return _text_in
        case t.Prim("char"):
            return _char_in
        case t.Prim("bool"):
            return lambda raw, _c: _exactly(raw, bool, type_)
        case t.Prim("f32"):
            return _f32_in
        case t.Prim("f64"):
            return lambda raw, _c: _exactly(raw, float, type_)
        case t.Prim(word):
            low, high = checks.INT_RANGES[word]
            return lambda raw, _c: _int_in(raw, low, high, type_)
        case t.List(t.Prim("u8")):
            return _bytes_in
        case t.List(t.Prim(word)) if word in FORMATS:
            return _numbers_in(type_, word)
        case t.List(element):
            return _list_in(type_, decoder(element, classes, hint))
        case t.Record():
            return _record_in(type_, classes, hint)
        case t.Tuple(items):
            return _tuple_in(
                type_, [decoder(x, classes, f"{hint}-{i}") for i, x in enumerate(items)]
            )
        case t.Enum():
            members = list(classes.words(type_, hint).values())
            return lambda raw, _c: members[_int_in(raw, 0, len(members) - 1, type_)]
        case t.Flags():
            return _flags_in(type_, classes, hint)
        case t.Option(payload):
            inner = decoder(payload, classes, hint)
            return _option_in(type_, inner, wrapped=isinstance(payload, t.Option))
        case t.Variant(_, cases):
            return _variant_in(
                type_,
                [(n, None if x is None else decoder(x, classes, f"{hint}-{n}")) for n, x in cases],
            )
        case t.Result(ok, err):
            return _result_in(
                type_,
                None if ok is None else decoder(ok, classes, f"{hint}-ok"),
                None if err is None else decoder(err, classes, f"{hint}-error"),
            )
        case t.Own(resource) | t.Borrow(resource):
            owned = isinstance(type_, t.Own)
            return lambda raw, c: c.handles.handle(
                resource, _int_in(raw, 1, 2**32 - 1, type_), owned=owned
            )


def _exactly(raw: Any, cls: type, type_: object) -> Any:
    if type(raw) is not cls:
        raise _fault(type_)
    return raw


def _int_in(raw: Any, low: int, high: int, type_: object) -> int:
    if type(raw) is not int or not low <= raw <= high:
        raise _fault(type_)
    return raw


def _array(raw: Any, size: int, type_: object) -> list[Any]:
    if type(raw) is not list or len(raw) != size:
        raise _fault(type_)
    return raw


def _text_in(raw: Any, c: Crossing) -> str:
    if type(raw) is not str:
        raise _fault("string")
    if len(raw) > c.left:
        raise over_limit(c.limit)
    try:
        c.charge(len(raw) if raw.isascii() else len(raw.encode()))
    except UnicodeEncodeError:
        raise _fault("string") from None
    return raw


def _char_in(raw: Any, _c: Crossing) -> str:
    if type(raw) is not str or len(raw) != 1 or "\ud800" <= raw <= "\udfff":
        raise _fault("char")
    return raw


def _f32_in(raw: Any, _c: Crossing) -> float:
    try:
        rounded: float = _F32.unpack(_F32.pack(_exactly(raw, float, "f32")))[0]
    except OverflowError:
        raise _fault("f32") from None
    return rounded


def _bytes_in(raw: Any, c: Crossing) -> Any:
    # A view is of the window that the host writes, and is copied by whoever takes it.
    if not isinstance(raw, bytes | memoryview):
        raise _fault("list<u8>")
    c.charge(len(raw))
    return raw


def _numbers_in(type_: t.List, word: str) -> Decode:
    code: Any = FORMATS[word]
    width = WIDTHS[word]

    def decode(raw: Any, c: Crossing) -> list[Any]:
        if not isinstance(raw, bytes | memoryview) or len(raw) % width:
            raise _fault(type_)
        c.charge(len(raw))
        if code == "?" and bytes(raw).translate(None, b"\0\1"):
            raise _fault(type_)
        return memoryview(raw).cast("B").cast(code).tolist()

    return decode


def _list_in(type_: t.List, element: Decode) -> Decode:
    def decode(raw: Any, c: Crossing) -> list[Any]:
        if type(raw) is not list:
            raise _fault(type_)
        c.charge(len(raw) * 32)
        return [element(x, c) for x in raw]

    return decode


def _record_in(type_: t.Record, classes: Classes, hint: str) -> Decode:
    final, draft = classes.record(type_, hint), classes.draft(type_, hint)
    parts = [decoder(x, classes, f"{hint}-{n}") for n, x in type_.fields]
    total, count = 48 * len(parts), len(parts)

    def decode(raw: Any, c: Crossing) -> Any:
        items = _array(raw, count, type_)
        c.charge(total)
        made = draft(*[go(x, c) for go, x in zip(parts, items, strict=True)])
        made.__class__ = final
        return made

    return decode


def _tuple_in(type_: t.Tuple, parts: list[Decode]) -> Decode:
    total, count = 32 * len(parts), len(parts)

    def decode(raw: Any, c: Crossing) -> tuple[Any, ...]:
        items = _array(raw, count, type_)
        c.charge(total)
        return tuple([go(x, c) for go, x in zip(parts, items, strict=True)])

    return decode


def _flags_in(type_: t.Flags, classes: Classes, hint: str) -> Decode:
    members = list(classes.words(type_, hint).values())
    most = (1 << len(members)) - 1

    def decode(raw: Any, c: Crossing) -> frozenset[Any]:
        bits = _int_in(raw, 0, most, type_)
        c.charge(16 * bits.bit_count())
        return frozenset([m for i, m in enumerate(members) if bits >> i & 1])

    return decode


def _payload_in(go: Decode | None, raw: Any, type_: object, c: Crossing) -> Any:
    if go is None:
        if raw is not None:
            raise _fault(type_)
        return None
    c.charge(32)
    return go(raw, c)


def _option_in(type_: t.Option, inner: Decode, *, wrapped: bool) -> Decode:
    def decode(raw: Any, c: Crossing) -> Any:
        if raw is None:
            return None
        value = _payload_in(inner, _array(raw, 1, type_)[0], type_, c)
        return Some(value) if wrapped else value

    return decode


def _variant_in(type_: t.Variant, cases: list[tuple[str, Decode | None]]) -> Decode:
    def decode(raw: Any, c: Crossing) -> VariantValue:
        place, payload = _array(raw, 2, type_)
        word, go = cases[_int_in(place, 0, len(cases) - 1, type_)]
        return VariantValue(word, _payload_in(go, payload, type_, c))

    return decode


def _result_in(type_: t.Result, ok: Decode | None, err: Decode | None) -> Decode:
    def decode(raw: Any, c: Crossing) -> Ok[Any] | Err[Any]:
        place, payload = _array(raw, 2, type_)
        if _int_in(place, 0, 1, type_):
            return Err(_payload_in(err, payload, type_, c))
        return Ok(_payload_in(ok, payload, type_, c))

    return decode
