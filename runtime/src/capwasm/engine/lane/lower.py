"""From Python values to blocks: one closure a type, built once.

What a value must be, the words of a fault and what is charged are those of the other way across:
`checks` decides, and handles go through the very same closures.  Only where the bytes go differs.

A closure is given memory that is zero and writes what the value has, so what stands in no value (padding,
the rest of a case) stays zero.
"""

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

from .codec import Codec
from .layout import MEMORY, Form
from .rows import rows_of

__all__ = ["Lower", "OwnedLower", "lowerer"]

# (value, memory, offset of the value in it, codec).
Lower: TypeAlias = Callable[[Any, memoryview, int, Codec], None]
# What makes the closure of the next owned handle, in order of the type.
OwnedLower: TypeAlias = Callable[[t.Own], Lower]

_encode = str.encode
# From here on a column at a time is faster.
_ROWS = 3
_CODES = {1: "B", 2: "H", 4: "I", 8: "I4x"}


def lowerer(
    type_: t.ValType, form: Form, classes: Classes, hint: str, owned: OwnedLower | None = None
) -> Lower:
    """The closure for `type_` in that form; `hint` names classes that the interface doesn't name."""
    match type_:
        case t.Prim(word):
            return _prim(word, form)
        case t.List(t.Prim(word)) if word in FORMATS:
            return _bytes(form) if word == "u8" else _numbers(word, type_, form)
        case t.List():
            return _list(type_, form, classes, hint)
        case t.Record(_, fields):
            take = checks.as_fields(type_, classes.record(type_, hint))
            steps = [(f".{n}", f"{hint}-{n}") for n, _ in fields]
            return _fields(type_, take, 48, steps, form, classes, owned)
        case t.Tuple(items):
            steps = [(f"[{i}]", f"{hint}-{i}") for i, _ in enumerate(items)]
            return _fields(
                type_, lambda x: checks.as_items(x, type_), 32, steps, form, classes, owned
            )
        case t.Enum(_, words):
            return _enum(type_, words, form)
        case t.Flags(_, words):
            return _flags(type_, words, form)
        case t.Variant(_, named):
            hints = [f"{hint}-{n}" for n, _ in named]
            return _cases(type_, [x for _, x in named], hints, form, classes, owned)
        case t.Option(payload):
            return _cases(type_, [None, payload], [hint, hint], form, classes, owned)
        case t.Result(ok, err):
            hints = [f"{hint}-ok", f"{hint}-error"]
            return _cases(type_, [ok, err], hints, form, classes, owned)
        case t.Own() if owned is not None:
            return owned(type_)
        case _:
            raise TypeError(f"{type_} does not cross in a block")


# -- without parts -----------------------------------------------------------------------------


def _leaf(code: str, width: int, form: Form) -> Callable[..., None]:
    return Struct(f"<{code}{form.leaf(width) - width}x").pack_into


def _pair(form: Form) -> Callable[..., None]:
    """Packs a pointer and a length."""
    gap = form.leaf(4) - 4
    return Struct(f"<I{gap}xI{gap}x").pack_into


def _prim(word: str, form: Form) -> Lower:
    if word == "string":
        return _string(form)
    if word == "char":
        pack = _leaf("I", 4, form)
        return lambda value, buf, off, _c: pack(buf, off, ord(checks.as_char(value)))
    if word == "bool":
        pack = _leaf("?", 1, form)
        return lambda value, buf, off, _c: pack(buf, off, checks.as_bool(value))
    return _float(word, form) if word in {"f32", "f64"} else _int(word, form)


def _int(word: str, form: Form) -> Lower:
    width = WIDTHS[word]
    if word in {"s8", "s16"} and form.leaf(width) > width:
        # Flat, they are sign-extended to 32 bits, and only from there on with zeros.
        signed = _leaf("i", 4, form)
        return lambda value, buf, off, _c: signed(buf, off, checks.as_int(value, word))
    pack = _leaf(FORMATS[word], width, form)

    def lower(value: Any, buf: memoryview, off: int, _c: Codec) -> None:
        if value.__class__ is not int:
            value = checks.as_int(value, word)
        try:
            pack(buf, off, value)
        except struct.error:
            raise checks.out_of_range(value, word) from None

    return lower


def _float(word: str, form: Form) -> Lower:
    pack = _leaf(FORMATS[word], WIDTHS[word], form)

    def lower(value: Any, buf: memoryview, off: int, _c: Codec) -> None:
        if value.__class__ is not float:
            value = checks.as_float(value, word)
        try:
            pack(buf, off, value)
        except OverflowError:
            raise BadValue.value(f"{checks.show(value)} is too large for {word}") from None

    return lower


def _string(form: Form) -> Lower:
    pair = _pair(form)

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        # A character is a byte at least: too long is known before anything is encoded.
        if isinstance(value, str) and str.__len__(value) > c.left:
            raise over_limit(c.limit)
        try:
            # str.encode itself: a subclass may not lie about its text.
            data = _encode(value)
        except (TypeError, UnicodeEncodeError):
            data = checks.as_text(value)  # says what is wrong
        size = len(data)
        c.left -= size
        if c.left < 0:
            raise over_limit(c.limit)
        pair(buf, off, c.put(data), size)

    return lower


