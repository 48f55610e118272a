"""Values as they stand in frames: from Python to plain objects by WIT type, and strictly back.

Everything is positional; the type says what stands where, so nothing names itself:

=================  =============================================================================
WIT                in a frame
=================  =============================================================================
bool, ints, f64    as they are; an f32 rounded to what it can hold
char, string       text
list<u8>           bytes, large ones in the lane's window
list of numbers    bytes, packed in the machine's order
list, tuple        an array
record             an array of its fields, in order
variant            `[case, payload or nil]`
enum, flags        the place of the word; a bit a word
option             nil, or `[value]`
result             `[0, value or nil]`, `[1, error or nil]`
own, borrow        the number of a handle, from 1 up
=================  =============================================================================

What a Python value must be is decided in `engine.checks`, as for every other way across, and with the
same words.  What comes back may be anything: whatever is not exactly of its type is a `ProtocolFault`,
and is never looked at deeper than the type goes (IPC-03, IPC-05).  Both directions are charged as
if the value had crossed in process (IPC-04, RES-16..18).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol, TypeAlias

from capwasm.engine import checks
from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue, over_limit
from capwasm.engine.lift import FORMATS, WIDTHS
from capwasm.values import Err, Ok, Some
from capwasm.values import Variant as VariantValue
from capwasm_shim.frames import ProtocolFault

__all__ = ["Crossing", "Decode", "Encode", "Handles", "decoder", "encoder"]


class Handles(Protocol):
    """How one side names its handles, for one crossing."""

    def number(self, resource: t.ResourceId, value: Any, *, lend: bool) -> int:
        """The number for a handle that goes out.

        Raises:
            BadValue: it is no handle of that kind.
            CapError, HandleLimitExceeded: it can't go.
        """

    def handle(self, resource: t.ResourceId, number: int, *, owned: bool) -> Any:
        """The handle of a number that came in.

        Raises:
            CapError: there is none of that kind.
            ProtocolFault: no peer that keeps to the rules could have said it.
        """


class Crossing:
    """One crossing: its budget, its handles, its place for large bytes.

    Attributes:
        left: bytes that may still cross, of `limit`.
        put: what stands for bytes in a frame; see `Lane.put`.
    """

    __slots__ = ("handles", "left", "limit", "put")

    def __init__(
        self, limit: int, handles: Handles, put: Callable[[Any], Any] = lambda data: data
    ) -> None:
        """Begin with the whole budget."""
        self.left = self.limit = limit
        self.handles = handles
        self.put = put

    def charge(self, size: int) -> None:
        """Count bytes that cross.

        Raises:
            ValueLimitExceeded: more than the limit.
        """
        self.left -= size
        if self.left < 0:
            raise over_limit(self.limit)


Encode: TypeAlias = Callable[[Any, Crossing], Any]
Decode: TypeAlias = Callable[[Any, Crossing], Any]

_F32 = Struct("=f")


def _fault(type_: object) -> ProtocolFault:
    return ProtocolFault(f"not a value of {str(type_)[:100]}")


# -- from Python --------------------------------------------------------------------------------


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


# -- and back -----------------------------------------------------------------------------------


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
