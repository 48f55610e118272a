"""Stage 5: one plugin, one store: opened with exactly its grants, called one call at a time, closed.

What the engine's Python binding does not keep safe is kept here, before each C call: an instance is
never entered by two threads, never re-entered, never closed while it runs (closing waits for the
call to return), and never used again after a trap (LIFE-01..04).
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from .call import CallRecord, current_call, entered
from .capability import HostFunc
from .engine.crossing import Boundary, EngineFault, GuestResource
from .engine.engine import PluginEngine
from .engine.exports import Export
from .engine.lane.glue import MEMORY_LIMIT, VALUE_LIMIT
from .engine.lane.glue import MODULE as LANE
from .engine.link import Linked
from .engine.start import Started
from .engine.store import Store
from .errors import (
    CallInterrupted,
    CapwasmError,
    FuelExhausted,
    GuestError,
    GuestTrap,
    HandleLimitExceeded,
    InstanceClosedError,
    InstancesExceeded,
    InternalError,
    LimitExceeded,
    LinkError,
    MemoryLimitExceeded,
    StackExhausted,
    TableLimitExceeded,
    ValueLimitExceeded,
)
from .handles import HandleTable
from .limits import Limits
from .record.redact import printable

__all__ = ["CallStats", "Instance", "Served"]

# What one host call costs the guest in fuel, besides the work that the host function charges.
HOST_CALL_FUEL = 1_000


class Served(Protocol):
    """The host functions of one instance; see `serving.Serving`."""

    def function(self, interface: str, name: str) -> HostFunc:
        """The function of that served interface."""

    def close(self) -> None:
        """Let go of all power."""


class CallStats:
    """What a call used; filled in when it ends.

    Attributes:
        fuel: instructions (about), host work included.   seconds: wall-clock time.
        host_calls, output_bytes, net_bytes: as counted by the call's record.
    """

    __slots__ = ("fuel", "host_calls", "net_bytes", "output_bytes", "seconds")

    def __init__(self, record: CallRecord, fuel: int) -> None:
        """Read the record."""
        self.fuel = fuel
        self.seconds = time.monotonic() - record.started
        self.host_calls = record.host_calls
        self.output_bytes = record.output_bytes
        self.net_bytes = record.net_bytes


class Instance:
    """A running component with its handles.  Calls may come from any thread, one at a time."""

    def __init__(
        self,
        engine: PluginEngine,
        linked: Linked,
        plugin: str,
        limits: Limits,
        served: Served,
    ) -> None:
        """Prepare; nothing of the guest has run until `start`.

        Args:
            engine: the engine that compiled the component.
            linked: the component, joined with the names in `served`.
            plugin: `id@version`.
            limits: of the instance and of each call.
            served: its host functions; closed once, after the last call has returned and all
                handles are closed.
        """
        self.plugin = plugin
        self.limits = limits
        self.handles = HandleTable(limits.handles)
        self.boundary = Boundary(self.handles, linked.kinds, limits.value_bytes)
        self._engine = engine
        self._served = served
        self._linked = linked
        self._functions: list[HostFunc | None] = [None] * len(linked.slots)
        self._store: Store | None = engine.new_store(limits, laned=bool(linked.lane))
        self._started: Started | None = None
        self._calls: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._running: CallRecord | None = None
        self._doomed: str | None = None

    # -- life -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a call would be taken."""
        return self._store is not None and self._doomed is None

    def start(self, record: CallRecord | None = None) -> CallStats:
        """Instantiate: the guest's start functions run, under the limits of a call (RES-25).

        Raises:
            LinkError: it doesn't fit its limits of memories, tables or instances.
            GuestError: its start trapped or went over a limit.
        """
        record = record or self.record("(start)")

        def instantiate(store: Store) -> None:
            self._started = self._linked.startable.start(store)

        _, stats = self._enter(record, instantiate, starting=True)
        return stats

    def close(self, reason: str = "closed") -> None:
        """Close; a call under way is interrupted, and the closing happens when it has returned."""
        with self._lock:
            self._doomed = self._doomed or reason
            running = self._running
            if running is not None:
                running.interrupt(reason)
                return
            store, self._store = self._store, None
        self._release(store)

    def _release(self, store: Store | None) -> None:
        if store is not None:
            self._started = None
            self._calls.clear()
            try:
                try:
                    self.handles.close_all()
                finally:
                    store.close()
            finally:
                self._served.close()

    def interrupt(self, reason: str) -> bool:
        """Ask the call under way to end; says whether there was one."""
        with self._lock:
            if self._running is None:
                return False
            self._running.interrupt(reason)
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

        def run(store: Store) -> Any:
            bound = self._calls.get(export.index)
            if bound is None:
                bound = self._calls[export.index] = self._bind(store, export)
            return bound(args)

        return self._enter(record, run)

    def record(self, function: str) -> CallRecord:
        """A fresh record for a call of that function; its clock starts now."""
        return CallRecord(self.plugin, function, self.limits, self)

    def drop(self, resource: GuestResource, record: CallRecord) -> CallStats:
        """Drop a resource that the plugin handed out; its destructor runs as a call.

        Raises:
            ValueError: the resource is another instance's.
            GuestError: the destructor trapped; this instance is closed (LIFE-09).
            InstanceClosedError: it was closed before, and the resource with it.
        """
        if not resource.belongs_to(self.boundary):
            raise ValueError("the resource belongs to another instance")
        return self._enter(record, lambda _store: resource.drop_in_instance())[1]

    def _bind(self, store: Store, export: Export) -> Any:
        if self._started is None:
            raise InternalError("the instance was never started")
        plan = self._linked.plans.export(export.interface, export.name)
        return plan.bind(store, self._started.func(plan.where), self.boundary)

    def _enter(
        self, record: CallRecord, run: Any, *, starting: bool = False
    ) -> tuple[Any, CallStats]:
        store = self._claim(record)
        value: Any = None
        failure: BaseException | None = None
        fuel_left = 0
        try:
            with entered(record):
                self._engine.enter(record)
                # It may have been cancelled, or its time be over, before it began.
                record.check()
                store.set_fuel(self.limits.fuel)
                try:
                    value = run(store)
                except EngineFault as exc:
                    failure = record.failure or _classify(str(exc), record, starting=starting)
                else:
                    # A guest that went on after a refusal that must end the call has still failed.
                    failure = record.failure
                fuel_left = store.get_fuel()
        except BaseException as exc:
            # Misuse found before the guest ran (a wrong argument, nesting too deep) leaves the
            # store as it was; anything that has set a failure does not, nor what another thread
            # had raised here, wherever that was.
            poisoned = record.failure is not None or not isinstance(exc, Exception)
            self._give_back(poisoned=poisoned or starting)
            raise
        finally:
            self._engine.leave(record)
        self._give_back(poisoned=failure is not None)
        if failure is not None:
            raise failure
        return value, CallStats(record, max(0, self.limits.fuel - fuel_left))

    def _claim(self, record: CallRecord) -> Store:
        with self._lock:
            if self._running is not None:
                raise GuestError(
                    "the instance is in a call already; it can't be entered twice",
                    code="guest.busy",
                    context=self.plugin,
                )
            if self._store is None or self._doomed is not None:
                raise InstanceClosedError(
                    f"the instance is closed: {self._doomed or 'closed'}", context=self.plugin
                )
            self._running = record
            return self._store

    def _give_back(self, *, poisoned: bool) -> None:
        with self._lock:
            self._running = None
            if poisoned:
                self._doomed = self._doomed or "it trapped"
            if self._doomed is None:
                return
            store, self._store = self._store, None
        self._release(store)

    # -- host calls -----------------------------------------------------------------------------

    def host_call(self, slot: int, args: tuple[Any, ...]) -> Any:
        """Run one host function for the call under way, and have the call pay for it."""
        call = current_call()
        call.charge_host_call()
        try:
            function = self._functions[slot]
            if function is None:
                function = self._functions[slot] = self._served.function(*self._linked.slots[slot])
            return function(*args)
        finally:
            self._pay(call)

    def _pay(self, call: CallRecord) -> None:
        # Host work uses no fuel of its own accord (RES-03); what it costs is taken from the store.
        store = self._store
        if store is not None:
            due = HOST_CALL_FUEL + call.host_fuel
            call.host_fuel = 0
            store.set_fuel(max(0, store.get_fuel() - due))


