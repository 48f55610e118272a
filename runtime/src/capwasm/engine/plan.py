"""Call plans: how one function's values cross, worked out once a component.

For the embedder of this layer (`instance.py`, `link.py`)::

    types = walk(component, engine)              # walk.py
    plans = Plans(types)                         # one a component; shared by threads and instances
    plans = Plans(types, lane=chosen(types))     # a component that was composed with the lane

    # one an instance
    boundary = Boundary(handles, kinds, value_bytes)

    call = plans.export(interface, name).bind(store, func, boundary)
    value = call(args)                           # args: a tuple

    host = plans.host(interface, name)
    define_func(linker_instance, host, invoke, on_failure, lambda: boundary)
    define_func(lanes_instance, plans.lane_host(interface, name), invoke, …)    # for each chosen
    define_resource(linker_instance, name, type_id, on_drop, on_failure)
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import wasmtime
from wasmtime import component as wc

from capwasm.errors import CapError, InternalError

from . import capi, trampoline
from . import types as t
from .classes import Classes
from .crossing import BadValue, Boundary, EngineFault
from .flat import bind_flat
from .frame import Frame, Frames
from .host import (
    call_fault,
    check_defined,
    error_value,
    has_handles,
    hint_of,
    lift_all,
    miscounted,
    returned,
)
from .lane.choose import Chosen
from .lift import lifter
from .lower import is_flat, lowerer
from .store import Func, Store

pointer_arg, addressof = capi.pointer_arg, ctypes.addressof

__all__ = [
    "BoundCall",
    "CallPlan",
    "ExportPlan",
    "HostPlan",
    "ImportPlan",
    "Invoke",
    "OnFailure",
    "Plans",
    "define_func",
    "define_resource",
]

AnyStore: TypeAlias = Store | wasmtime.Store
AnyFunc: TypeAlias = Func | wc.Func
BoundCall: TypeAlias = Callable[[tuple[Any, ...]], Any]
Invoke: TypeAlias = Callable[[tuple[Any, ...]], Any]
OnFailure: TypeAlias = Callable[[BaseException], str]


class CallPlan(Protocol):
    """How an exported function is called.

    Attributes:
        where: the interface and the name under which `func` is looked up.
    """

    name: str
    type: t.FuncType
    where: tuple[str, str]

    def bind(self, store: AnyStore, func: AnyFunc, boundary: Boundary) -> BoundCall:
        """The function of one instance, to be called with a tuple of arguments.

        Whoever calls it answers for the store: open, that of `func` and `boundary`, entered by no
        other thread.  What it raises:

        * TypeError, ValueError: an argument is not of its type; the message says which and where.
        * ValueLimitExceeded: the arguments, or the result, are larger than `boundary` allows.
        * CapError, HandleLimitExceeded: a handle can't be passed.
        * RecursionError: too little of Python's stack is left.  In all these cases but for a
          result's, the guest was not entered.
        * EngineFault: the call failed in the engine; `__cause__` is the wheel's exception.
        """
        ...


class HostPlan(Protocol):
    """How a host function is called."""

    name: str
    type: t.FuncType

    def define(
        self,
        linker: wc.LinkerInstance,
        invoke: Invoke,
        on_failure: OnFailure,
        boundary: Callable[[], Boundary],
    ) -> None:
        """Define the import in `linker`; it lives as long as the linker and its stores.

        Args:
            linker: where; the interface's instance.
            invoke: takes the arguments as a tuple, returns the result: for a `result` type the
                good value itself, or `Ok` or `Err`.  It may raise anything.  An owned handle among
                the arguments is out of the instance's table: the function must close it, unless it
                raises, then it is closed here.  A `CapError` becomes the `err` case (see
                `error_value`); everything else ends the guest's call.
            on_failure: is given what ends the call, and keeps it for whoever made the call; returns
                a message for the engine.
            boundary: the instance that calls, asked at each call.

        The engine keeps all three, and thereby what they refer to: that must not be the linker, or
        neither would ever be freed.

        Raises:
            LinkError: the linker refuses the name.
        """
        ...


class Plans:
    """The plans of one component's functions, made when first asked for.  Safe from threads.

    If the wheel's structures are not the known ones, all plans go through the wheel's own slow
    conversions, and a RuntimeWarning is given once.
    """

    def __init__(
        self, types: t.ComponentTypes, *, fast: bool | None = None, lane: Chosen | None = None
    ) -> None:
        """Plan for that component.

        Args:
            types: its own, without the lane's.
            fast: overrides the check, for tests.
            lane: what takes the lane, if it was composed with one.

        Raises:
            InternalError: there is a lane, and the wheel's structures are not the known ones.
        """
        self.types = types
        self.classes = Classes()
        self._fast = _layout_is_known() if fast is None else fast
        self._lane = lane or Chosen((), ())
        if self._lane and not self._fast:
            raise InternalError("a component with a lane needs the layout that was checked")
        self._made: dict[tuple[str, str, str], Any] = {}
        self._lock = threading.Lock()

    def export(self, interface: str, name: str) -> CallPlan:
        """The plan of an exported function; `interface` is "" at the top level.

        Raises:
            KeyError: the component exports no such function.
        """
        plan: CallPlan = self._plan("export", interface, name)
        return plan

    def host(self, interface: str, name: str) -> HostPlan:
        """The plan of an imported function.

        Raises:
            KeyError: the component imports no such function.
        """
        plan: HostPlan = self._plan("import", interface, name)
        return plan

    def lane_host(self, interface: str, name: str) -> HostPlan:
        """The plan of an imported function that takes the lane: its name is the lane's.

        Raises:
            KeyError: it doesn't.
        """
        plan: HostPlan = self._plan("lane", interface, name)
        return plan

    def _plan(self, side: str, interface: str, name: str) -> Any:
        key = (side, interface, name)
        plan = self._made.get(key)
        if plan is not None:
            return plan
        export = side == "export"
        found = self.types.exported(interface) if export else self.types.imported(interface)
        type_ = found.function(name) if found else None
        if type_ is None:
            raise KeyError(f"no {side} {interface} {name}")
        plan = self._make(side, interface, name, type_)
        with self._lock:
            return self._made.setdefault(key, plan)

    def _make(self, side: str, interface: str, name: str, type_: t.FuncType) -> Any:
        number = None
        if side != "import":
            find = self._lane.export if side == "export" else self._lane.host
            number = find(interface, name)
        if number is not None:
            from .lane.plan import LaneExportPlan, LaneImportPlan

            laned = LaneExportPlan if side == "export" else LaneImportPlan
            return laned(number, name, type_, self.classes)
        if side == "lane":
            raise KeyError(f"{interface} {name} does not take the lane")
        if self._fast:
            cls: Any = ExportPlan if side == "export" else ImportPlan
        else:
            from .wheel import WheelExportPlan, WheelImportPlan

            cls = WheelExportPlan if side == "export" else WheelImportPlan
        plan = cls(name, type_, self.classes)
        plan.where = interface, name
        return plan


_warned = threading.Event()


def _layout_is_known() -> bool:
    faults = capi.layout_faults()
    if faults and not _warned.is_set():
        _warned.set()
        warnings.warn(f"values cross slowly: {'; '.join(faults)}", RuntimeWarning, stacklevel=3)
    return not faults


class ExportPlan:
    """The fast `CallPlan`."""

    where: tuple[str, str]

    def __init__(self, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Build the converters."""
        self.name = name
        self.type = type_
        hint, result = hint_of(name), type_.result
        types = [x for _, x in type_.params]
        self._lowers = tuple(lowerer(x, classes, f"{hint}-{n}") for n, x in type_.params)
        self._lift = None if result is None else lifter(result, classes, f"{hint}-result")
        # Whether the result is more than its slot, and has to be deleted.
        self._owned = result is not None and not is_flat(result)
        self._handles = has_handles(result) or any(map(has_handles, types))
        self._flat = not self._owned and all(map(is_flat, types))
        self._frames = Frames(len(types) + 1, flat=self._flat)
        self._counts = capi.size_arg(len(types)), capi.size_arg(0 if result is None else 1)

    def bind(self, store: AnyStore, func: AnyFunc, boundary: Boundary) -> BoundCall:
        """See `CallPlan.bind`."""
        raw = func._func  # noqa: SLF001
        if not self._flat:
            return self._bind_any(store, raw, boundary)
        return bind_flat(self.type, raw, store, self._lower_all, self._lift, self._frames)

    def _lower_all(self, args: tuple[Any, ...], frame: Frame) -> None:
        if len(args) != len(self._lowers):
            raise miscounted(self.type, self.name, len(args))
        off, buf = 0, frame.buf
        try:
            for lower, value in zip(self._lowers, args):  # noqa: B905 - counted
                lower(value, buf, off, frame)
                off += 32
        except BadValue as fault:
            raise self._named(fault, off) from None

    def _named(self, fault: BadValue, off: int) -> TypeError | ValueError:
        return fault.at(f"argument {self.type.params[off // 32][0]}").to_error()

    def _bind_any(self, store: AnyStore, raw: Any, boundary: Boundary) -> BoundCall:
        free, new, give_back = self._frames.free, self._frames.new, self._frames.give_back
        handles, lift, owned, lowers = self._handles, self._lift, self._owned, self._lowers
        slot, limit, expected = len(lowers) * 32, boundary.value_bytes, len(lowers)
        context = capi.context_at(store)
        function, where = pointer_arg(addressof(raw)), pointer_arg(context)
        nargs, nresults = self._counts
        enter, delete = capi.func_call, capi.val_delete
        headroom = trampoline.headroom if handles else trampoline.room_for_callback

        def call(args: tuple[Any, ...], _keep: Any = (store, raw)) -> Any:
            headroom()
            if len(args) != expected:
                raise miscounted(self.type, self.name, len(args))
            try:
                frame = free.pop()
            except IndexError:
                frame = new()
            frame.left = frame.limit = limit
            if handles:
                frame.context, frame.boundary = context, boundary
            entered = returned = False
            off, buf = 0, frame.buf
            try:
                try:
                    # What `_lower_all` does, without the call.
                    for lower, value in zip(lowers, args):  # noqa: B905 - counted
                        lower(value, buf, off, frame)
                        off += 32
                except BadValue as fault:
                    raise self._named(fault, off) from None
                entered = True
                try:
                    error = enter(function, where, frame.args, nargs, frame.result, nresults)
                    if error:
                        raise call_fault(error)
                except EngineFault:
                    raise
                except BaseException as exc:
                    raise EngineFault("torn", exc) from exc
                returned = True
                if lift is None:
                    return None
                frame.left = limit
                return lift(buf, slot, frame)
            finally:
                if returned and owned:
                    delete(frame.result)
                    buf[slot] = 0  # the engine drops what stands here before it writes
                if handles:
                    frame.settle(crossed=entered, alive=returned or not entered)
                give_back(frame)

        return call


