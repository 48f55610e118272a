"""A loaded plugin: its functions, its instances, and the switches that stop it.

Calls may come from any thread and from asyncio.  The manifest's `instance` says what serves them: a
fresh one for each call (the default), warm ones that are used again (the plugin says that it keeps
no state), or one that keeps its state, with its calls one after the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Self, TypeVar

from .call import CallRecord, call_under_way
from .calling import Ticket, Turns, go_on, run_elsewhere
from .capsule.legacy import Proven
from .engine.exports import Export, Namespace
from .engine.witdoc import wit_texts
from .errors import ConcurrencyExceeded, InstanceClosedError
from .events import DENIED
from .instance import Instance
from .isolation.backoff import Backoff
from .keeping import Books
from .opener import Opener
from .ready import Ready
from .session import Session
from .threads import LOCAL, Workers
from .wasi import WasiConfig

__all__ = ["Plugin"]

T = TypeVar("T")
_POLL_SECONDS = 0.002


class Plugin:
    """One loaded plugin.  Made by `Runtime.load`; a context manager that closes it."""

    def __init__(
        self,
        artifact: Proven,
        opener: Opener,
        workers: Workers,
        on_close: Callable[[Plugin], None],
        on_open: Callable[[Plugin], None] = lambda _plugin: None,
    ) -> None:
        """Keep the proofs; `Runtime.load` made them in order.

        Args:
            artifact: what was proven.
            opener: makes instances of it.
            workers: threads for calls.
            on_close: told when it ends, also when it does not start.
            on_open: told before its code runs for the first time; from then on it can be evicted.
                What it raises ends the plugin.
        """
        self.manifest = opener.terms.manifest
        self.grants = opener.grants
        self.digest = artifact.digest
        self.signers = artifact.signers
        self.functions = opener.exports.with_docs(wit_texts(artifact))
        self.name = opener.terms.name
        self.limits = opener.grants.limits
        self.exports = Namespace(self.functions, self._bind)
        self._opener = opener
        self._workers = workers
        self._on_close = on_close
        self._books = Books(opener.terms.recorder, self.name, self._gone)
        self._backoff = Backoff(self.name, opener.terms.recorder)
        self._mode = self.manifest.plugin.instance
        self._running = opener.engine.running
        self._turns = Turns(1 if self._mode == "single" else self.limits.concurrency)
        # Re-entrant, for a signal's handler may kill the plugin.
        self._lock = threading.RLock()
        self._live: set[Instance] = set()
        # Those that any call may take; never changed but replaced, so it can be gone through.
        self._pool: tuple[Instance, ...] = ()
        self._ended: str | None = None
        self._ready = Ready(opener.engine, lambda: self._open(None), Instance.close, workers.submit)
        # The first instance is made now, so that what can't start is refused at load.
        began = time.monotonic()
        try:
            on_open(self)
            first = self._where_it_fits(self._open)
        except BaseException:
            self._end("it did not start", event=None)
            raise
        if self._mode == "per-call":
            self._ready.add(first, time.monotonic() - began)
        else:
            self._pool = (first,)

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
    def laned(self) -> tuple[str, ...]:
        """The functions whose lists cross at the speed of memory; see `Linked.laned`."""
        return self._opener.code.laned

    @property
    def imports(self) -> tuple[str, ...]:
        """The interfaces that a component imports; nobody knows them of native code."""
        return self._opener.code.imports

    @property
    def alive(self) -> bool:
        """Whether it takes calls."""
        return self._ended is None

    def __repr__(self) -> str:
        return f"<plugin {self.name}{f' ({self._ended})' if self._ended else ''}>"

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
        return self._invoke(self.functions.find(function), args, wait_seconds)

    async def acall(self, function: str, *args: Any, wait_seconds: float | None = None) -> Any:
        """`call`, for asyncio.  Cancelling the task interrupts the guest.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `call`.
        """
        import asyncio  # slow to import, and whoever calls this has it

        export = self.functions.find(function)
        self._check()
        turns, record = self._turns, CallRecord(self.name, export.short, self.limits)
        try:
            if not turns.take_now(record) and not await turns.take_async(
                record, self._patience(wait_seconds)
            ):
                raise self._too_many()
            ticket = Ticket()
            future = asyncio.get_running_loop().run_in_executor(
                self._workers,
                copy_context().run,
                go_on,
                call_under_way(),
                lambda: self._invoke(export, args, record=record, ticket=ticket),
            )
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                ticket.interrupt("the task was cancelled")
                with contextlib.suppress(Exception):
                    await future
                raise
        except BaseException:
            self._abandon(record)
            raise
        finally:
            turns.give_back(record)

    def session(self, program: WasiConfig | None = None) -> Session:
        """An instance of one's own, that keeps its state and its resources until closed.

        Args:
            program: its arguments, variables and streams; it is a new one then.

        Raises:
            ConcurrencyExceeded: `limits.concurrency` are in use.
            GuestError: its start failed.
            InstanceClosedError: the plugin was evicted or closed.
        """
        self._check()
        turns, record = self._turns, CallRecord(self.name, "(session)", self.limits)
        session: Session | None = None
        try:
            if not turns.take_now(record):
                self._take_turn(record, 0.0)
            pooled = None if program else self._from_pool(record)
            instance = pooled or self._where_it_fits(lambda t: self._fresh(record, t, program))
            session = Session(
                instance, self.functions, self._workers, lambda: turns.give_back(record)
            )
            return session
        except BaseException:
            self._abandon(record)
            raise
        finally:
            # As in `instance`: first what needs no call to a function.
            if session is None and record in turns.holders:
                del turns.holders[record]
            if session is None and turns.waiting:
                turns.hand_on()

    def _bind(self, export: Export) -> Callable[..., Any]:
        invoke = self._invoke
        return lambda *args: invoke(export, args)

    def _invoke(  # noqa: C901 - flat, for each call costs
        self,
        export: Export,
        args: tuple[Any, ...],
        wait_seconds: float | None = None,
        *,
        record: CallRecord | None = None,
        ticket: Ticket | None = None,
    ) -> Any:
        """Call that export on a free instance, or on a new one, once it is this call's turn.

        Args:
            export: which.
            args: for it.
            wait_seconds: as `call`.
            record: of a call that waits for this on another thread, and has the turn.
            ticket: its.
        """
        here, turns, running = LOCAL.here, self._turns, self._running
        if record is None:
            record = CallRecord(self.name, export.short, self.limits)
        else:
            record.restart()
        instance: Instance | None = None
        try:
            if ticket is None:
                if not turns.take_now(record):
                    self._check()
                    self._take_turn(record, wait_seconds)
                    record.restart()
                if here.room < 1:
                    return self._elsewhere(export, args, record)
            for instance in self._pool:
                if running.setdefault(instance, record) is record:
                    if instance.doomed is None:
                        break
                    # By somebody who found it claimed.
                    del running[instance]
                    instance.close()
            else:
                instance = self._fresh(record, ticket)
                record.restart()
                self._keep(instance, record)
            if ticket is not None:
                ticket.bind(record)
                record.check()
            record.owner = instance
            way = instance.ways.get(export.index) or instance.way(export)
            return instance.enter(here, record, way.run, args, way.tally)
        except BaseException:
            if instance in running and running[instance] is record:
                del running[instance]  # so that it can be closed
            if ticket is None:
                self._abandon(record)
            raise
        finally:
            # As in `instance`: first what needs no call to a function.
            if instance in running and running[instance] is record:
                del running[instance]
            if ticket is None and record in turns.holders:
                del turns.holders[record]
            if turns.waiting:
                turns.hand_on()

    def _elsewhere(self, export: Export, args: tuple[Any, ...], record: CallRecord) -> Any:
        return run_elsewhere(
            self._workers, lambda t: self._invoke(export, args, record=record, ticket=t)
        )

    def _keep(self, instance: Instance, record: CallRecord) -> None:
        """Let later calls take a fresh instance as well, if such is the mode and there is a place."""
        if self._mode != "per-call":
            with self._lock:
                if len(self._pool) < self.limits.concurrency:
                    self._running.setdefault(instance, record)
                    self._pool = (*self._pool, instance)
                    instance.holder = None
                    return
        instance.once = True

    def _abandon(self, record: CallRecord) -> None:
        """End the turn of a call or a session that went wrong, and close what nobody holds.

        Where a signal's handler raised, an instance may be on its way from the one who made it to
        the one who asked for it, or closed by half.  Each that is alive waits for calls, or is held
        by one who has a turn.
        """
        holders = self._turns.holders
        holders.pop(record, None)
        for instance in list(self._live):
            holder = instance.holder
            if not instance.alive or (holder is not None and holder not in holders):
                instance.close("nobody holds it")

    def _fresh(
        self, record: CallRecord, ticket: Ticket | None, program: WasiConfig | None = None
    ) -> Instance:
        """An instance that was never entered, made ahead or now, for the holder of a turn."""
        self._check()
        ready = None if program or self._mode != "per-call" else self._ready.take(record)
        return ready or self._open(ticket, record, program)

    def _open(
        self,
        ticket: Ticket | None,
        holder: CallRecord | None = None,
        program: WasiConfig | None = None,
    ) -> Instance:
        """A started instance.  It can be killed from the moment that its start runs."""
        self._check()
        instance = self._opener.prepare(self._books, program)
        instance.holder = holder
        try:
            # First known, then asked: who ends the plugin sees it, or it sees that it has ended.
            self._live.add(instance)
            if self._ended is not None:
                raise self._closed(self._ended)
            record = instance.record("(start)")
            if ticket is not None:
                ticket.bind(record)
            with self._backoff:
                instance.start(record)
        except BaseException:
            instance.close("it did not start")
            raise
        return instance

    def _from_pool(self, record: CallRecord) -> Instance | None:
        """A free instance that no call will take any more, for the holder of a turn."""
        for instance in self._pool:
            try:
                if self._running.setdefault(instance, record) is record and instance.alive:
                    instance.holder = record
                    self._out_of_pool(instance)
                    return instance
            finally:
                if instance in self._running and self._running[instance] is record:
                    del self._running[instance]
        return None

    def _out_of_pool(self, instance: Instance) -> None:
        if instance in self._pool:
            with self._lock:
                self._pool = tuple(i for i in self._pool if i is not instance)

    def _gone(self, instance: Instance) -> None:
        self._live.discard(instance)
        self._out_of_pool(instance)

    def _where_it_fits(self, work: Callable[[Ticket | None], T]) -> T:
        return work(None) if LOCAL.here.room else run_elsewhere(self._workers, work)

    def _take_turn(self, holder: object, wait_seconds: float | None) -> None:
        if not self._turns.take(holder, self._patience(wait_seconds)):
            raise self._too_many()

    def _patience(self, wait_seconds: float | None) -> float:
        wait = self.limits.wall_ms / 1000 if wait_seconds is None else wait_seconds
        outer = call_under_way()
        # A call from a host function may not block for longer than any other thing it does.
        return wait if outer is None else min(wait, outer.remaining())

    def _too_many(self) -> ConcurrencyExceeded:
        why = f"more than {self.limits.concurrency} calls at a time (limits.concurrency)"
        if self._mode == "single":
            why = "its one instance is in another call"
        error = ConcurrencyExceeded(why, context=self.name)
        self._books.record("limit", DENIED, action="call", reason=error.code)
        return error

    def under_way(self) -> list[CallRecord]:
        """The calls into its instances that have not returned yet."""
        return [r for r in list(self._running.values()) if r.plugin == self.name]

    def wait_quiet(self, seconds: float) -> None:
        """Wait at most so long until no call of other threads is under way.  For `Runtime`."""
        here, until = LOCAL.here, time.monotonic() + seconds
        while any(r.here is not here for r in self.under_way()) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _check(self) -> None:
        if self._ended is not None:
            raise self._closed(self._ended)
        self._opener.engine.check()

    def _closed(self, why: str) -> InstanceClosedError:
        return InstanceClosedError(f"the plugin is closed: {why}", context=self.name)

    # -- what stops it --------------------------------------------------------------------------

    def kill(self, reason: str) -> int:
        """Interrupt every call under way and discard every instance; the plugin stays loaded.

        Takes effect within one epoch tick (10 ms).  Returns how many calls were interrupted.
        Any thread, also a host function of the plugin itself.
        """
        try:
            self._books.record("kill", DENIED, action="kill", reason=reason)
        finally:
            # Also when it can't be recorded: a full disk must not keep a plugin running.
            count = self._discard(reason)
        return count

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

        Raises:
            ValueError: the plugin never asked for that capability.
        """
        if capability not in self.manifest.requests:
            asked = ", ".join(self.manifest.requests) or "none"
            raise ValueError(f"{self.name} asks for no {capability!r}; there are: {asked}")
        grant = self.grants.by_capability.get(capability)
        allow = grant.allow if grant else ()
        doomed = [g for g in allow if g.lease.alive and where(g.clause)]
        for granted in doomed:
            granted.lease.revoke(reason)
        # What the starts of those that wait were given is not taken back by that, nor is what a
        # process was given for good.
        self._ready.drop()
        for instance in list(self._live):
            instance.revoked()
        # When the last is off: what can't be recorded is revoked all the same.
        for granted in doomed:
            what = granted.clause.describe()
            self._books.record("revoke", DENIED, action=capability, target=what, reason=reason)
        return len(doomed)

    def forget_ready(self) -> None:
        """Let go of instances that were started for calls to come.  For `Runtime`."""
        self._ready.drop()

    def _discard(self, reason: str) -> int:
        self._ready.drop()
        doomed = list(self._live)
        count = sum(instance.interrupt(reason) for instance in doomed)
        with contextlib.ExitStack() as each:
            for instance in doomed:
                # One that runs is closed by the thread that runs it, when its call has returned.
                each.callback(instance.close, reason)
        return count

    def _end(self, why: str, *, event: str | None) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = why
        try:
            if event is not None:
                self._books.record("kill", DENIED, action="evict", reason=event)
        finally:
            self._turns.let_all_go()
            self._on_close(self)
            try:
                self._discard(why)
            finally:
                self._opener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
