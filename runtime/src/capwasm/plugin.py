"""A loaded plugin: its functions, its instances, and the switches that stop it.

Calls may come from any thread and from asyncio.  How instances serve them is the manifest's
`instance`: a fresh one for each call (the default; nothing is left from the call before), warm ones
that are used again (the plugin says that it keeps no state), or one that keeps its state, with its
calls one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from .call import CallRecord
from .capability import GrantedClause
from .engine.engine import PluginEngine
from .engine.exports import Export, Namespace
from .engine.link import Linked
from .errors import (
    CallInterrupted,
    CapwasmError,
    ConcurrencyExceeded,
    GuestError,
    InstanceClosedError,
    InternalError,
    LimitExceeded,
)
from .events import ALLOWED, DENIED, FAILED, Event
from .instance import CallStats, Instance
from .limits import Limits
from .serving import Serving, Terms
from .verify import VerifiedArtifact

__all__ = ["Opener", "Plugin", "Session"]


@dataclass(frozen=True)
class Opener:
    """Makes instances of one plugin."""

    engine: PluginEngine
    linked: Linked
    terms: Terms

    def open(self) -> Instance:
        """A started instance, which lets go of what it is served with when it closes.

        Raises:
            CapabilityError: the host's side of a grant can't be used.
            GuestError, LinkError: the guest's start failed.
        """
        terms = self.terms
        instance = Instance(
            self.engine, self.linked, terms.name, terms.grants.limits, Serving(terms)
        )
        try:
            instance.start()
        except BaseException:
            instance.close("it did not start")
            raise
        return instance


class Plugin:
    """One loaded plugin.  Made by `Runtime.load`; a context manager that closes it."""

    def __init__(
        self,
        artifact: VerifiedArtifact,
        opener: Opener,
        executor: Executor,
        on_close: Callable[[Plugin], None],
    ) -> None:
        """Keep the proofs; `Runtime.load` made them in order."""
        self.manifest = opener.terms.manifest
        self.grants = opener.terms.grants
        self.digest = artifact.digest
        self.signers = artifact.signers
        self.functions = opener.linked.exports
        self._opener = opener
        self._executor = executor
        self._on_close = on_close
        self._recorder = opener.terms.recorder
        self._mode = self.manifest.plugin.instance
        slots = 1 if self._mode == "single" else self.limits.concurrency
        self._slots = threading.BoundedSemaphore(slots)
        self._lock = threading.Lock()
        self._spare: list[Instance] = []
        self._live: set[Instance] = set()
        self._ended: str | None = None
        # The first instance is made now, so that what can't start is refused at load.
        self._spare.append(self._track(opener.open()))

    # -- what it is -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.manifest.id

    @property
    def version(self) -> str:
        """The plugin's version."""
        return self.manifest.version

    @property
    def name(self) -> str:
        """`id@version`."""
        return self._opener.terms.name

    @property
    def limits(self) -> Limits:
        """The limits of each call and instance."""
        return self.grants.limits

    @property
    def exports(self) -> Namespace:
        """Its functions as attributes: `plugin.exports.api.forecast("Oslo")`."""
        return Namespace(self.functions, self.call)

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._ended is None

    def __repr__(self) -> str:
        state = "" if self._ended is None else f" ({self._ended})"
        return f"<plugin {self.name}{state}>"

    # -- calls ----------------------------------------------------------------------------------

    def call(self, function: str, *args: Any, wait_seconds: float | None = None) -> Any:
        """Call an export with Python values and return its value (see `values`).

        Args:
            function: its name, as short as it is unambiguous: `forecast`, `api.forecast`.
            args: one a parameter.
            wait_seconds: how long to wait for a free slot when `limits.concurrency` calls are
                under way; as long as a call may take, if not given.

        Raises:
            GuestError: it trapped, broke a limit, or was interrupted; the next call gets a fresh
                instance.
            InstanceClosedError: the plugin was evicted or closed.
            TypeError, ValueError: an argument does not fit its WIT type.
        """
        export = self.functions.find(function)
        return self.run_off_main(lambda ticket: self._call(export, args, ticket, wait_seconds))

    async def acall(self, function: str, *args: Any, wait_seconds: float | None = None) -> Any:
        """`call`, for asyncio.  Cancelling the task interrupts the guest.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `call`.
        """
        export = self.functions.find(function)
        ticket = _Ticket()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(
            self._executor, self._call, export, args, ticket, wait_seconds
        )
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            ticket.interrupt("the task was cancelled")
            with contextlib.suppress(CapwasmError):
                await future
            raise

    def session(self) -> Session:
        """An instance of one's own, that keeps its state and its resources until closed.

        Raises:
            ConcurrencyExceeded: `limits.concurrency` are in use.
            InstanceClosedError: the plugin was evicted or closed.
        """
        self._acquire(0.0)
        try:
            return Session(self, self._take())
        except BaseException:
            self._slots.release()
            raise

    def run_off_main(self, work: Callable[[_Ticket], Any]) -> Any:
        """Run `work` here, or on another thread if this is the main one.  For `Session`.

        Python runs signal handlers on the main thread, between any two bytecodes, so also in the
        callback that a guest is waiting for; an exception there is undefined behaviour of the
        engine's C API.  Guests therefore never run on the main thread.
        """
        self._check()
        ticket = _Ticket()
        if threading.current_thread() is not threading.main_thread():
            return work(ticket)
        future = self._executor.submit(work, ticket)
        try:
            return future.result()
        except BaseException as exc:
            if not future.done():
                # A signal's handler raised here, while the guest runs there.
                ticket.interrupt(f"{type(exc).__name__} in the core")
                with contextlib.suppress(CapwasmError):
                    future.result()
            raise

    def run_on(
        self, instance: Instance, export: Export, args: tuple[Any, ...], ticket: _Ticket
    ) -> Any:
        """Call on that instance, and record it.  For `Session`."""
        return self._run(instance, export, args, ticket)

    def end_session(self, instance: Instance) -> None:
        """Take the instance of a session back.  For `Session`."""
        with self._lock:
            self._live.discard(instance)
        instance.close("its session has ended")
        self._slots.release()

    def _call(
        self, export: Export, args: tuple[Any, ...], ticket: _Ticket, wait: float | None
    ) -> Any:
        self._acquire(self.limits.wall_ms / 1000 if wait is None else wait)
        try:
            instance = self._take()
            try:
                return self._run(instance, export, args, ticket)
            finally:
                self._put_back(instance)
        finally:
            self._slots.release()

    def _run(
        self, instance: Instance, export: Export, args: tuple[Any, ...], ticket: _Ticket
    ) -> Any:
        record = instance.record(export)
        ticket.bind(record)
        try:
            value, stats = instance.call(export, args, record)
        except (TypeError, ValueError):
            raise
        except BaseException as exc:
            self._record_failure(export, record, exc)
            raise
        self._record_call(export, ALLOWED, "", stats)
        return value

    def _acquire(self, wait: float) -> None:
        self._check()
        if not self._slots.acquire(timeout=max(0.0, wait)):
            raise ConcurrencyExceeded(
                f"more than {self.limits.concurrency} calls at a time (limits.concurrency)"
                if self._mode != "single"
                else "its one instance is in another call",
                context=self.name,
            )

    def _check(self) -> None:
        if self._ended is not None:
            raise InstanceClosedError(f"the plugin is closed: {self._ended}", context=self.name)

    def _take(self) -> Instance:
        while True:
            with self._lock:
                self._check()
                instance = self._spare.pop() if self._spare else None
                if instance is not None and not instance.alive:
                    self._live.discard(instance)
            if instance is None:
                return self._track(self._opener.open())
            if instance.alive:
                return instance

    def _put_back(self, instance: Instance) -> None:
        keep = instance.alive and self._mode != "per-call"
        with self._lock:
            if keep and self._ended is None:
                self._spare.append(instance)
                return
            self._live.discard(instance)
        instance.close("its call has ended")

    def _track(self, instance: Instance) -> Instance:
        with self._lock:
            if self._ended is None:
                self._live.add(instance)
                return instance
        instance.close(self._ended)
        raise InstanceClosedError(f"the plugin is closed: {self._ended}", context=self.name)

    # -- what stops it --------------------------------------------------------------------------

    def kill(self, reason: str) -> int:
        """Interrupt every call under way and discard every instance; the plugin stays loaded.

        Takes effect within one epoch tick (10 ms).  Returns how many calls were interrupted.
        Any thread, also a host function of the plugin itself.
        """
        self._record("kill", DENIED, action="kill", reason=reason)
        return self._discard(reason)

    def evict(self, reason: str) -> None:
        """Kill it, and take no more calls."""
        self._end(f"evicted: {reason}", event=reason)

    def close(self) -> None:
        """Let go of everything; a call under way is interrupted.  Called again, does nothing."""
        self._end("closed by the core", event=None)

    def revoke(
        self,
        capability: str,
        reason: str,
        *,
        where: Callable[[Any], bool] = lambda _clause: True,
    ) -> int:
        """End grants of one capability, also within running calls; returns how many.

        Args:
            capability: its table's name, such as `net`.
            reason: for the audit log.
            where: which of its clauses; all, if not given.
        """
        grant = self.grants.by_capability.get(capability)
        doomed: list[GrantedClause[Any]] = (
            [g for g in grant.allow if g.lease.alive and where(g.clause)] if grant else []
        )
        for granted in doomed:
            granted.lease.revoke(reason)
            self._record(
                "revoke",
                DENIED,
                action=capability,
                target=granted.clause.describe(),
                reason=reason,
            )
        return len(doomed)

    def _discard(self, reason: str) -> int:
        with self._lock:
            doomed, idle = list(self._live), list(self._spare)
            self._spare.clear()
            self._live.clear()
        count = sum(instance.interrupt(reason) for instance in doomed if instance not in idle)
        for instance in doomed:
            # One that runs is closed by the thread that runs it, when its call has returned.
            instance.close(reason)
        return count

    def _end(self, why: str, *, event: str | None) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = why
        try:
            if event is not None:
                self._record("kill", DENIED, action="evict", reason=event)
        finally:
            self._discard(why)
            self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    # -- what is recorded -----------------------------------------------------------------------

    def _record(self, kind: str, verdict: str, **fields: Any) -> None:
        self._recorder.record(Event(kind=kind, verdict=verdict, plugin=self.name, **fields))

    def _record_call(self, export: Export, verdict: str, reason: str, stats: CallStats) -> None:
        self._record(
            "call",
            verdict,
            action=export.short,
            reason=reason,
            details={
                "ms": round(stats.seconds * 1000, 3),
                "fuel": stats.fuel,
                "host-calls": stats.host_calls,
                "output-bytes": stats.output_bytes,
                "net-bytes": stats.net_bytes,
            },
        )

    def _record_failure(self, export: Export, record: CallRecord, error: BaseException) -> None:
        code = error.code if isinstance(error, CapwasmError) else type(error).__name__
        self._record_call(export, FAILED, code, CallStats(record, 0))
        match error:
            case LimitExceeded():
                self._record("limit", DENIED, action=export.short, reason=code)
            case CallInterrupted():
                self._record("kill", DENIED, action=export.short, reason=error.message)
            case InstanceClosedError():
                pass
            case GuestError() | InternalError():
                self._record(
                    "crash", FAILED, action=export.short, reason=code, target=error.message[:500]
                )
            case _:
                pass