# Words of the engine's messages, and what they mean.  A message can also be empty, so this is only
# asked when the call's own record knows nothing.
_TRAPS: tuple[tuple[str, type[LimitExceeded], str], ...] = (
    ("all fuel consumed", FuelExhausted, "all fuel used (limits.fuel)"),
    ("call stack exhausted", StackExhausted, "the guest's call stack is exhausted"),
    ("memory minimum size", MemoryLimitExceeded, "needs more memory (limits.memory)"),
    ("memory count too high", MemoryLimitExceeded, "needs more memories (limits.memories)"),
    ("maximum concurrent limit", InstancesExceeded, "no room for it now (Capacity.instances)"),
    ("table minimum size", TableLimitExceeded, "needs more table elements (limits.table-elements)"),
    ("table count too high", TableLimitExceeded, "needs more tables (limits.tables)"),
    ("instance count too high", LimitExceeded, "needs more instances (limits.instances)"),
    ("resource limit exceeded", LimitExceeded, "needs more than its limits allow"),
    ("handle limit exceeded", HandleLimitExceeded, "holds too many handles (limits.handles)"),
    ("too much data is being copied", ValueLimitExceeded, "more data than may cross at once"),
)
# Functions that toolchains call when an allocation was refused; `memory.grow` itself only says -1.
_OUT_OF_MEMORY = ("alloc_error", "rust_oom", "out_of_memory", "PyErr_NoMemory", "fatal_oom")