def _enum(type_: t.Enum, words: tuple[str, ...], form: Form) -> Lower:
    numbers = {word: i for i, word in enumerate(words)}
    pack = Struct(f"<{_CODES[form.discriminant(len(words))]}").pack_into

    def lower(value: Any, buf: memoryview, off: int, _c: Codec) -> None:
        pack(buf, off, numbers[checks.as_word(value, numbers, type_)])

    return lower


def _flags(type_: t.Flags, words: tuple[str, ...], form: Form) -> Lower:
    bits = {word: 1 << i for i, word in enumerate(words)}
    pack = Struct(f"<{_CODES[form.size(type_)]}").pack_into

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        found = checks.as_words(value, bits, type_)
        c.charge(16 * len(found))
        pack(buf, off, sum(map(bits.__getitem__, found)))

    return lower


# -- lists -------------------------------------------------------------------------------------


def _bytes(form: Form) -> Lower:
    pair = _pair(form)

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        if value.__class__ is not bytes:
            if checks.bytes_size(value) > c.left:
                raise over_limit(c.limit)
            value = checks.as_bytes(value)
        size = len(value)
        c.left -= size
        if c.left < 0:
            raise over_limit(c.limit)
        pair(buf, off, c.put(value), size)

    return lower


def _numbers(word: str, type_: t.List, form: Form) -> Lower:
    code, width, pair = FORMATS[word], WIDTHS[word], _pair(form)
    exact = {{"?": bool, "f": float, "d": float}.get(code, int)}
    one = _prim(word, MEMORY)

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        items = checks.as_list(value, type_, width, c)
        count = len(items)
        try:
            if set(map(type, items)) != exact:
                raise struct.error
            at = c.put(struct.pack(f"={count}{code}", *items), width)
        except (struct.error, OverflowError):
            # Something is odd: one by one, which converts what may be converted, or says what.
            at = c.alloc(count * width, width)
            _each(one, items, at, width, c)
        pair(buf, off, at, count)

    return lower


def _each(element: Lower, items: Any, at: int, size: int, c: Codec) -> None:
    buf, start = c.buf, at
    try:
        for item in items:
            element(item, buf, at, c)
            at += size
    except BadValue as fault:
        raise fault.at(f"[{(at - start) // size}]") from None


def _list(type_: t.List, form: Form, classes: Classes, hint: str) -> Lower:
    size, align = MEMORY.size(type_.element), MEMORY.align(type_.element)
    one = lowerer(type_.element, MEMORY, classes, hint)
    rows, pair = rows_of(type_.element, classes, hint), _pair(form)

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        items = checks.as_list(value, type_, 32, c)
        count = len(items)
        at = rows.lower(items, c) if rows is not None and count >= _ROWS else None
        if at is None:
            at = c.alloc(count * size, align)
            _each(one, items, at, size, c)
        pair(buf, off, at, count)

    return lower


# -- with parts --------------------------------------------------------------------------------


def _fields(
    type_: t.Record | t.Tuple,
    take: Callable[[Any], tuple[Any, ...]],
    cost: int,
    names: list[tuple[str, str]],
    form: Form,
    classes: Classes,
    owned: OwnedLower | None,
) -> Lower:
    """A record or a tuple: its fields one after the other, each charged `cost`."""
    parts = tuple(t.children(type_))
    offsets, _ = form.fields(parts)
    steps = [
        (step, lowerer(x, form, classes, hint, owned), offset)
        for (step, hint), x, offset in zip(names, parts, offsets, strict=True)
    ]
    total = cost * len(steps)

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        fields = take(value)
        c.charge(total)
        step = ""
        try:
            for (step, go, offset), item in zip(steps, fields, strict=True):  # noqa: B007
                go(item, buf, off + offset, c)
        except BadValue as fault:
            raise fault.at(step) from None

    return lower


def _cases(
    type_: t.Variant | t.Option | t.Result,
    payloads: list[t.ValType | None],
    hints: list[str],
    form: Form,
    classes: Classes,
    owned: OwnedLower | None,
) -> Lower:
    """A discriminant, and the payload of that case."""
    apart, payload = checks.as_case(type_), form.payload(type_)
    pack = Struct(f"<{_CODES[form.discriminant(len(payloads))]}").pack_into
    goes = [
        None if x is None else lowerer(x, form, classes, hint, owned)
        for x, hint in zip(payloads, hints, strict=True)
    ]

    def lower(value: Any, buf: memoryview, off: int, c: Codec) -> None:
        number, inner, step = apart(value)
        pack(buf, off, number)
        go = goes[number]
        if go is None:
            return
        c.charge(32)
        try:
            go(inner, buf, off + payload, c)
        except BadValue as fault:
            raise fault.at(step) from None

    return lower
