"""Calls on the lane: one string there and one back, and handles beside it.

The plans of `engine/plan.py` for functions that `choose` picked, with the same promises.  What a
plan lays out is memory of ours, lent to the engine, which copies it; the string that comes back is
copied, and deleted, before anything is made of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Any

from wasmtime import component as wc

from capwasm.engine import capi, trampoline
from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue, Boundary, EngineFault
from capwasm.engine.frame import Frame, Frames
from capwasm.engine.host import (
    call_fault,
    check_defined,
    error_value,
    hint_of,
    lift_all,
    miscounted,
    returned,
)
from capwasm.engine.lift import lifter as handle_lifter
from capwasm.engine.lower import lowerer as handle_lowerer
from capwasm.errors import CapError, InternalError

from .codec import Codec, Codecs
from .layout import (
    BASE,
    MEMORY,
    RBASE,
    SLOT,
    SLOTS,
    flat,
    owned,
    params_by_pointer,
    result_by_pointer,
)
from .lift import Lift, lifter
from .lower import Lower, lowerer
from .wire import LANE_EXPORTS, function_name

if TYPE_CHECKING:
    from capwasm.engine.plan import AnyFunc, AnyStore, BoundCall, Invoke, OnFailure

__all__ = ["LaneExportPlan", "LaneImportPlan"]

_headroom = trampoline.headroom
_codecs = Codecs()

_VAL = 32
_STRING = capi.KINDS["string"]
_VALUE = Struct("=B7xQQ")
_OPTION = Struct("=B7xQ8x")
_POINTER = Struct("<I").unpack_from


class LaneExportPlan:
    """The `CallPlan` of an exported function on the lane."""

    def __init__(self, number: int, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Build the converters."""
        self.name = name
        self.type = type_
        self.where = LANE_EXPORTS, function_name(number)
        hint, types = hint_of(name), [x for _, x in type_.params]
        form = MEMORY if params_by_pointer(type_) else SLOTS
        offsets, self._head = form.fields(types)
        self._lowers: tuple[tuple[Lower, int], ...] = tuple(
            (lowerer(x, form, classes, f"{hint}-{n}"), BASE + offset)
            for (n, x), offset in zip(type_.params, offsets, strict=True)
        )
        self._lift: Lift | None = None
        self._size = 0
        if type_.result is not None:
            form = MEMORY if result_by_pointer(type_) else SLOTS
            self._lift = lifter(type_.result, form, classes, f"{hint}-result")
            self._size = form.size(type_.result)

    def bind(self, store: AnyStore, func: AnyFunc, boundary: Boundary) -> BoundCall:
        """See `CallPlan.bind`."""
        raw = func._func  # noqa: SLF001
        where = capi.pointer_arg(capi.context_at(store))
        function, one = capi.pointer_arg(ctypes.addressof(raw)), capi.size_arg(1)
        lowers, lift, head, size = self._lowers, self._lift, self._head, self._size
        expected, limit, enter, headroom = (
            len(lowers),
            boundary.value_bytes,
            capi.func_call,
            _headroom,
        )
        take, give_back, delete = _codecs.take, _codecs.give_back, capi.val_delete

        def call(args: tuple[Any, ...], _keep: Any = (store, raw)) -> Any:
            headroom()
            if len(args) != expected:
                raise miscounted(self.type, self.name, len(args))
            codec = take(limit)
            try:
                codec.open(BASE, head)
                buf, index = codec.buf, 0
                try:
                    for (lower, off), value in zip(lowers, args):  # noqa: B905 - counted
                        lower(value, buf, off, codec)
                        index += 1
                except BadValue as fault:
                    at = f"argument {self.type.params[index][0]}"
                    raise fault.at(at).to_error() from None
                codec.lend(BASE)
                try:
                    error = enter(function, where, codec.args, one, codec.result, one)
                    if error:
                        raise call_fault(error)
                except EngineFault:
                    raise
                except BaseException as exc:
                    raise EngineFault("torn", exc) from exc
                codec.left = limit
                # The lane lets go of the arguments when it has passed them on: same place.
                codec.decode_result(BASE)
                if lift is None:
                    return None
                if size > codec.high - BASE:
                    raise EngineFault("a result that is cut off")
                return lift(codec.buf, BASE, codec)
            finally:
                # Also of a call that was torn: the result may stand there all the same.  A crossing that
                # finds it would write over its address, and the engine would free what that is then.
                # Where this is torn itself, nobody gets the codec again.
                delete(codec.result)
                codec.forget()
                give_back(codec)

        return call