def _classify(message: str, record: CallRecord, *, starting: bool) -> CapwasmError:
    """The named error for a failed call of which the record knows nothing."""
    # The backtrace comes first, with names that the guest chose, line ends and all; what the engine
    # says itself is after the last of these words.
    backtrace, _, cause = message.rpartition("\nCaused by:\n")
    for word, error, text in _TRAPS:
        if word in cause:
            return error(text, context=record.plugin)
    if record.cancelled is not None:
        return CallInterrupted(record.cancelled, context=record.plugin)
    if f"{LANE}!{VALUE_LIMIT}" in backtrace:
        return ValueLimitExceeded(
            "more data than may cross at once (limits.value-bytes)", context=record.plugin
        )
    if f"{LANE}!{MEMORY_LIMIT}" in backtrace or any(w in backtrace for w in _OUT_OF_MEMORY):
        return MemoryLimitExceeded(
            f"out of memory at {record.limits.memory} bytes (limits.memory)", context=record.plugin
        )
    detail = _trap_text(backtrace, cause)
    if starting and not backtrace and "wasm trap" not in cause:
        return LinkError(
            f"can't be instantiated: {detail}", code="link.instantiate", context=record.plugin
        )
    return GuestTrap(detail, context=record.plugin)


def _trap_text(backtrace: str, cause: str) -> str:
    """The trap's name and the innermost guest frames, short and printable (LOG-07)."""
    text = printable(cause.replace("wasm trap:", "").strip())[:300] or "trapped"
    lines = [line.strip() for line in backtrace.split("\n")]
    frames = [line for line in lines if line[:1].isdigit() and "!" in line and LANE not in line][:5]
    return "\n".join([text, *(f"  at {printable(f[:200])}" for f in frames)])
