"""From Python values to C values: one closure a type, built once.

A closure checks the value, counts it against the frame's budget, and lays it out in the frame.
Nothing that it writes is owned by the engine, so a conversion that fails half way leaves nothing
behind; handles are the frame's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import addressof, c_char
from struct import Struct
from typing import Any, TypeAlias

import wasmtime

from capwasm.errors import InternalError
from capwasm.handles import Handle

from . import checks
from . import types as t
from .capi import KINDS
from .classes import Classes
from .crossing import BadValue, GuestResource, over_limit
from .frame import Frame
from .lift import FORMATS, WIDTHS

__all__ = ["Lower", "is_flat", "lowerer"]

# (value, memory, offset of the 32-byte value in it, frame).
Lower: TypeAlias = Callable[[Any, bytearray, int, Frame], None]

_BOOL = Struct("=B7x?").pack_into
_CHAR = Struct("=B7xI").pack_into
_VEC = Struct("=B7xQQ").pack_into  # kind, size, pointer
_POINTER = Struct("=B7xQ").pack_into
_OUTCOME = Struct("=B7x?7xQ").pack_into
_CASE_POINTER = Struct("=Q").pack_into
_NAME = Struct("=QQ")
_encode = str.encode
_DANGLING = 8  # an aligned, non-null address, for what holds nothing

_STRING, _LIST, _RECORD, _TUPLE = (KINDS[k] for k in ("string", "list", "record", "tuple"))
_VARIANT, _ENUM, _OPTION, _RESULT = (KINDS[k] for k in ("variant", "enum", "option", "result"))
_FLAGS, _RESOURCE = KINDS["flags"], KINDS["resource"]


def is_flat(type_: t.ValType) -> bool:
    """Whether a value of the type is 32 bytes and nothing more."""
    return isinstance(type_, t.Prim) and type_.word != "string"


def lowerer(type_: t.ValType, classes: Classes, hint: str) -> Lower:
    """The closure for `type_`; `hint` names classes that the interface doesn't name."""
    match type_:
        case t.Prim():
            return _prim(type_.word)
        case t.List(t.Prim(word)) if word in FORMATS:
            return _bytes() if word == "u8" else _numbers(word, type_)
        case t.List(element):
            return _list(lowerer(element, classes, hint), type_)
        case t.Record():
            return _record(type_, classes, hint)
        case t.Tuple(items):
            lowers = [lowerer(x, classes, f"{hint}-{i}") for i, x in enumerate(items)]
            return _tuple(lowers, type_)
        case t.Variant():
            return _variant(type_, classes, hint)
        case t.Enum():
            return _enum(type_)
        case t.Option(payload):
            return _option(lowerer(payload, classes, hint), type_)
        case t.Result(ok, err):
            return _result(
                None if ok is None else lowerer(ok, classes, f"{hint}-ok"),
                None if err is None else lowerer(err, classes, f"{hint}-error"),
                type_,
            )
        case t.Flags():
            return _flags(type_)
        case t.Own(resource) | t.Borrow(resource):
            return _handle(resource, lend=isinstance(type_, t.Borrow))


class _Word:
    """A word of the plan at an address that holds as long as this object."""

    __slots__ = ("_bytes", "pair")

    def __init__(self, word: str) -> None:
        self._bytes = bytearray(word.encode())
        # size, address; an empty word can't be, WIT has none.
        self.pair = (len(self._bytes), addressof(c_char.from_buffer(self._bytes)))


# -- without parts -----------------------------------------------------------------------------


def _prim(word: str) -> Lower:
    if word == "string":
        return _string
    if word == "char":
        return _char
    if word == "bool":
        return _bool
    return _float(word) if word in {"f32", "f64"} else _int(word)


def _bool(value: Any, buf: bytearray, off: int, _f: Frame) -> None:
    _BOOL(buf, off, 0, checks.as_bool(value))


def _int(word: str) -> Lower:
    pack, kind = Struct(f"=B7x{FORMATS[word]}").pack_into, KINDS[word]

    def lower(value: Any, buf: bytearray, off: int, _f: Frame) -> None:
        if value.__class__ is not int:
            value = checks.as_int(value, word)
        try:
            pack(buf, off, kind, value)
        except struct.error:
            raise checks.out_of_range(value, word) from None

    return lower


