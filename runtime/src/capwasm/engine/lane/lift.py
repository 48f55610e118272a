"""From blocks to Python values: one closure a type, built once.

A block is a plugin's word: the lane's code in the plugin copies what it finds, and nobody has looked at
it before.  Whatever stands in a block, nothing outside of it is read, and what is no value of its type
is an `EngineFault`.  It is charged as on the other way across.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, TypeAlias

from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import EngineFault, over_limit
from capwasm.engine.lift import FORMATS, WIDTHS
from capwasm.values import Err, Ok, Some
from capwasm.values import Variant as VariantValue

from .codec import Codec
from .layout import MEMORY, Form
from .rows import rows_of

__all__ = ["Lift", "lifter"]

# (memory, offset of the value in it, codec) to the Python value.  The value itself stands within the
# block: who calls has seen to that.
Lift: TypeAlias = Callable[[memoryview, int, Codec], Any]

_WORD = Struct("<I").unpack_from
_CODES = {1: "B", 2: "H", 4: "I", 8: "I"}


def lifter(type_: t.ValType, form: Form, classes: Classes, hint: str) -> Lift:
    """The closure for `type_` in that form; `hint` names classes that the interface doesn't name."""
    match type_:
        case t.Prim(word):
            return _prim(word, form)
        case t.List(t.Prim(word)) if word in FORMATS:
            return _bytes(form) if word == "u8" else _numbers(word, form)
        case t.List():
            return _list(type_, form, classes, hint)
        case t.Record():
            return _record(type_, form, classes, hint)
        case t.Tuple(items):
            return _tuple(type_, [f"{hint}-{i}" for i, _ in enumerate(items)], form, classes)
        case t.Enum(_, words):
            members = [*classes.words(type_, hint).values()]
            return _enum(members, form.discriminant(len(words)))
        case t.Flags():
            return _flags([*classes.words(type_, hint).values()], form.size(type_))
        case t.Variant():
            return _variant(type_, form, classes, hint)
        case t.Option(payload):
            return _option(type_, lifter(payload, form, classes, hint), form)
        case t.Result(ok, err):
            return _result(
                type_,
                None if ok is None else lifter(ok, form, classes, f"{hint}-ok"),
                None if err is None else lifter(err, form, classes, f"{hint}-error"),
                form,
            )
        case _:
            raise TypeError(f"{type_} does not cross in a block")


# -- without parts -----------------------------------------------------------------------------


def _pair(form: Form) -> Callable[..., tuple[int, int]]:
    """Unpacks a pointer and a length."""
    gap = form.leaf(4) - 4
    unpack: Any = Struct(f"<I{gap}xI").unpack_from
    return unpack  # type: ignore[no-any-return]


def _outside(what: str) -> EngineFault:
    return EngineFault(f"{what} points out of its block")


def _prim(word: str, form: Form) -> Lift:
    if word == "string":
        return _string(form)
    if word == "char":
        return _char
    if word == "bool" and form.leaf(1) > 1:
        # Flat it is 32 bits, of which any makes it true.
        return lambda buf, off, _c: _WORD(buf, off)[0] != 0
    # The low bytes of a slot are the value in memory.
    unpack = Struct(f"<{FORMATS[word]}").unpack_from
    return lambda buf, off, _c: unpack(buf, off)[0]


def _char(buf: memoryview, off: int, _c: Codec) -> str:
    number: int = _WORD(buf, off)[0]
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise EngineFault("a char that is no Unicode scalar value")
    return chr(number)


