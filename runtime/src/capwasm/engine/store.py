"""One store an instance: with every limit set, closed once, and cheap to make.

A store is what a guest's memory, tables and resources live in.  Making one through the wheel's classes
costs more than the engine needs for it, so the C functions are called here, with addresses.

The engine does not look after the order: closing a store that a call is in kills the process, from
the same thread and from another.  `Instance` keeps it (closing waits until the call has returned);
here a store is closed once, whoever asks how often, and what is asked of a closed one is refused before
it reaches the engine.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from wasmtime import _bindings as ffi

from capwasm.call import current_call
from capwasm.limits import Limits
from capwasm.threads import LOCAL

from . import capi
from .lane.wire import ADDED_INSTANCES, ADDED_MEMORIES
from .trampoline import guarded

__all__ = ["Func", "Meter", "Store"]

_CONTINUE = 0
_NUMBERS = itertools.count(1)
# What stands in the place of a context that is gone: nothing that ctypes would pass on.
_CLOSED: Any = object()


@guarded
def _on_epoch(_context: Any, _data: Any, delta: Any, kind: Any) -> int:
    # Nothing may leave this function; see `trampoline`.
    try:
        delta[0] = 1
        kind[0] = _CONTINUE
        current_call().check()
        return 0
    except BaseException as exc:  # noqa: BLE001 - also a signal that is raised right here
        try:
            current_call().fail(exc)
            return capi.error_new("interrupted")
        except BaseException:  # noqa: BLE001 - and one more: the next tick finds the failure
            call = LOCAL.here.call
            if call is not None and call.failure is None:
                call.failure = exc
            delta[0] = 1
            kind[0] = _CONTINUE
            return 0


_EPOCH_CALLBACK = ffi._wasmtime_store_epoch_deadline_callback.argtypes[1](_on_epoch)  # noqa: SLF001
_ON_EPOCH = capi.address(_EPOCH_CALLBACK)


class Func:
    """A function of one instance: a few numbers, to be filled in by the engine."""

    __slots__ = ("_func", "at")

    def __init__(self) -> None:
        """None yet."""
        self._func = ffi.wasmtime_component_func_t()
        self.at = ctypes.addressof(self._func)


class Meter(NamedTuple):
    """What a call may use is set before it, and what is left is read after it.

    Attributes:
        set, get: called as `set(where, budget)` and `get(where, left_at)`; C functions, where there
            is an engine, so a call costs no more than it must.
        left: has what is left as its `value`, when `get` has returned.
    """

    set: Callable[[Any, Any], object]
    get: Callable[[Any, Any], object]
    where: Any
    budget: Any
    left_at: Any
    left: Any


class Store:
    """The store of one instance; fuel must be given before a guest can run.

    Attributes:
        context: the address that the engine's functions take, until the store is closed.
    """

    __slots__ = ("_at", "_engine", "_fuel", "_fuel_at", "_live", "_number", "context")

    def __init__(
        self,
        engine: Any,
        engine_at: int,
        limits: Limits,
        live: dict[object, bool],
        *,
        laned: bool = False,
    ) -> None:
        """Make it, with all five limits and the epoch callback.

        `limits.memory` is shared out over `limits.memories`, since the engine's own limit counts
        each memory alone (RES-07).

        Args:
            engine: kept for as long as the store is.
            engine_at: its address.
            limits: of the instance.
            live: has a number for each store that is open, and counts them thereby.
            laned: whether it is for a component with the lane, whose share is not the plugin's.
        """
        self._number = next(_NUMBERS)
        self._engine = engine
        self._live = live
        self._fuel = ctypes.c_uint64()
        self._fuel_at = ctypes.addressof(self._fuel)
        at = self._at = capi.store_new(engine_at, None, None)
        live[self._number] = True
        capi.store_limiter(
            at,
            limits.memory // limits.memories,
            limits.table_elements,
            limits.instances + laned * ADDED_INSTANCES,
            limits.tables,
            limits.memories + laned * ADDED_MEMORIES,
        )
        capi.store_on_epoch(at, _ON_EPOCH, None, None)
        self.context: int = capi.store_context(at)
        capi.set_epoch_deadline(self.context, 1)

    def set_fuel(self, fuel: int) -> None:
        """What the guest may still use."""
        error = capi.set_fuel(self.context, fuel)
        if error:
            raise capi.take_error(error)

    def get_fuel(self) -> int:
        """What is left."""
        error = capi.get_fuel(self.context, self._fuel_at)
        if error:
            raise capi.take_error(error)
        return self._fuel.value

    def meter(self, fuel: int) -> Meter:
        """How `Instance` gives each call that much, and sees what is left."""
        return Meter(
            capi.fuel_set,
            capi.fuel_get,
            capi.pointer_arg(self.context),
            capi.uint64_arg(fuel),
            capi.pointer_arg(self._fuel_at),
            self._fuel,
        )

    def _context(self) -> Any:
        """The context as the wheel's own classes have it, for `wheel.py`."""
        return ctypes.cast(self.context, ctypes.POINTER(ffi.wasmtime_context_t))

    def close(self) -> None:
        """Give all of it back; later calls do nothing.  No call may be in it."""
        try:
            # One operation: of two threads that come at once, one goes on.  No function is called
            # from here until the engine has it: a signal's handler that raises can't come between.
            del self._live[self._number]
        except KeyError:
            return
        self.context = _CLOSED
        capi.store_delete(self._at)

    @guarded
    def __del__(self) -> None:
        try:
            if hasattr(self, "_at"):
                self.close()
        except BaseException:
            # A signal's handler raised, maybe before it began: nobody else has it any more.
            if hasattr(self, "_at"):
                self.close()
            raise
