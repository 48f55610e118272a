"""Values between C and the protocol, by kind: what a function's arguments and its answer become."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .native_abi import BAD_ARGUMENT, Info, Mount, Out, OutPair, Output, Request, Span, SpanPair
from .native_desk import Desk, Refusal

__all__ = ["Giver", "Taker", "giver", "taker"]

Next = Callable[[], Any]


# -- arguments ------------------------------------------------------------------------------------


class Taker(NamedTuple):
    """How an argument comes in: its parameters in C, and what takes them to the protocol's value."""

    types: tuple[Any, ...]
    take: Callable[[Next, Desk], Any]


_SPAN: Final = (ctypes.c_void_p, ctypes.c_size_t)


def _number(following: Next, _desk: Desk) -> Any:
    return following()


def _string(following: Next, desk: Desk) -> str:
    return desk.text(following(), following())


def _maybe_string(following: Next, desk: Desk) -> list[str] | None:
    at, size = following(), following()
    return None if at is None else [desk.text(at, size)]


def _bytes(following: Next, desk: Desk) -> Any:
    return desk.bulk(following(), following())


def _maybe_bytes(following: Next, desk: Desk) -> list[Any] | None:
    at, size = following(), following()
    return None if at is None else [desk.bulk(at, size)]


def _maybe_u64(following: Next, _desk: Desk) -> list[int] | None:
    at = following()
    return None if at is None else [ctypes.c_uint64.from_address(at).value]


def _strings(following: Next, desk: Desk) -> list[str]:
    rows = desk.array(following(), following(), Span)
    return [desk.text(row.data, row.size) for row in rows]


def _pairs(rows: Any, desk: Desk) -> list[list[str]]:
    return [
        [desk.text(r.first.data, r.first.size), desk.text(r.second.data, r.second.size)]
        for r in rows
    ]


def _fields(following: Next, desk: Desk) -> list[list[str]]:
    return _pairs(desk.array(following(), following(), SpanPair), desk)


def _request(following: Next, desk: Desk) -> list[Any]:
    at = following()
    if at is None:
        raise Refusal(BAD_ARGUMENT)
    got = Request.from_address(at)
    return [
        desk.text(got.method.data, got.method.size),
        desk.text(got.url.data, got.url.size),
        _pairs(desk.array(got.headers, got.header_count, SpanPair), desk),
        None if got.body.data is None else [desk.bulk(got.body.data, got.body.size)],
        None if not got.timeout_ms else [ctypes.c_uint32.from_address(got.timeout_ms).value],
        _case(got.redirects, 3),
    ]


def _case(value: int, cases: int) -> int:
    if not 0 <= value < cases:
        raise Refusal(BAD_ARGUMENT)
    return value


class _Handle(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint32),)


_TAKERS: Final = {
    "u32": Taker((ctypes.c_uint32,), _number),
    "u64": Taker((ctypes.c_uint64,), _number),
    "s64": Taker((ctypes.c_int64,), _number),
    "string": Taker(_SPAN, _string),
    "option<string>": Taker(_SPAN, _maybe_string),
    "list<u8>": Taker(_SPAN, _bytes),
    "option<list<u8>>": Taker(_SPAN, _maybe_bytes),
    "option<u64>": Taker((ctypes.c_void_p,), _maybe_u64),
    "list<string>": Taker(_SPAN, _strings),
    "list<field>": Taker(_SPAN, _fields),
    "request": Taker((ctypes.c_void_p,), _request),
}


def taker(kind: str, closed: int) -> Taker:
    """How an argument of that kind comes in.

    Args:
        kind: a word of `native_table`: a type, `enum N`, or the kind of a handle.
        closed: what a dead handle is answered with.
    """
    if kind in _TAKERS:
        return _TAKERS[kind]
    if kind.startswith("enum "):
        cases = int(kind[5:])
        return Taker((ctypes.c_int32,), lambda following, _: _case(following(), cases))
    if kind.startswith("list<"):
        inner = kind[5:-1]

        def handles(following: Next, desk: Desk) -> list[int]:
            rows = desk.array(following(), following(), _Handle)
            return [_alive(row.number, inner, desk, closed) for row in rows]

        return Taker(_SPAN, handles)

    def handle(following: Next, desk: Desk) -> int:
        return _alive(following(), kind, desk, closed)

    return Taker((ctypes.c_uint32,), handle)


def _alive(number: int, kind: str, desk: Desk, closed: int) -> int:
    if desk.live.get(number) != kind:
        raise Refusal(closed)
    return number


# -- answers --------------------------------------------------------------------------------------


class Giver(NamedTuple):
    """How an answer goes out: its parameters in C, and what puts the protocol's value there."""

    types: tuple[Any, ...]
    give: Callable[[Any, Next, Desk], None]


