"""Stage 5: one plugin, one store: opened with exactly its grants, called one call at a time, closed.

What the engine's Python binding does not keep safe is kept here, before each C call: an instance is
never entered by two threads, never re-entered, never closed while it runs (closing waits for the
call to return), and never used again after a trap (LIFE-01..04).

`_door` is the one way in.  It runs on the caller's thread, which may be the main thread, where Python
runs signal handlers; so an exception can come out of any call to a function, and after it.  What must
not be left half done is therefore written without one: an instance is claimed by one dictionary
operation that says whose it is, and given back, with all that was changed on the thread, by
assignments and `del` alone (docs/adr/0023-the-call-path.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NoReturn, Protocol, TypeAlias

from .call import CallRecord, CallStats, nest
from .capability import HostFunc
from .engine.crossing import Boundary, EngineFault, GuestResource, HostKind
from .engine.engine import PluginEngine
from .engine.exports import Export
from .engine.link import Linked
from .engine.start import Started
from .engine.store import Meter, Store
from .engine.types import ResourceId
from .errors import CapwasmError, GuestError, InstanceClosedError, InternalError
from .handles import HandleTable
from .keeping import NOBODY, Keeper
from .limits import Limits
from .record.redact import printable
from .record.tally import Tally
from .threads import LOCAL, Here
from .traps import classify

__all__ = ["Instance", "Served", "Way"]

# What one host call costs the guest in fuel, besides the work that the host function charges.
HOST_CALL_FUEL = 1_000
# What host calls cost is taken from the guest's fuel when so much has come together: a hundredth of
# the budget at most, and no more than this.
_PAY_AT = 100_000
_START, _CLOSE = "(start)", "(close)"

# here (this thread), record (new, or the one that has claimed the instance), run, args, tally
Enter: TypeAlias = Callable[[Here, CallRecord, Callable[[Any], Any], Any, Tally | None], Any]


class Room(Protocol):
    """Where an instance lives: a store of the engine, or a lane to a process."""

    def close(self) -> None:
        """Give it back, once; no call is in it."""


class Served(Protocol):
    """The host functions of one instance; see `serving.Serving`."""

    def function(self, interface: str, name: str) -> HostFunc:
        """The function of that served interface."""

    def close(self) -> None:
        """Let go of all power."""


class Way:
    """One exported function of one instance, ready to be called.

    Attributes:
        action: what the audit log calls it.   run: takes the arguments as a tuple; to be given to
            `Instance.enter`.   tally: where its calls are counted.
    """

    __slots__ = ("action", "run", "tally")

    def __init__(self, action: str, run: Callable[[Any], Any], tally: Tally | None) -> None:
        """Made by `Instance.way`."""
        self.action = action
        self.run = run
        self.tally = tally


class Instance:
    """A running component with its handles.  Calls may come from any thread, one at a time.

    Attributes:
        once: whether it ends with its next call.
        doomed: why no call is taken any more, or None.
        ways: those that were asked for, by the exports' indices; see `way`.
        holder: whose alone it is, or None; kept for `Plugin`.
        enter: calls `run(args)` in it, as the record says, on this thread; see `_door`.
    """

    def __init__(
        self,
        engine: PluginEngine,
        linked: Linked,
        plugin: str,
        limits: Limits,
        served: Served,
        keeper: Keeper = NOBODY,
    ) -> None:
        """Prepare; nothing of the guest has run until `start`.

        Args:
            engine: the engine that compiled the component.
            linked: the component, joined with the names in `served`.
            plugin: `id@version`.
            limits: of the instance and of each call.
            served: its host functions; closed once, after the last call has returned and all
                handles are closed.
            keeper: is told how its calls end.
        """
        self._linked = linked
        self._pay_at = min(_PAY_AT, limits.fuel // 100)
        store = engine.new_store(limits, laned=bool(linked.lane))
        self._furnish(engine, plugin, limits, served, keeper, linked.kinds, linked.slots)
        self._move_in(store, store.meter(limits.fuel))

    def _furnish(
        self,
        engine: PluginEngine,
        plugin: str,
        limits: Limits,
        served: Served,
        keeper: Keeper,
        kinds: Mapping[ResourceId, HostKind],
        slots: Sequence[tuple[str, str]],
    ) -> None:
        """What every instance has, wherever it runs."""
        self.plugin = plugin
        self.limits = limits
        self.handles = HandleTable(limits.handles)
        self.boundary = Boundary(self.handles, kinds, limits.value_bytes)
        self.once = False
        self.holder: object = None
        self._engine = engine
        self._served = served
        self._keeper = keeper
        self._slots = slots
        self._functions: list[HostFunc | None] = [None] * len(slots)
        self._started: object = None
        self.ways: dict[int, Way] = {}
        self._call: CallRecord  # the last that was let in
        self.doomed: str | None = None

    def _move_in(self, store: Room, meter: Meter) -> None:
        """Live there from now on, with that meter at the door."""
        self._store: Room | None = store
        self.enter = self._door(meter)

    # -- life -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a call would be taken."""
        return self.doomed is None

    @property
    def released(self) -> bool:
        """Whether it was closed, and all of that is done."""
        return self._store is None

    @property
    def running(self) -> CallRecord | None:
        """The call under way, if there is one."""
        record = self._engine.running.get(self)
        return None if record is None or record.function == _CLOSE else record

    def start(self, record: CallRecord | None = None) -> CallStats:
        """Instantiate: the guest's start functions run, under the limits of a call (RES-25).

        Raises:
            LinkError: it doesn't fit its limits of memories, tables or instances.
            GuestError: its start trapped or went over a limit.
        """
        record = record or self.record(_START)
        self.enter(LOCAL.here, record, self._begin, self._store, None)
        return CallStats(record)

    def _begin(self, store: Any) -> None:
        """Run the guest's start; within the call that has claimed the instance."""
        store.set_fuel(self.limits.fuel)  # again: here it is seen that the engine counts it
        self._started = self._linked.startable.start(store)

    def close(self, reason: str = "closed") -> None:
        """Close; a call under way is interrupted, and the closing happens when it has returned."""
        # First doomed, then claimed: a call that is under way sees the one at its end, if it isn't
        # seen here.
        if self.doomed is None:
            self.doomed = reason
        running, me = self._engine.running, self.record(_CLOSE)
        try:
            holder = running.setdefault(self, me)
            if holder is not me:
                holder.interrupt(reason)
            else:
                self._release()
        finally:
            if self in running and running[self] is me:
                del running[self]

    def _release(self) -> None:
        # Only for who has claimed it.
        try:
            self._let_go()
        except BaseException:
            # A step was interrupted, maybe before it began, or failed: what is not done is done now.
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Give everything back, in steps of which each may be taken again; known to be done last."""
        store = self._store
        if store is None:
            return
        # What holds the instance as long as the instance holds it.
        self.enter = _shut
        self._started = None
        self.ways.clear()
        self.__dict__.pop("_call", None)
        try:
            self.handles.close_all()
        finally:
            try:
                store.close()
            finally:
                self._served.close()
        self._keeper.closed(self)
        self.holder = self._store = None

    def revoked(self) -> None:
        """A grant was revoked.  Here each handle asks its lease, so there is nothing to do."""

    def interrupt(self, reason: str) -> bool:
        """Ask the call under way to end; says whether there was one."""
        record = self.running
        if record is None:
            return False
        record.interrupt(reason)
        return True

    # -- calls ----------------------------------------------------------------------------------

    def call(
        self, export: Export, args: tuple[Any, ...], record: CallRecord | None = None
    ) -> tuple[Any, CallStats]:
        """Call an export with Python values; returns its value and what it used.

        Raises:
            TypeError, ValueError: an argument does not fit its WIT type; nothing ran.
            GuestError: the plugin trapped or broke a limit; this instance is closed.
            InstanceClosedError: it was closed before.
        """
        record = record or self.record(export.whole)
        way = self.way(export)
        return self.enter(LOCAL.here, record, way.run, args, way.tally), CallStats(record)

    def record(self, function: str) -> CallRecord:
        """A fresh record for a call of that function; its clock starts now."""
        return CallRecord(self.plugin, function, self.limits, self)

    def way(self, export: Export) -> Way:
        """The way to that export, made when first asked for."""
        way = self.ways.get(export.index)
        if way is None:
            action = printable(export.short[:200])
            way = Way(action, _not_bound, self._keeper.tally(action))

            def first(args: tuple[Any, ...]) -> Any:
                # Within the call that has claimed the instance: the store is asked.
                run = way.run = self._bind(export)
                return run(args)

            way.run = first
            self.ways[export.index] = way
        return way

    def way_to_drop(self, resource: GuestResource) -> Way:
        """The way to the end of a resource that the plugin handed out: its destructor runs as a call.

        Entered, that raises `GuestError` where the destructor traps, and the instance is closed
        (LIFE-09); and `InstanceClosedError` if it was closed before, and the resource with it.

        Raises:
            ValueError: the resource is another instance's.
        """
        if not resource.belongs_to(self.boundary):
            raise ValueError("the resource belongs to another instance")
        action = printable(f"drop {resource.resource.name}"[:200])
        return Way(action, lambda _: resource.drop_in_instance(), self._keeper.tally(action))

    def _bind(self, export: Export) -> Callable[[Any], Any]:
        store, started = self._store, self._started
        if not isinstance(store, Store) or not isinstance(started, Started):
            raise InternalError("the instance was never started")
        plan = self._linked.plans.export(export.interface, export.name)
        return plan.bind(store, started.func(plan.where), self.boundary)

    # -- at the door ----------------------------------------------------------------------------

    def _door(self, meter: Meter) -> Enter:  # noqa: C901, PLR0915 - flat, for each call costs
        """The one way in, with all that it needs at hand."""
        engine, gate = self._engine, self._keeper.gate
        running, claim = engine.running, engine.running.setdefault
        set_fuel, get_fuel, where, budget, left_at, left = meter
        fuel = self.limits.fuel

        def enter(  # noqa: PLR0915
            here: Here,
            record: CallRecord,
            run: Callable[[Any], Any],
            args: Any,
            tally: Tally | None,
        ) -> Any:
            """Call `run(args)` in the instance, as `record`, on this thread, which is `here`."""
            outer, room = here.call, here.room
            record.here = here
            sound = True
            try:
                if claim(self, record) is not record:
                    raise self._busy()
                self._call = record
                # One look at each that could forbid it; what that means is worked out elsewhere.
                if (
                    self.doomed is not None
                    or engine.shut
                    or gate.shut
                    or outer is not None
                    or room < 1
                    or here.worker
                ):
                    self._admit(record, here)
                sound = False  # from here on, until it is known to be
                here.call, here.room = record, room - 1
                set_fuel(where, budget)
                try:
                    value = run(args)
                except EngineFault as fault:
                    failure: BaseException | None = self._why(fault, record)
                else:
                    # A guest that went on after a refusal that must end the call has still failed.
                    failure = record.failure
                if failure is not None:
                    record.failure = failure
                    raise failure
                get_fuel(where, left_at)
                used = fuel - left.value + record.host_fuel
                if used > fuel:  # noqa: PLR1730 - the last host work was not taken from the guest's
                    used = fuel
                record.fuel = used
                seconds = record.seconds = monotonic() - record.started
                if tally is not None:
                    tally.add(
                        seconds, used, record.host_calls, record.output_bytes, record.net_bytes
                    )
                sound = True
                return value
            except BaseException as exc:
                here.call, here.room = outer, room
                sound = self._went_wrong(record, exc) or sound
                raise
            finally:
                # Without a single call to a function, until all is given back.
                here.call, here.room = outer, room
                if self in running and running[self] is record:
                    if not sound:
                        self.doomed = self.doomed or "it trapped"
                    elif self.once:
                        self.doomed = "its call has ended"
                    if self.doomed is None:
                        del running[self]
                        if self.doomed is not None:  # since this very moment
                            self.close()  # type: ignore[unreachable]
                    else:
                        try:
                            self._release()
                        finally:
                            del running[self]

        return enter

    def _busy(self) -> GuestError:
        return GuestError(
            "the instance is in a call already; it can't be entered twice",
            code="guest.busy",
            context=self.plugin,
        )

    def refuse(self, record: CallRecord) -> NoReturn:
        """End a call that came too late.

        Raises:
            InstanceClosedError: always.
        """
        error = self._closed()
        self._went_wrong(record, error)
        raise error

    def _closed(self) -> InstanceClosedError:
        return InstanceClosedError(f"the instance is closed: {self.doomed}", context=self.plugin)

    def _admit(self, record: CallRecord, here: Here) -> None:
        """Pass if the call, which has claimed the instance, may begin."""
        if self.doomed is not None:
            raise self._closed()
        nest(record, here)
        self._engine.check(here)
        if self._keeper.gate.shut:
            self._keeper.admit()
        # It may have been cancelled, or its time be over, before it began.
        record.check()

    def _why(self, fault: EngineFault, record: CallRecord) -> BaseException:
        """The error of a call that ended in the engine."""
        return (
            record.failure
            or fault.torn
            or classify(str(fault), record, starting=self._started is None)
        )

    def _went_wrong(self, record: CallRecord, error: BaseException) -> bool:
        """Tell the keeper of a call that failed; says whether the instance is as good as before.

        Misuse found before the guest ran (a wrong argument, nesting too deep) leaves it as it was; so
        does a result that is too large.  Anything that has set a failure does not, nor what a signal's
        handler or another thread had raised here, wherever that was.
        """
        record.seconds = monotonic() - record.started
        harmless = record.failure is None and isinstance(error, _HARMLESS)
        if not isinstance(error, TypeError | ValueError):
            self._keeper.failed(record, error)
        return harmless and self._started is not None

    # -- host calls -----------------------------------------------------------------------------

    def host_call(self, slot: int, args: tuple[Any, ...]) -> Any:
        """Run one host function for the call under way, and have the call pay for it."""
        call = self._call
        call.charge_host_call()
        function = self._functions[slot]
        try:
            if function is None:
                function = self._functions[slot] = self._served.function(*self._slots[slot])
            return function(*args)
        finally:
            call.host_fuel += HOST_CALL_FUEL
            if call.host_fuel > self._pay_at:
                self._pay(call)

    def _pay(self, call: CallRecord) -> None:
        # Host work uses no fuel of its own accord (RES-03); what it costs is taken from the store.
        store = self._store
        if isinstance(store, Store):
            due, call.host_fuel = call.host_fuel, 0
            store.set_fuel(max(0, store.get_fuel() - due))


# What is raised before a guest is entered, or after it has returned as it should; see `CallPlan.bind`.
_HARMLESS = (TypeError, ValueError, RecursionError, CapwasmError)


def _shut(_here: Here, record: CallRecord, _run: Any, _args: Any, _tally: Any) -> Any:
    """In the place of the door of an instance that is closed."""
    instance: Any = record.owner
    instance.refuse(record)


def _not_bound(_args: Any) -> Any:
    raise InternalError("the function was not bound")