def _float(word: str) -> Lower:
    pack, kind = Struct(f"=B7x{FORMATS[word]}").pack_into, KINDS[word]

    def lower(value: Any, buf: bytearray, off: int, _f: Frame) -> None:
        if value.__class__ is not float:
            value = checks.as_float(value, word)
        try:
            pack(buf, off, kind, value)
        except OverflowError:
            raise BadValue.value(f"{checks.show(value)} is too large for {word}") from None

    return lower


def _char(value: Any, buf: bytearray, off: int, _f: Frame) -> None:
    _CHAR(buf, off, KINDS["char"], ord(checks.as_char(value)))


def _string(value: Any, buf: bytearray, off: int, f: Frame) -> None:
    # A character is a byte at least: too long is known before anything is encoded.
    if isinstance(value, str) and str.__len__(value) > f.left:
        raise over_limit(f.limit)
    try:
        # str.encode itself: a subclass may not lie about its text.
        data = _encode(value)
    except (TypeError, UnicodeEncodeError):
        data = checks.as_text(value)  # says what is wrong
    _VEC(buf, off, _STRING, len(data), f.put(data) if data else _DANGLING)


def _pattern(word: str) -> bytearray:
    """A value of that kind, zero."""
    return bytearray([KINDS[word], *bytes(31)])


# -- lists -------------------------------------------------------------------------------------


def _bytes() -> Lower:
    pattern = _pattern("u8")

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        f.charge(checks.bytes_size(value))
        data = checks.as_bytes(value)
        size = len(data)
        if not size:
            _VEC(buf, off, _LIST, 0, _DANGLING)
            return
        memory, at, address = f.fill(pattern, size)
        # A slice with a stride is one tight loop in C, the fastest there is from Python.
        memory[at + 8 : at + size * 32 : 32] = data
        _VEC(buf, off, _LIST, size, address)

    return lower


def _numbers(word: str, type_: t.List) -> Lower:
    code, width = FORMATS[word], WIDTHS[word]
    pattern = _pattern(word)
    exact = {{"?": bool, "f": float, "d": float}.get(code, int)}
    one = _prim(word)

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        items = checks.as_list(value, type_, width, f)
        size = len(items)
        if not size:
            _VEC(buf, off, _LIST, 0, _DANGLING)
            return
        memory, at, address = f.fill(pattern, size)
        try:
            if set(map(type, items)) != exact:
                raise struct.error
            packed = struct.pack(f"={size}{code}", *items)
        except (struct.error, OverflowError):
            # Something is odd: one by one, which converts what may be converted, or says what.
            _each(one, items, memory, at, f)
        else:
            end = at + size * 32
            for byte in range(width):
                memory[at + 8 + byte : end : 32] = packed[byte::width]
        _VEC(buf, off, _LIST, size, address)

    return lower


def _each(element: Lower, items: Any, memory: bytearray, at: int, f: Frame) -> None:
    index = 0
    try:
        for item in items:
            element(item, memory, at + index * 32, f)
            index += 1
    except BadValue as fault:
        raise fault.at(f"[{index}]") from None


def _list(element: Lower, type_: t.List) -> Lower:
    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        items = checks.as_list(value, type_, 32, f)
        if not items:
            _VEC(buf, off, _LIST, 0, _DANGLING)
            return
        memory, at, address = f.alloc(len(items) * 32)
        _each(element, items, memory, at, f)
        _VEC(buf, off, _LIST, len(items), address)

    return lower


# -- with named parts --------------------------------------------------------------------------


def _record(type_: t.Record, classes: Classes, hint: str) -> Lower:
    take = checks.as_fields(type_, classes.record(type_, hint))
    words = [_Word(n) for n, _ in type_.fields]
    # All the entries with their names in place, and room for the values.
    template = b"".join(_NAME.pack(*w.pair) + bytes(32) for w in words)
    steps = [
        (f".{n}", lowerer(x, classes, f"{hint}-{n}"), 48 * i + 16)
        for i, (n, x) in enumerate(type_.fields)
    ]
    total, count = len(template), len(words)

    def lower(value: Any, buf: bytearray, off: int, f: Frame, _keep: Any = words) -> None:
        fields = take(value)
        f.charge(total)
        memory, at, address = f.alloc(total)
        memory[at : at + total] = template
        step = ""
        try:
            for (name, go, where), item in zip(steps, fields, strict=True):
                step = name
                go(item, memory, at + where, f)
        except BadValue as fault:
            raise fault.at(step) from None
        _VEC(buf, off, _RECORD, count, address)

    return lower