class LaneImportPlan:
    """The `HostPlan` of an imported function on the lane; `name` is the lane's."""

    def __init__(self, number: int, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Nothing is built before the guest calls it."""
        self.name = function_name(number)
        self.type = type_
        self._named, self._classes = name, classes

    def define(
        self,
        linker: wc.LinkerInstance,
        invoke: Invoke,
        on_failure: OnFailure,
        boundary: Callable[[], Boundary],
    ) -> None:
        """See `HostPlan.define`."""
        entry = trampoline.Entry.lazy(lambda: self._runner(invoke, boundary), on_failure)
        check_defined(trampoline.add_func(linker, self.name, entry), self.name)

    def _runner(
        self, invoke: Invoke, boundary: Callable[[], Boundary]
    ) -> Callable[[int, int, int], None]:
        name, type_, classes = self._named, self.type, self._classes
        hint, result = hint_of(name), type_.result
        params = _Params(type_, classes, hint)
        slots = _Owned(len([*owned(result)]))
        lower: Lower | None = None
        head = 0
        if result is not None:
            form = MEMORY if result_by_pointer(type_) else SLOTS
            head = form.size(result)
            lower = lowerer(result, form, classes, f"{hint}-result", slots.lower)
        handles = bool(params.handles or slots.count)
        take, give_back, clone = _codecs.take, _codecs.give_back, capi.val_clone

        def run(context: int, args: int, results: int) -> None:
            instance = boundary()
            codec = take(instance.value_bytes)
            crossed = False
            try:
                frame = None
                if handles:
                    frame = codec.frame = slots.frame(context, instance)
                try:
                    value = invoke(params.lift(args, codec))
                except CapError as refusal:
                    value = error_value(result, refusal)
                    if frame is not None:
                        frame.rollback()
                value = returned(name, result, value)
                codec.open(RBASE, head)
                if lower is not None:
                    codec.left = codec.limit
                    try:
                        lower(value, codec.buf, RBASE, codec)
                    except BadValue as fault:
                        raise InternalError(f"host function {name}: {fault.at('result')}") from None
                codec.lend(RBASE)
                clone(slots.fill(frame, codec) if slots.count else codec.base, results)
                crossed = True
            finally:
                if codec.frame is not None:
                    slots.settle(codec.frame, crossed=crossed)
                    codec.frame = None
                give_back(codec)

        return run


class _Params:
    """The parameters of an import: handles, which are values of their own, and a block."""

    def __init__(self, type_: t.FuncType, classes: Classes, hint: str) -> None:
        """Build the converters."""
        types = [x for _, x in type_.params]
        self._indirect = params_by_pointer(type_)
        form = MEMORY if self._indirect else SLOTS
        offsets, self._size = form.fields(types)
        slots = 1 if self._indirect else sum(len(flat(x)) for x in types)
        self._start = RBASE - SLOT * slots
        values: list[tuple[int, Lift, int]] = []
        handles: list[tuple[int, Any]] = []
        for i, ((n, x), offset) in enumerate(zip(type_.params, offsets, strict=True)):
            if isinstance(x, t.Own | t.Borrow):
                handles.append((i, handle_lifter(x, classes, f"{hint}-{n}")))
            else:
                values.append((i, lifter(x, form, classes, f"{hint}-{n}"), offset))
        self.handles = tuple((go, _VAL * k) for k, (_, go) in enumerate(handles))
        self._handle_places = [i for i, _ in handles]
        self._values = tuple(values)
        self._lifts = tuple((go, offset) for _, go, offset in values)
        self._count = len(types)
        self._string = _VAL * len(handles)

    def lift(self, args: int, codec: Codec) -> tuple[Any, ...]:
        """The arguments, out of the C values at `args`.

        Raises:
            EngineFault: the block is none.
            ValueLimitExceeded, CapError: they may not cross.
        """
        handles = self.handles
        raw = codec.peek(args, self._string + _VAL)
        # The handles first: the engine has to let go of them, whatever else is wrong.
        given = lift_all(handles, raw, codec.frame) if handles else ()
        kind, length, pointer = _VALUE.unpack_from(raw, self._string)
        if kind != _STRING:
            raise EngineFault("the lane did not pass a string")
        at = self._start
        codec.decode(at, length, pointer)
        if self._indirect:
            if codec.high - at < SLOT:
                raise EngineFault("arguments that are cut off")
            at = _POINTER(codec.buf, at)[0]
        if at < codec.low or at + self._size > codec.high:
            raise EngineFault("arguments that are cut off")
        buf = codec.buf
        if not handles:
            return tuple([go(buf, at + offset, codec) for go, offset in self._lifts])
        values: list[Any] = [None] * self._count
        for place, handle in zip(self._handle_places, given, strict=True):
            values[place] = handle
        for place, go, offset in self._values:
            values[place] = go(buf, at + offset, codec)
        return tuple(values)


class _Owned:
    """The owned handles in an import's result: each an option beside the string.

    The C values stand in a frame: the tuple, its items (the string, an option for each handle),
    the options' handles.
    """

    def __init__(self, number: int) -> None:
        """Room for so many handles."""
        self.count = number
        self._frames = Frames(2 * number + 2, flat=True)
        self._places = count()

    def lower(self, type_: t.Own) -> Lower:
        """The closure for the next handle: it stands in the frame, and nothing of it in the block."""
        place = next(self._places)
        option = _VAL * (2 + place)
        payload = _VAL * (2 + self.count + place)
        inner = handle_lowerer(type_, Classes(), "")

        def lower(value: Any, _buf: memoryview, _off: int, codec: Codec) -> None:
            frame = codec.frame
            inner(value, frame.buf, payload, frame)
            _OPTION.pack_into(frame.buf, option, capi.KINDS["option"], frame.base + payload)

        return lower

    def frame(self, context: int, instance: Boundary) -> Frame:
        """A frame in which no option has a handle."""
        frame = self._frames.take()
        frame.context, frame.boundary = context, instance
        for place in range(self.count):
            _OPTION.pack_into(frame.buf, _VAL * (2 + place), capi.KINDS["option"], 0)
        return frame

    def fill(self, frame: Any, codec: Codec) -> int:
        """The address of the tuple; the string is the one that `codec` lends."""
        frame.buf[_VAL : 2 * _VAL] = codec.buf[:_VAL]
        _VALUE.pack_into(frame.buf, 0, capi.KINDS["tuple"], 1 + self.count, frame.base + _VAL)
        address: int = frame.base
        return address

    def settle(self, frame: Frame, *, crossed: bool) -> None:
        """See `Frame.settle`."""
        frame.settle(crossed=crossed)
        self._frames.give_back(frame)