_POINTER: Final = (ctypes.c_void_p,)


def _scalar(type_: Any) -> Giver:
    def give(value: Any, following: Next, _desk: Desk) -> None:
        type_.from_address(following()).value = value

    return Giver(_POINTER, give)


def _put(out: Any, data: bytes | memoryview, desk: Desk) -> None:
    out.data = desk.keep(data)
    out.size = len(data)


def _give_string(value: str, following: Next, desk: Desk) -> None:
    _put(Out.from_address(following()), value.encode(), desk)


def _give_bytes(value: Any, following: Next, desk: Desk) -> None:
    _put(Out.from_address(following()), value, desk)


def _give_option(value: Any, following: Next, desk: Desk) -> None:
    out = Out.from_address(following())
    if value is None:
        out.data, out.size = None, 0
    else:
        _put(out, value[0].encode() if isinstance(value[0], str) else value[0], desk)


def _optional(value: Any, type_: Any, desk: Desk) -> int | None:
    if value is None:
        return None
    number = type_(value[0])
    desk.kept.append(number)
    return ctypes.addressof(number)


def _fill_text(row: Any, value: str, desk: Desk) -> None:
    _put(row, value.encode(), desk)


def _fill_pair(row: Any, value: Any, desk: Desk) -> None:
    _put(row.first, value[0].encode(), desk)
    _put(row.second, value[1].encode(), desk)


def _fill_mount(row: Any, value: Any, desk: Desk) -> None:
    _put(row.path, value[0].encode(), desk)
    row.access = value[1]
    row.quota_bytes = _optional(value[2], ctypes.c_uint64, desk)
    row.used_bytes = value[3]


def _fill_info(row: Any, value: Any, desk: Desk) -> None:
    _put(row.name, value[0].encode(), desk)
    row.kind, row.size, row.modified_ns = value[1:]


def _fill_output(row: Any, value: Any, desk: Desk) -> None:
    row.code = _optional(value[0], ctypes.c_int32, desk)
    _put(row.stdout_bytes, value[1], desk)
    _put(row.stderr_bytes, value[2], desk)
    row.stdout_truncated, row.stderr_truncated = value[3:]


Fill = Callable[[Any, Any, Desk], None]


def _record(row: type[ctypes.Structure], fill: Fill) -> Giver:
    def give(value: Any, following: Next, desk: Desk) -> None:
        fill(row.from_address(following()), value, desk)

    return Giver(_POINTER, give)


def _rows(row: type[ctypes.Structure], fill: Fill) -> Giver:
    def give(value: Any, following: Next, desk: Desk) -> None:
        rows = (row * len(value))()
        desk.kept.append(rows)
        for each, item in zip(rows, value, strict=True):
            fill(each, item, desk)
        ctypes.c_void_p.from_address(following()).value = ctypes.addressof(rows)
        ctypes.c_size_t.from_address(following()).value = len(value)

    return Giver((ctypes.c_void_p, ctypes.c_void_p), give)


def _give_descriptor(_value: Any, following: Next, desk: Desk) -> None:
    (fd,) = desk.lane.received
    desk.lane.received = []
    ctypes.c_int.from_address(following()).value = fd


def _nothing(_value: Any, _following: Next, _desk: Desk) -> None:
    pass


_GIVERS: Final = {
    "": Giver((), _nothing),
    "u16": _scalar(ctypes.c_uint16),
    "u64": _scalar(ctypes.c_uint64),
    "s64": _scalar(ctypes.c_int64),
    "bool": _scalar(ctypes.c_uint8),
    "string": Giver(_POINTER, _give_string),
    "option<string>": Giver(_POINTER, _give_option),
    "list<u8>": Giver(_POINTER, _give_bytes),
    "option<list<u8>>": Giver(_POINTER, _give_option),
    "list<string>": _rows(Out, _fill_text),
    "list<header>": _rows(OutPair, _fill_pair),
    "list<setting>": _rows(OutPair, _fill_pair),
    "list<mount>": _rows(Mount, _fill_mount),
    "list<info>": _rows(Info, _fill_info),
    "info": _record(Info, _fill_info),
    "output": _record(Output, _fill_output),
    "descriptor": Giver(_POINTER, _give_descriptor),
}


def giver(kind: str) -> Giver:
    """How an answer of that kind, a word of `native_table`, goes out."""
    if kind in _GIVERS:
        return _GIVERS[kind]

    def handle(value: Any, following: Next, desk: Desk) -> None:
        desk.live[value] = kind
        ctypes.c_uint32.from_address(following()).value = value

    return Giver(_POINTER, handle)
