"""From C values to Python values: one closure a type, built once.

A closure reads and never frees: its caller owns the C value and deletes it whole afterwards.
It counts what it makes against the frame's budget first (RES-16..18).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, TypeAlias

import wasmtime

from capwasm.errors import CapError, InternalError
from capwasm.values import Err, Ok, Some
from capwasm.values import Variant as VariantValue

from . import capi
from . import types as t
from .classes import Classes
from .crossing import EngineFault, GuestResource, over_limit
from .frame import Frame

__all__ = ["FORMATS", "WIDTHS", "Lift", "lifter"]

# (memory, offset of the 32-byte value in it, frame) to the Python value.
Lift: TypeAlias = Callable[[Any, int, Frame], Any]

_WORDS = "bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64"
FORMATS = dict(zip(_WORDS.split(), "?bBhHiIqQfd", strict=True))
WIDTHS = {word: Struct(f"={code}").size for word, code in FORMATS.items()}

_PAIR = Struct("=8xQQ").unpack_from  # size, pointer
_TRIPLE = Struct("=8xQQQ").unpack_from  # size, pointer, pointer
_POINTER = Struct("=8xQ").unpack_from
_OUTCOME = Struct("=8x?7xQ").unpack_from
_CHAR = Struct("=8xI").unpack_from
_NAMES = Struct("=QQ").iter_unpack

_read = ctypes.string_at
# Lists of numbers are read this many elements at a time, in place.
_BLOCK = 8192
_Block = ctypes.c_char * (_BLOCK * 32)


def lifter(type_: t.ValType, classes: Classes, hint: str) -> Lift:
    """The closure for `type_`; `hint` names classes that the interface doesn't name."""
    match type_:
        case t.Prim():
            return _prim(type_.word)
        case t.List(t.Prim(word)) if word in FORMATS:
            return _bytes() if word == "u8" else _numbers(word)
        case t.List(element):
            return _list(lifter(element, classes, hint))
        case t.Record():
            return _record(type_, classes, hint)
        case t.Tuple(items):
            return _tuple([lifter(x, classes, f"{hint}-{i}") for i, x in enumerate(items)])
        case t.Variant():
            return _variant(type_, classes, hint)
        case t.Enum():
            return _enum({n.encode(): m for n, m in classes.words(type_, hint).items()})
        case t.Option(payload):
            inner = lifter(payload, classes, hint)
            return _option(inner, wrapped=isinstance(payload, t.Option))
        case t.Result(ok, err):
            return _result(
                None if ok is None else lifter(ok, classes, f"{hint}-ok"),
                None if err is None else lifter(err, classes, f"{hint}-error"),
            )
        case t.Flags():
            return _flags({n.encode(): m for n, m in classes.words(type_, hint).items()})
        case t.Own(resource):
            return _handle(resource, owned=True)
        case t.Borrow(resource):
            return _handle(resource, owned=False)


def _prim(word: str) -> Lift:
    if word == "string":
        return _string
    if word == "char":
        return lambda raw, off, _f: chr(_CHAR(raw, off)[0])
    unpack = Struct(f"=8x{FORMATS[word]}").unpack_from
    return lambda raw, off, _f: unpack(raw, off)[0]


def _string(raw: Any, off: int, f: Frame) -> str:
    size, pointer = _PAIR(raw, off)
    f.left -= size
    if f.left < 0:
        raise over_limit(f.limit)
    return _read(pointer, size).decode() if size else ""


def _bytes() -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> bytes:
        size, pointer = _PAIR(raw, off)
        f.left -= size
        if f.left < 0:
            raise over_limit(f.limit)
        # A slice with a stride is one tight loop in C, the fastest there is from Python.
        if size < _BLOCK:
            return _read(pointer, size * 32)[8::32] if size else b""
        return b"".join([block[8::32] for block in _blocks(pointer, size)])

    return lift


def _blocks(pointer: int, size: int) -> Iterator[Any]:
    """The C values of a list, a block at a time: not copied, but for the last."""
    whole = size - size % _BLOCK
    for start in range(0, whole, _BLOCK):
        yield _Block.from_address(pointer + start * 32)
    if whole < size:
        yield _read(pointer + whole * 32, (size - whole) * 32)


def _numbers(word: str) -> Lift:
    code: Any = FORMATS[word]
    width = WIDTHS[word]
    first, step = 8 // width, 32 // width

    def lift(raw: Any, off: int, f: Frame) -> list[Any]:
        size, pointer = _PAIR(raw, off)
        f.charge(size * width)
        out: list[Any] = []
        for block in _blocks(pointer, size):
            out += memoryview(block).cast("B").cast(code)[first::step].tolist()
        return out

    return lift