def _tuple(lowers: list[Lower], type_: t.Tuple) -> Lower:
    count = len(lowers)

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        items = checks.as_items(value, type_)
        f.charge(32 * count)
        memory, at, address = f.alloc(32 * count)
        index = 0
        try:
            for index, go in enumerate(lowers):
                go(items[index], memory, at + 32 * index, f)
        except BadValue as fault:
            raise fault.at(f"[{index}]") from None
        _VEC(buf, off, _TUPLE, count, address)

    return lower


def _enum(type_: t.Enum) -> Lower:
    words = {n: _Word(n) for n in type_.cases}

    def lower(value: Any, buf: bytearray, off: int, _f: Frame) -> None:
        word = words[checks.as_word(value, words, type_)]
        _VEC(buf, off, _ENUM, *word.pair)

    return lower


def _flags(type_: t.Flags) -> Lower:
    words = {n: _Word(n) for n in type_.names}

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        found = checks.as_words(value, words, type_)
        if not found:
            _VEC(buf, off, _FLAGS, 0, _DANGLING)
            return
        f.charge(16 * len(found))
        memory, at, address = f.alloc(16 * len(found))
        for index, word in enumerate(w for n, w in words.items() if n in found):
            _NAME.pack_into(memory, at + 16 * index, *word.pair)
        _VEC(buf, off, _FLAGS, len(found), address)

    return lower


# -- one of several ----------------------------------------------------------------------------


def _payload(go: Lower | None, value: Any, step: str, f: Frame) -> int:
    """The address of the payload, or null."""
    if go is None:
        return 0
    f.charge(32)
    memory, at, address = f.alloc(32)
    try:
        go(value, memory, at, f)
    except BadValue as fault:
        raise fault.at(step) from None
    return address


def _variant(type_: t.Variant, classes: Classes, hint: str) -> Lower:
    apart = checks.as_case(type_)
    cases = [
        (_Word(n), None if x is None else lowerer(x, classes, f"{hint}-{n}"))
        for n, x in type_.cases
    ]

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        number, inner, step = apart(value)
        word, go = cases[number]
        pointer = _payload(go, inner, step, f)
        _VEC(buf, off, _VARIANT, *word.pair)
        _CASE_POINTER(buf, off + 24, pointer)

    return lower


def _option(inner: Lower, type_: t.Option) -> Lower:
    apart = checks.as_case(type_)

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        some, payload, step = apart(value)
        pointer = _payload(inner, payload, step, f) if some else 0
        _POINTER(buf, off, _OPTION, pointer)

    return lower


def _result(ok: Lower | None, err: Lower | None, type_: t.Result) -> Lower:
    apart = checks.as_case(type_)

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        bad, payload, step = apart(value)
        pointer = _payload(err if bad else ok, payload, step, f)
        _OUTCOME(buf, off, _RESULT, not bad, pointer)

    return lower


# -- handles -----------------------------------------------------------------------------------


def _handle(resource: t.ResourceId, *, lend: bool) -> Lower:
    if not resource.imported:
        return _guest_handle(resource, lend=lend)

    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        kind = f.boundary.kinds.get(resource)
        if kind is None:
            raise InternalError(f"{resource} has no host side")
        if not isinstance(value, Handle) or not isinstance(value, kind.handle):
            raise BadValue.expected(f"{resource.name} ({kind.handle.__name__})", value)
        try:
            pointer = f.give(value, kind.type_id, lend=lend)
        except wasmtime.WasmtimeError as exc:
            raise InternalError(f"the engine refused a handle: {exc}") from exc
        _POINTER(buf, off, _RESOURCE, pointer)

    return lower


def _guest_handle(resource: t.ResourceId, *, lend: bool) -> Lower:
    def lower(value: Any, buf: bytearray, off: int, f: Frame) -> None:
        if not isinstance(value, GuestResource) or value.resource != resource:
            raise BadValue.expected(resource.name, value)
        if not value.belongs_to(f.boundary):
            raise BadValue.value(f"this {resource.name} belongs to another instance")
        try:
            pointer = value.pointer()
            if not lend:
                f.moves(value)
        except ValueError as exc:
            raise BadValue.value(str(exc)) from None
        _POINTER(buf, off, _RESOURCE, pointer)

    return lower