class ImportPlan:
    """The fast `HostPlan`."""

    def __init__(self, name: str, type_: t.FuncType, classes: Classes) -> None:
        """Nothing is built before the guest calls it."""
        self.name = name
        self.type = type_
        self._classes = classes

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
        name, result, classes = self.name, self.type.result, self._classes
        hint, params = hint_of(name), self.type.params
        lifts = tuple(
            (lifter(x, classes, f"{hint}-{n}"), 32 * i) for i, (n, x) in enumerate(params)
        )
        lower = None if result is None else lowerer(result, classes, f"{hint}-result")
        handles = has_handles(result) or any(has_handles(x) for _, x in params)
        frames = Frames(1, flat=result is None or is_flat(result))
        size = 32 * len(lifts)
        read, clone = ctypes.string_at, capi.val_clone

        def run(context: int, args: int, results: int) -> None:
            frame, instance = frames.take(), boundary()
            frame.left = frame.limit = instance.value_bytes
            if handles:
                frame.context, frame.boundary = context, instance
            crossed = False
            try:
                try:
                    if handles:
                        values = lift_all(lifts, read(args, size), frame)
                    elif lifts:
                        raw = read(args, size)
                        values = tuple([lift(raw, off, frame) for lift, off in lifts])
                    else:
                        values = ()
                    value = invoke(values)
                except CapError as refusal:
                    value = error_value(result, refusal)
                    if handles:
                        frame.rollback()
                value = returned(name, result, value)
                if lower is None:
                    crossed = True
                    return
                frame.left = frame.limit
                try:
                    lower(value, frame.buf, 0, frame)
                except BadValue as fault:
                    raise InternalError(f"host function {name}: {fault.at('result')}") from None
                clone(frame.base, results)
                crossed = True
            finally:
                if handles:
                    frame.settle(crossed=crossed)
                frames.give_back(frame)

        return run


def define_func(
    linker: wc.LinkerInstance,
    plan: HostPlan,
    invoke: Invoke,
    on_failure: OnFailure,
    boundary: Callable[[], Boundary],
) -> None:
    """Define the import of `plan` in `linker`; see `HostPlan.define`."""
    plan.define(linker, invoke, on_failure, boundary)


def define_resource(
    linker: wc.LinkerInstance,
    name: str,
    type_id: int,
    on_drop: Callable[[int], None],
    on_failure: OnFailure,
) -> None:
    """Define the host resource `name`; `on_drop(rep)` runs when the guest drops its handle.

    Raises:
        LinkError: the linker refuses the name.
    """

    def run(_context: int, rep: int) -> None:
        on_drop(rep)

    entry = trampoline.Entry(run, on_failure)
    check_defined(trampoline.add_resource(linker, name, type_id, entry), name)
