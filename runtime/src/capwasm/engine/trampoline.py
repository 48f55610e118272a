"""Where C calls Python: nothing that is raised on our side ever leaves through here.

An exception that leaves a ctypes callback makes it return garbage, which the engine takes for a
pointer: the process dies.  `except BaseException` around the body is not enough.

* A pending signal (Ctrl-C during guest code) is raised at the callback's *first* instruction, before
  its `try` begins; `guarded` therefore stretches the `try` over that instruction.
* A signal can also come while what another has raised is being dealt with, and so on.  Python handles
  signals when a function is entered, after a call into C, and at the end of a loop's round, and nowhere
  else; so the last word is spoken without any of these.
* `headroom` sees to it, before a guest is entered, that a callback can be entered without a
  RecursionError.

This depends on how CPython is built.  `threads.PROVEN` names the versions on which the tests bombard a
process with signals that raise; on others, no guest runs on the main thread, where signals arrive.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeVar

from wasmtime import component as wc

from capwasm.threads import LOCAL, PROVEN

from . import capi

__all__ = [
    "Entry",
    "add_func",
    "add_resource",
    "guarded",
    "headroom",
    "live_entries",
    "room_for_callback",
]

FuncT = TypeVar("FuncT", bound=Callable[..., Any])

_VARINT_MORE, _VARINT_BITS, _ENTRY_START = 0x40, 0x3F, 0x80


def guarded(func: FuncT) -> FuncT:
    """`func` with its first `try` in force from the very first instruction.

    `func` must be a plain function whose body is one `try` statement.  What is changed is the
    start of the first row of its exception table (the table's form is the same from Python 3.11
    on: start, length, target, depth; six bits a byte).
    """
    assert isinstance(func, FunctionType)
    code = func.__code__
    table = code.co_exceptiontable
    (start, length, target, depth), rest = _read_row(table)
    # Only the entry instructions may stand before the `try`, and the handler needs an empty stack.
    if start > 4 or depth >> 1:
        if not PROVEN:
            return func
        raise AssertionError(f"{func.__name__} does not begin with a try")
    row = b"".join(map(_varint, (0, start + length, target, depth)))
    table = bytes([row[0] | _ENTRY_START]) + row[1:] + rest
    func.__code__ = code.replace(co_exceptiontable=table)
    return func


def _read_row(table: bytes) -> tuple[list[int], bytes]:
    values, at = [], 0
    for _ in range(4):
        value = table[at] & _VARINT_BITS
        while table[at] & _VARINT_MORE:
            at += 1
            value = value << 6 | table[at] & _VARINT_BITS
        at += 1
        values.append(value)
    return values, table[at:]


def _varint(value: int) -> bytes:
    parts = [value & _VARINT_BITS]
    while value := value >> 6:
        parts.append(value & _VARINT_BITS | _VARINT_MORE)
    return bytes(reversed(parts))


def _level1() -> None:
    _level2()


def _level2() -> None:
    _level3()


def _level3() -> None:
    _level4()


def _level4() -> None:
    _level5()


def _level5() -> None:
    _level6()


def _level6() -> None:
    pass


# By way of C, as a callback is: Python counts calls from C apart.
headroom: Callable[[], None] = functools.partial(_level1)
"""Passes if a few more levels of Python calls are possible, from C (RES-12).

Raises:
    RecursionError: not; the guest was not entered.