def _list(element: Lift) -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> list[Any]:
        size, pointer = _PAIR(raw, off)
        f.charge(size * 32)
        if not size:
            return []
        block = _read(pointer, size * 32)
        return [element(block, at, f) for at in range(0, size * 32, 32)]

    return lift


def _record(type_: t.Record, classes: Classes, hint: str) -> Lift:
    final, draft = classes.record(type_, hint), classes.draft(type_, hint)
    lifts = [
        (lifter(x, classes, f"{hint}-{n}"), 48 * i + 16) for i, (n, x) in enumerate(type_.fields)
    ]
    total = 48 * len(lifts)

    def lift(raw: Any, off: int, f: Frame) -> Any:
        f.charge(total)
        block = _read(_PAIR(raw, off)[1], total)
        made = draft(*[go(block, at, f) for go, at in lifts])
        made.__class__ = final
        return made

    return lift


def _tuple(items: list[Lift]) -> Lift:
    lifts = [(go, 32 * i) for i, go in enumerate(items)]
    total = 32 * len(items)

    def lift(raw: Any, off: int, f: Frame) -> tuple[Any, ...]:
        f.charge(total)
        block = _read(_PAIR(raw, off)[1], total)
        return tuple([go(block, at, f) for go, at in lifts])

    return lift


def _payload(pointer: int, go: Lift, f: Frame) -> Any:
    f.charge(32)
    return go(_read(pointer, 32), 0, f)


def _variant(type_: t.Variant, classes: Classes, hint: str) -> Lift:
    cases = {
        n.encode(): (n, None if x is None else lifter(x, classes, f"{hint}-{n}"))
        for n, x in type_.cases
    }
    empty = {n: VariantValue(n) for n, x in type_.cases if x is None}

    def lift(raw: Any, off: int, f: Frame) -> VariantValue:
        size, name, pointer = _TRIPLE(raw, off)
        word, go = cases[_read(name, size)]
        return empty[word] if go is None else VariantValue(word, _payload(pointer, go, f))

    return lift


def _enum(members: dict[bytes, Any]) -> Lift:
    def lift(raw: Any, off: int, _f: Frame) -> Any:
        size, pointer = _PAIR(raw, off)
        return members[_read(pointer, size)]

    return lift


def _flags(members: dict[bytes, Any]) -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> frozenset[Any]:
        size, pointer = _PAIR(raw, off)
        f.charge(size * 16)
        if not size:
            return frozenset()
        names = _NAMES(_read(pointer, size * 16))
        return frozenset([members[_read(where, length)] for length, where in names])

    return lift


def _option(inner: Lift, *, wrapped: bool) -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> Any:
        (pointer,) = _POINTER(raw, off)
        if not pointer:
            return None
        value = _payload(pointer, inner, f)
        return Some(value) if wrapped else value

    return lift


def _result(ok: Lift | None, err: Lift | None) -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> Ok[Any] | Err[Any]:
        good, pointer = _OUTCOME(raw, off)
        if good:
            return Ok(None if ok is None else _payload(pointer, ok, f))
        return Err(None if err is None else _payload(pointer, err, f))

    return lift


def _handle(resource: t.ResourceId, *, owned: bool) -> Lift:
    if not resource.imported:
        return _guest_handle(resource)

    def lift(raw: Any, off: int, f: Frame) -> Any:
        kind = f.boundary.kinds.get(resource)
        if kind is None:
            raise InternalError(f"{resource} has no host side")
        # (1) The engine lets go of its handle, whatever comes next.
        try:
            host = capi.any_to_host(f.context, _POINTER(raw, off)[0])
        except wasmtime.WasmtimeError as exc:
            raise CapError("closed", f"not a handle of the host: {exc}") from None
        rep, type_id = capi.host_rep(host), capi.host_type(host)
        capi.host_delete(host)
        # (2) Same shape is not same kind: the number must be that of this very resource (TYP-09).
        if type_id != kind.type_id:
            raise CapError("closed", f"a handle of another kind than {resource}")
        # (3) The table knows it, and as an object of the right class.
        if not owned:
            return f.boundary.handles.get(rep, kind.handle)
        handle = f.boundary.handles.take(rep, kind.handle)
        f.took(handle)
        return handle

    return lift


def _guest_handle(resource: t.ResourceId) -> Lift:
    def lift(raw: Any, off: int, f: Frame) -> GuestResource:
        # Our own copy of the engine's handle: the value is deleted by whoever owns it.
        pointer = capi.any_clone(_POINTER(raw, off)[0])
        context = f.context

        def drop(handle: int) -> None:
            error = capi.any_drop(context, handle)
            if error:
                fault = capi.take_error(error)
                raise EngineFault(str(fault)) from fault

        return GuestResource(resource, f.boundary, pointer, drop, capi.any_delete)

    return lift
