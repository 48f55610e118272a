"""A loaded plugin: its functions, its instances, and the switches that stop it.

Calls may come from any thread and from asyncio.  How instances serve them is the manifest's
`instance`: a fresh one for each call (the default; nothing is left from the call before), warm ones
that are used again (the plugin says that it keeps no state), or one that keeps its state, with its
calls one after the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from .call import CallRecord, call_under_way, running_calls
from .calling import Ticket, Turns, go_on, run_where_it_fits
from .capability import GrantedClause
from .capsule.verify import VerifiedArtifact
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
from .grants.resolve import Grants
from .instance import CallStats, Instance
from .limits import Limits
from .ready import Ready
from .record.redact import printable
from .serving import Serving, Terms
from .session import Session
from .threads import Workers

__all__ = ["Opener", "Plugin"]


@dataclass(frozen=True)
class Opener:
    """Makes instances of one plugin."""

    engine: PluginEngine
    linked: Linked
    terms: Terms
    grants: Grants

    def prepare(self) -> Instance:
        """An instance to start, which lets go of what it is served with when it closes."""
        terms = self.terms
        return Instance(self.engine, self.linked, terms.name, terms.limits, Serving(terms))


class Plugin:
    """One loaded plugin.  Made by `Runtime.load`; a context manager that closes it."""

    def __init__(
        self,
        artifact: VerifiedArtifact,
        opener: Opener,
        workers: Workers,
        on_close: Callable[[Plugin], None],
    ) -> None:
        """Keep the proofs; `Runtime.load` made them in order."""
        self.manifest = opener.terms.manifest
        self.grants = opener.grants
        self.digest = artifact.digest
        self.signers = artifact.signers
        self.functions = opener.linked.exports
        self._opener = opener
        self._workers = workers
        self._on_close = on_close
        self._recorder = opener.terms.recorder
        self._mode = self.manifest.plugin.instance
        self._turns = Turns(1 if self._mode == "single" else self.limits.concurrency)
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._under_way: list[int] = []  # threads, once for each call
        self._spare: list[Instance] = []
        self._live: set[Instance] = set()
        self._ended: str | None = None
        self._ready = Ready(
            opener.engine, lambda: self._open(Ticket()), self._let_go, workers.submit
        )
        # The first instance is made now, so that what can't start is refused at load.
        began = time.monotonic()
        first = self._off_main(self._open)
        if self._mode == "per-call":
            self._ready.add(first, time.monotonic() - began)
        else:
            self._spare.append(first)

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
    def laned(self) -> tuple[str, ...]:
        """The functions whose lists cross at the speed of memory; see `Linked.laned`."""
        return self._opener.linked.laned

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
        self._take_turn(wait_seconds)
        try:
            return self._off_main(lambda ticket: self._call(export, args, ticket))
        finally:
            self._turns.give_back()

    async def acall(self, function: str, *args: Any, wait_seconds: float | None = None) -> Any:
        """`call`, for asyncio.  Cancelling the task interrupts the guest.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `call`.
        """
        import asyncio  # slow to import, and whoever calls this has it

        export = self.functions.find(function)
        self._check()
        if not await self._turns.take_async(self._patience(wait_seconds)):
            raise self._too_many()
        try:
            ticket = Ticket()
            future = asyncio.get_running_loop().run_in_executor(
                self._workers, go_on, running_calls(), lambda: self._call(export, args, ticket)
            )
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                ticket.interrupt("the task was cancelled")
                with contextlib.suppress(Exception):
                    await future
                raise
        finally:
            self._turns.give_back()

    def session(self) -> Session:
        """An instance of one's own, that keeps its state and its resources until closed.

        Raises:
            ConcurrencyExceeded: `limits.concurrency` are in use.
            GuestError: its start failed.
            InstanceClosedError: the plugin was evicted or closed.
        """
        self._take_turn(0.0)
        try:
            return Session(self, self._off_main(self._take))
        except BaseException:
            self._turns.give_back()
            raise

    def end_session(self, instance: Instance) -> None:
        """Take the instance of a session back.  For `Session`."""
        with self._lock:
            self._live.discard(instance)
        try:
            instance.close("its session has ended")
        finally:
            self._turns.give_back()

    def run_on(
        self, instance: Instance, action: str, work: Callable[[CallRecord], tuple[Any, CallStats]]
    ) -> Any:
        """Enter that instance, and record it as `action`.  For `Session`.

        Raises:
            GuestError, TypeError, ValueError: as `call`.
        """

        def run(ticket: Ticket) -> Any:
            with self._counted():
                return self._run(instance, action, ticket, work)

        return self._off_main(run)

    def _off_main(self, work: Callable[[Ticket], Any]) -> Any:
        self._check()
        ticket = Ticket()
        return run_where_it_fits(self._workers, ticket, lambda: work(ticket))

    def _call(self, export: Export, args: tuple[Any, ...], ticket: Ticket) -> Any:
        with self._counted():
            instance = self._take(ticket)
            try:
                return self._run(
                    instance, export.short, ticket, lambda r: instance.call(export, args, r)
                )
            finally:
                self._put_back(instance)

    def _run(
        self,
        instance: Instance,
        action: str,
        ticket: Ticket,
        work: Callable[[CallRecord], tuple[Any, CallStats]],
    ) -> Any:
        action = printable(action[:200])
        record = instance.record(action)
        ticket.bind(record)
        try:
            value, stats = work(record)
        except (TypeError, ValueError):
            raise
        except BaseException as exc:
            self._record_failure(action, record, exc)
            raise
        self._record_call(action, ALLOWED, "", stats)
        return value

    def _open(self, ticket: Ticket) -> Instance:
        """A started instance.  It can be killed from the moment that its start runs."""
        instance = self._opener.prepare()
        with self._lock:
            ended = self._ended
            if ended is None:
                self._live.add(instance)
        record = instance.record("(start)")
        ticket.bind(record)
        try:
            if ended is not None:
                raise self._closed(ended)
            instance.start(record)
        except BaseException as exc:
            with self._lock:
                self._live.discard(instance)
            instance.close("it did not start")
            self._record_failure(record.function, record, exc)
            raise
        return instance

    def _take_turn(self, wait_seconds: float | None) -> None:
        self._check()
        if not self._turns.take(self._patience(wait_seconds)):
            raise self._too_many()

    def _patience(self, wait_seconds: float | None) -> float:
        wait = self.limits.wall_ms / 1000 if wait_seconds is None else wait_seconds
        outer = call_under_way()
        # A call from a host function may not block for longer than any other thing it does.
        return wait if outer is None else min(wait, outer.remaining())

    def _too_many(self) -> ConcurrencyExceeded:
        error = ConcurrencyExceeded(
            f"more than {self.limits.concurrency} calls at a time (limits.concurrency)"
            if self._mode != "single"
            else "its one instance is in another call",
            context=self.name,
        )
        self._record("limit", DENIED, action="call", reason=error.code)
        return error

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._lock:
            self._under_way.append(me)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.remove(me)
                self._quiet.notify_all()

    def wait_quiet(self, seconds: float) -> None:
        """Wait at most so long until no call of other threads is under way.  For `Runtime`."""
        me = threading.get_ident()
        with self._lock:
            self._quiet.wait_for(
                lambda: all(thread == me for thread in self._under_way), max(0.0, seconds)
            )

    def _check(self) -> None:
        if self._ended is not None:
            raise self._closed(self._ended)
        self._opener.engine.check()

    def _closed(self, why: str) -> InstanceClosedError:
        return InstanceClosedError(f"the plugin is closed: {why}", context=self.name)

    def _take(self, ticket: Ticket) -> Instance:
        self._check()
        if self._mode == "per-call":
            return self._ready.take() or self._open(ticket)
        while True:
            with self._lock:
                instance = self._spare.pop() if self._spare else None
                if instance is not None and not instance.alive:
                    self._live.discard(instance)
            if instance is None:
                return self._open(ticket)
            if instance.alive:
                return instance

    def _put_back(self, instance: Instance) -> None:
        keep = instance.alive and self._mode != "per-call"
        with self._lock:
            if keep and self._ended is None:
                self._spare.append(instance)
                return
        self._let_go(instance, "its call has ended")

    def _let_go(self, instance: Instance, reason: str) -> None:
        with self._lock:
            self._live.discard(instance)
        instance.close(reason)

    # -- what stops it --------------------------------------------------------------------------

    def kill(self, reason: str) -> int:
        """Interrupt every call under way and discard every instance; the plugin stays loaded.

        Takes effect within one epoch tick (10 ms).  Returns how many calls were interrupted.
        Any thread, also a host function of the plugin itself.
        """
        try:
            self._record("kill", DENIED, action="kill", reason=reason)
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
        doomed: list[GrantedClause[Any]] = (
            [g for g in grant.allow if g.lease.alive and where(g.clause)] if grant else []
        )
        for granted in doomed:
            granted.lease.revoke(reason)
        # What the starts of those that wait were given is not taken back by that.
        self._ready.drop()
        # When the last is off: what can't be recorded is revoked all the same.
        for granted in doomed:
            self._record(
                "revoke",
                DENIED,
                action=capability,
                target=granted.clause.describe(),
                reason=reason,
            )
        return len(doomed)

    def forget_ready(self) -> None:
        """Let go of instances that were started for calls to come.  For `Runtime`."""
        self._ready.drop()

    def _discard(self, reason: str) -> int:
        self._ready.drop()
        with self._lock:
            doomed = list(self._live)
            self._spare.clear()
            self._live.clear()
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
                self._record("kill", DENIED, action="evict", reason=event)
        finally:
            self._turns.let_all_go()
            self._on_close(self)
            self._discard(why)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    # -- what is recorded -----------------------------------------------------------------------

    def _record(self, kind: str, verdict: str, **fields: Any) -> None:
        self._recorder.record(Event(kind=kind, verdict=verdict, plugin=self.name, **fields))

    def _record_call(self, action: str, verdict: str, reason: str, stats: CallStats) -> None:
        self._record(
            "call",
            verdict,
            action=action,
            reason=reason,
            details={
                "ms": round(stats.seconds * 1000, 3),
                "fuel": stats.fuel,
                "host-calls": stats.host_calls,
                "output-bytes": stats.output_bytes,
                "net-bytes": stats.net_bytes,
            },
        )

    def _record_failure(self, action: str, record: CallRecord, error: BaseException) -> None:
        code = error.code if isinstance(error, CapwasmError) else type(error).__name__
        self._record_call(action, FAILED, code, CallStats(record, 0))
        match error:
            case LimitExceeded():
                self._record("limit", DENIED, action=action, reason=code)
            case CallInterrupted():
                self._record("kill", DENIED, action=action, reason=error.message)
            case InstanceClosedError():
                pass
            case GuestError() | InternalError():
                self._record(
                    "crash", FAILED, action=action, reason=code, target=error.message[:500]
                )
            case _:
                pass
