"""The slow plans, for a wheel whose structures are not the ones that `capi` was written for.

The same interface and the same guards as `plan.ExportPlan` and `plan.ImportPlan`.  The wheel's own
`Func` and callback are not used: they keep a host function's exception in one variable of the whole
process, from where it surfaces in another thread's call, and let a `BaseException` out, which is
fatal.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wc

from capwasm.errors import CapError, InternalError

from . import trampoline
from . import types as t
from .classes import Classes
from .crossing import BadValue, Boundary, EngineFault
from .host import check_defined, error_value, hint_of, miscounted, returned
from .store import Func, Store
from .wheel_values import Session, Value, lift, lower

__all__ = ["WheelExportPlan", "WheelImportPlan"]


class WheelExportPlan:
    """The slow `CallPlan`."""

    where: tuple[str, str]

    def __init__(self, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Keep what to convert."""
        self.name = name
        self.type = type_
        self._classes = classes
        self._hint = hint_of(name)

    def bind(
        self, store: Store | wasmtime.Store, func: Func | wc.Func, boundary: Boundary
    ) -> Callable[[tuple[Any, ...]], Any]:
        """See `CallPlan.bind`."""
        params, result, hint = self.type.params, self.type.result, self._hint

        def call(args: tuple[Any, ...]) -> Any:
            if len(args) != len(params):
                raise miscounted(self.type, self.name, len(args))
            trampoline.headroom()
            session = Session(store, boundary, self._classes)
            values, out = (Value * max(1, len(params)))(), Value()
            entered = returned = False
            try:
                for i, ((name, type_), arg) in enumerate(zip(params, args, strict=True)):
                    try:
                        lower(type_, arg, values[i], session, f"{hint}-{name}")
                    except BadValue as fault:
                        raise fault.at(f"argument {name}").to_error() from None
                entered = True
                try:
                    error: Any = ffi.wasmtime_component_func_call(
                        ctypes.byref(func._func),  # noqa: SLF001
                        store._context(),  # noqa: SLF001
                        values,
                        len(params),
                        ctypes.byref(out),
                        0 if result is None else 1,
                    )
                except BaseException as exc:
                    raise EngineFault("torn", exc) from exc
                if error:
                    cause = wasmtime.WasmtimeError._from_ptr(error)  # noqa: SLF001
                    raise EngineFault(str(cause)) from cause
                returned = True
                if result is None:
                    return None
                session.refill()
                return lift(result, out, session, f"{hint}-result")
            finally:
                if returned and result is not None:
                    ffi.wasmtime_component_val_delete(ctypes.byref(out))
                session.finish(crossed=entered, alive=returned or not entered)

        return call


class WheelImportPlan:
    """The slow `HostPlan`."""

    def __init__(self, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Keep what to convert."""
        self.name = name
        self.type = type_
        self._classes = classes
        self._hint = hint_of(name)

    def define(
        self,
        linker: wc.LinkerInstance,
        invoke: Callable[[tuple[Any, ...]], Any],
        on_failure: Callable[[BaseException], str],
        boundary: Callable[[], Boundary],
    ) -> None:
        """See `HostPlan.define`."""

        def run(context: int, args: int, results: int) -> None:
            self._run(context, args, results, invoke, boundary())

        error = trampoline.add_func(linker, self.name, trampoline.Entry(run, on_failure))
        check_defined(error, self.name)

    def _run(
        self,
        context: int,
        args: int,
        results: int,
        invoke: Callable[[tuple[Any, ...]], Any],
        boundary: Boundary,
    ) -> None:
        pointer = ctypes.cast(context, ctypes.POINTER(ffi.wasmtime_context_t))
        session = Session(wasmtime._store.StoreContext(pointer), boundary, self._classes)  # noqa: SLF001
        crossed = False
        result = self.type.result
        try:
            try:
                value = invoke(self._lift_all(args, session))
            except CapError as refusal:
                value = error_value(result, refusal)
                session.refuse()
            value = returned(self.name, result, value)
            if result is not None:
                session.refill()
                out = Value()
                try:
                    lower(result, value, out, session, f"{self._hint}-result")
                except BadValue as fault:
                    raise InternalError(
                        f"host function {self.name}: {fault.at('result')}"
                    ) from None
                target = ctypes.cast(results, ctypes.POINTER(Value))
                ffi.wasmtime_component_val_clone(ctypes.byref(out), target)
            crossed = True
        finally:
            session.finish(crossed=crossed, alive=True)

    def _lift_all(self, args: int, session: Session) -> tuple[Any, ...]:
        """All the arguments; a dead handle is told of when the engine has let go of all."""
        values: list[Any] = []
        refused: CapError | None = None
        pointer = ctypes.cast(args, ctypes.POINTER(Value)) if args else None
        for i, (name, type_) in enumerate(self.type.params):
            assert pointer is not None
            try:
                values.append(lift(type_, pointer[i], session, f"{self._hint}-{name}"))
            except CapError as exc:
                refused = refused or exc
        if refused is not None:
            raise refused
        return tuple(values)
