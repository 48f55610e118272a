"""Functions of numbers and truth values only: all is in the slots, nothing to free.

This is the shortest way there is into a guest, so what can be worked out beforehand is: the arguments
of one or two are checked in a row and laid out by one call.  Whatever is odd about them (an `int` for
an `f64`, a number out of range, a wrong type) goes the long way, which converts it or says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import addressof
from struct import Struct
from typing import Any

from . import capi, trampoline
from . import types as t
from .crossing import EngineFault
from .frame import Frame, Frames
from .host import call_fault
from .lift import FORMATS, Lift

__all__ = ["bind_flat"]

_ODD = (struct.error, OverflowError)


def _exact(word: str) -> type:
    return {"?": bool, "f": float, "d": float}.get(FORMATS[word], int)


def bind_flat(  # noqa: PLR0915 - flat, for each call costs
    type_: t.FuncType,
    raw: Any,
    store: Any,
    lower_all: Callable[[tuple[Any, ...], Frame], None],
    lift: Lift | None,
    frames: Frames,
) -> Callable[[tuple[Any, ...]], Any]:
    """As `CallPlan.bind`, for a function whose values all are of one slot.

    Args:
        type_: its type.
        raw: the engine's function, in `store`.
        store: kept, with `raw`, for as long as the function is.
        lower_all: lays out any arguments, or raises.
        lift: reads the result, if it has one.
        frames: with a slot for each argument and one for the result.
    """
    function = capi.pointer_arg(addressof(raw))
    where = capi.pointer_arg(capi.context_at(store))
    words = [x.word for _, x in type_.params if isinstance(x, t.Prim)]
    count, slot = len(words), 32 * len(words)
    nargs, nresults = capi.size_arg(count), capi.size_arg(0 if lift is None else 1)
    free, new, enter = frames.free, frames.new, capi.func_call
    headroom = trampoline.room_for_callback
    one = two = None
    if count in {1, 2} and all(word in FORMATS for word in words):
        kinds = [capi.KINDS[word] for word in words]
        first, last, exact, exact_last = kinds[0], kinds[-1], _exact(words[0]), _exact(words[-1])
        codes = [FORMATS[word] for word in words]
        if count == 1:
            one = Struct(f"=B7x{codes[0]}").pack_into
        else:
            pad = 24 - struct.calcsize(f"={codes[0]}")
            two = Struct(f"=B7x{codes[0]}{pad}xB7x{codes[1]}").pack_into

    def call(args: tuple[Any, ...], _keep: Any = (store, raw)) -> Any:
        headroom()
        try:
            frame = free.pop()
        except IndexError:
            frame = new()
        if two is not None and len(args) == 2:
            a, b = args
            if a.__class__ is exact and b.__class__ is exact_last:
                try:
                    two(frame.buf, 0, first, a, last, b)
                except _ODD:
                    lower_all(args, frame)
            else:
                lower_all(args, frame)
        elif one is not None and len(args) == 1 and args[0].__class__ is exact:
            try:
                one(frame.buf, 0, first, args[0])
            except _ODD:
                lower_all(args, frame)
        else:
            lower_all(args, frame)
        try:
            error = enter(function, where, frame.args, nargs, frame.result, nresults)
            if error:
                raise call_fault(error)
        except EngineFault:
            raise
        except BaseException as exc:
            raise EngineFault("torn", exc) from exc
        value = None if lift is None else lift(frame.buf, slot, frame)
        free.append(frame)
        return value

    return call