def _string(form: Form) -> Lift:
    pair = _pair(form)

    def lift(buf: memoryview, off: int, c: Codec) -> str:
        at, size = pair(buf, off)
        c.left -= size
        if c.left < 0:
            raise over_limit(c.limit)
        if not size:
            return ""
        if at < c.low or at + size > c.high:
            raise _outside("a string")
        try:
            return str(buf[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise EngineFault("a string that is not UTF-8") from None

    return lift


def _enum(members: list[Any], width: int) -> Lift:
    unpack = Struct(f"<{_CODES[width]}").unpack_from

    def lift(buf: memoryview, off: int, _c: Codec) -> Any:
        return members[_number(unpack(buf, off)[0], len(members))]

    return lift


def _number(number: int, count: int) -> int:
    """A discriminant, checked."""
    if number >= count:
        raise EngineFault(f"a case that is none of {count}")
    return number


def _flags(members: list[Any], width: int) -> Lift:
    unpack = Struct(f"<{_CODES[width]}").unpack_from
    bits = [(1 << i, member) for i, member in enumerate(members)]

    def lift(buf: memoryview, off: int, c: Codec) -> frozenset[Any]:
        number = unpack(buf, off)[0]
        found = frozenset([member for bit, member in bits if number & bit])
        c.charge(16 * len(found))
        return found

    return lift


# -- lists -------------------------------------------------------------------------------------


def _bytes(form: Form) -> Lift:
    pair = _pair(form)

    def lift(buf: memoryview, off: int, c: Codec) -> bytes:
        at, size = pair(buf, off)
        c.left -= size
        if c.left < 0:
            raise over_limit(c.limit)
        if not size:
            return b""
        if at < c.low or at + size > c.high:
            raise _outside("a list")
        return buf[at : at + size].tobytes()

    return lift


def _numbers(word: str, form: Form) -> Lift:
    code: Any = FORMATS[word]
    width, pair = WIDTHS[word], _pair(form)

    def lift(buf: memoryview, off: int, c: Codec) -> list[Any]:
        at, count = pair(buf, off)
        size = count * width
        c.charge(size)
        if not size:
            return []
        if at < c.low or at + size > c.high:
            raise _outside("a list")
        return buf[at : at + size].cast(code).tolist()

    return lift


def _list(type_: t.List, form: Form, classes: Classes, hint: str) -> Lift:
    size, pair = MEMORY.size(type_.element), _pair(form)
    one = lifter(type_.element, MEMORY, classes, hint)
    rows = rows_of(type_.element, classes, hint)

    def lift(buf: memoryview, off: int, c: Codec) -> list[Any]:
        at, count = pair(buf, off)
        c.charge(count * 32)
        if not count:
            return []
        end = at + count * size
        if at < c.low or end > c.high:
            raise _outside("a list")
        if rows is not None:
            return rows.lift(at, count, c)
        return [one(buf, where, c) for where in range(at, end, size)]

    return lift


# -- with parts --------------------------------------------------------------------------------


def _record(type_: t.Record, form: Form, classes: Classes, hint: str) -> Lift:
    final, draft = classes.record(type_, hint), classes.draft(type_, hint)
    lifts = _parts(type_, [f"{hint}-{n}" for n, _ in type_.fields], form, classes)
    total = 48 * len(lifts)

    def lift(buf: memoryview, off: int, c: Codec) -> Any:
        c.charge(total)
        made = draft(*[go(buf, off + offset, c) for go, offset in lifts])
        made.__class__ = final
        return made

    return lift


def _tuple(type_: t.Tuple, hints: list[str], form: Form, classes: Classes) -> Lift:
    lifts = _parts(type_, hints, form, classes)
    total = 32 * len(lifts)

    def lift(buf: memoryview, off: int, c: Codec) -> tuple[Any, ...]:
        c.charge(total)
        return tuple([go(buf, off + offset, c) for go, offset in lifts])

    return lift


def _parts(
    type_: t.ValType, hints: list[str], form: Form, classes: Classes
) -> list[tuple[Lift, int]]:
    parts = tuple(t.children(type_))
    offsets, _ = form.fields(parts)
    return [
        (lifter(x, form, classes, hint), offset)
        for x, hint, offset in zip(parts, hints, offsets, strict=True)
    ]


def _discriminant(count: int, form: Form) -> Callable[[memoryview, int], int]:
    unpack = Struct(f"<{_CODES[form.discriminant(count)]}").unpack_from
    return lambda buf, off: _number(unpack(buf, off)[0], count)


def _variant(type_: t.Variant, form: Form, classes: Classes, hint: str) -> Lift:
    payload, which = form.payload(type_), _discriminant(len(type_.cases), form)
    cases = [
        (n, None if x is None else lifter(x, form, classes, f"{hint}-{n}")) for n, x in type_.cases
    ]
    empty = {n: VariantValue(n) for n, go in cases if go is None}

    def lift(buf: memoryview, off: int, c: Codec) -> VariantValue:
        word, go = cases[which(buf, off)]
        if go is None:
            return empty[word]
        c.charge(32)
        return VariantValue(word, go(buf, off + payload, c))

    return lift


def _option(type_: t.Option, inner: Lift, form: Form) -> Lift:
    payload, which = form.payload(type_), _discriminant(2, form)
    wrapped = isinstance(type_.payload, t.Option)

    def lift(buf: memoryview, off: int, c: Codec) -> Any:
        if not which(buf, off):
            return None
        c.charge(32)
        value = inner(buf, off + payload, c)
        return Some(value) if wrapped else value

    return lift


def _result(type_: t.Result, ok: Lift | None, err: Lift | None, form: Form) -> Lift:
    payload, which = form.payload(type_), _discriminant(2, form)

    def lift(buf: memoryview, off: int, c: Codec) -> Ok[Any] | Err[Any]:
        bad = which(buf, off)
        go = err if bad else ok
        value = None
        if go is not None:
            c.charge(32)
            value = go(buf, off + payload, c)
        return Err(value) if bad else Ok(value)

    return lift