class _Ticket:
    """Lets the caller's side interrupt a call that another thread runs, also before it begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._record: CallRecord | None = None
        self._reason: str | None = None

    def bind(self, record: CallRecord) -> None:
        with self._lock:
            self._record = record
            if self._reason is not None:
                record.interrupt(self._reason)

    def interrupt(self, reason: str) -> None:
        with self._lock:
            self._reason = reason
            if self._record is not None:
                self._record.interrupt(reason)


class Session:
    """One instance for several calls.  A context manager; a trap ends it."""

    def __init__(self, plugin: Plugin, instance: Instance) -> None:
        """Hold the instance; `Plugin.session` made it."""
        self._plugin = plugin
        self._instance = instance
        self._open = True

    @property
    def exports(self) -> Namespace:
        """The plugin's functions as attributes, called on this instance."""
        return Namespace(self._plugin.functions, self.call)

    def call(self, function: str, *args: Any) -> Any:
        """As `Plugin.call`, on this instance.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `Plugin.call`.
        """
        plugin = self._plugin
        export = plugin.functions.find(function)
        return plugin.run_off_main(
            lambda ticket: plugin.run_on(self._instance, export, args, ticket)
        )

    def drop(self, resource: Any) -> None:
        """Drop a resource that the plugin handed out.

        Raises:
            ValueError: it is another instance's.
            GuestError: its destructor trapped.
        """
        self._plugin.run_off_main(lambda _ticket: self._instance.drop(resource))

    def close(self) -> None:
        """Give the instance up."""
        if self._open:
            self._open = False
            self._plugin.end_session(self._instance)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()