"""

room_for_callback: Callable[[], None] = functools.partial(_level5)
"""As `headroom`, for functions without handles, where a callback is all that must succeed."""


@dataclass(slots=True, eq=False)
class Entry:
    """What a callback runs.

    Attributes:
        run: takes the context and the callback's own arguments; raises what it likes.
        on_failure: keeps an exception where the caller will find it; returns the engine's message.
    """

    run: Callable[..., None]
    on_failure: Callable[[BaseException], str]

    @classmethod
    def lazy(
        cls, make: Callable[[], Callable[..., None]], on_failure: Callable[[BaseException], str]
    ) -> Entry:
        """One whose `run` is made when it is first called.

        A Python guest imports a hundred functions and calls ten.  What `make` raises is told like
        anything else that is raised here, and the next call tries again.
        """

        def first(*args: int) -> None:
            entry.run = make()
            entry.run(*args)

        entry = cls(first, on_failure)
        return entry


# The engine keeps a number for each function and calls `finalizer` with it when the last linker,
# or store made from it, is gone; so this holds what is alive and nothing else.
_ENTRIES: dict[int, Entry] = {}
_NUMBERS = itertools.count(1)


def _register(entry: Entry) -> int:
    number = next(_NUMBERS)
    _ENTRIES[number] = entry
    return number


def live_entries() -> int:
    """How many callbacks the engine still holds, for tests and for `doctor`."""
    return len(_ENTRIES)


def _failed(number: int, exc: BaseException) -> int:
    if len(SPARE) < _SPARES:
        SPARE.append(capi.error_new("host failure"))
    return capi.error_new(_ENTRIES[number].on_failure(exc))


# Errors made beforehand, for where not even a function may be called.  To take one is two instructions
# at which no other thread and no handler gets a turn.
_SPARES = 8
SPARE = [capi.error_new("host failure") for _ in range(_SPARES)]


@guarded
def _on_call(
    number: int, context: int, _type: int, args: int, _n: int, results: int, _m: int
) -> int:
    try:
        _ENTRIES[number].run(context, args, results)
    except BaseException as exc:  # noqa: BLE001
        try:
            return _failed(number, exc)
        except BaseException:  # noqa: BLE001
            call = LOCAL.here.call
            if call is not None and call.failure is None:
                call.failure = exc
            error = SPARE[-1]
            del SPARE[-1]
            return error
    return 0


@guarded
def _on_drop(number: int, context: int, rep: int) -> int:
    try:
        _ENTRIES[number].run(context, rep)
    except BaseException as exc:  # noqa: BLE001
        try:
            return _failed(number, exc)
        except BaseException:  # noqa: BLE001
            call = LOCAL.here.call
            if call is not None and call.failure is None:
                call.failure = exc
            error = SPARE[-1]
            del SPARE[-1]
            return error
    return 0


_FUNCTION = capi.CALLBACK(_on_call)
_DESTRUCTOR = capi.DESTRUCTOR(_on_drop)
# A method of the dict itself: no Python code runs that could be interrupted.
_FINALIZER = capi.FINALIZER(_ENTRIES.pop)

_FUNCTION_AT = capi.address(_FUNCTION)
_DESTRUCTOR_AT = capi.address(_DESTRUCTOR)
_FINALIZER_AT = capi.address(_FINALIZER)


def add_func(linker: wc.LinkerInstance, name: str, entry: Entry) -> int | None:
    """Define a function; `entry` lives as long as the linker and its stores.

    Returns:
        The engine's error, or None.
    """
    linker._assert_not_locked()  # noqa: SLF001
    raw, at = name.encode(), capi.address(linker.ptr())
    error: int | None = capi.linker_add_func(
        at, raw, len(raw), _FUNCTION_AT, _register(entry), _FINALIZER_AT
    )
    return error


def add_resource(linker: wc.LinkerInstance, name: str, type_id: int, entry: Entry) -> int | None:
    """Define a host resource whose destructor is `entry`.

    Returns:
        The engine's error, or None.
    """
    linker._assert_not_locked()  # noqa: SLF001
    raw, at = name.encode(), capi.address(linker.ptr())
    with wc.ResourceType.host(type_id) as kind:
        error: int | None = capi.linker_add_resource(
            at,
            raw,
            len(raw),
            capi.address(kind.ptr()),
            _DESTRUCTOR_AT,
            _register(entry),
            _FINALIZER_AT,
        )
    return error
