"""What becomes of plugins while a core runs: it is told, and what was revoked is stopped.

One `Overseer` a runtime.  It knows the plugins that run from the moment before their first
instruction, so whoever brings a new feed sees them, or they see the new feed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from .errors import CapwasmError, RegistryError
from .events import FAILED, Event, Recorder
from .grants.resolve import Grants
from .grants.strikes import StrikesRule
from .monitor.docket import Docket, End
from .monitor.lapse import Lapses
from .monitor.strikes import Strikes
from .monitor.told import Lifecycle, LifecycleKind, between
from .plugin import Plugin
from .record.recorders import Recorders
from .registry.health import Health
from .registry.model import Listed, State, VersionRecord
from .registry.registry import Registry
from .registry.shelf import Shelf
from .review.rules import Matter
from .revocation.guard import Guard
from .revocation.index import Subject
from .revocation.settle import settle_once
from .revocation.watch import Watch

__all__ = ["Lifecycle", "LifecycleKind", "Overseer"]


# A version in one of these does not run on.
_ENDS: Final[Mapping[State, LifecycleKind]] = {
    State.REVOKED: LifecycleKind.REVOKED,
    State.SUSPENDED: LifecycleKind.SUSPENDED,
}


class Overseer:
    """Watches over the plugins of one runtime.  For any thread."""

    def __init__(
        self,
        guard: Guard | None,
        registry: Shelf | None,
        recorder: Recorder,
        home: Path,
        rule: StrikesRule,
        lapses: Lapses,
    ) -> None:
        """Make one; nothing is read and no thread started before `start`.

        Args:
            guard: knows what was revoked.
            registry: what is installed.
            recorder: takes what happens, and tells of it.
            home: where strikes are kept.
            rule: how many a plugin may have.
            lapses: knows what was said of plugins, and when that ends.
        """
        self._guard, self._registry, self._recorder = guard, registry, recorder
        self._lock = threading.Lock()
        self._running: dict[Plugin, Subject] = {}
        self._kills: dict[Plugin, int] = {}
        self.lapses = lapses
        self._docket = Docket(home)
        self._docket_stamp: object = None
        self._held: dict[str, End] = {}
        # Told by other threads, some of them in the midst of a call.
        self._told: SimpleQueue[Lifecycle] = SimpleQueue()
        self._hooks: tuple[Callable[[Lifecycle], None], ...] = ()
        self._watch: Watch | None = None
        self._closed = False
        self._settler: threading.Thread | None = None
        self._stamp: object = self  # like no stamp of a registry
        self._listed: dict[str, Listed] | None = None
        self._health: Health | None = None
        self.strikes: Strikes | None = None
        installed = registry if isinstance(registry, Registry) else None
        if isinstance(recorder, Recorders):
            self.strikes = Strikes(
                self._docket,
                rule,
                recorder,
                installed,
                on_strike=self._told_later,
                on_end=self._struck_out,
            )
            recorder.listen(self.strikes.observe)
            recorder.listen(self._hear)
            if installed is not None:
                budget = installed.policy.updates.error_budget
                self._health = Health(installed, budget, self._sent_back)
                recorder.listen(self._health.observe)

    def start(self) -> None:
        """Watch from now on; called again, does nothing."""
        guard = self._guard
        if guard is None:
            return
        with self._lock:
            if self._watch is not None or self._closed:
                return
            self._watch = watch = Watch(
                guard,
                guard.keeper.directory.parent,
                recorder=self._recorder,
                on_feed=self._enforce,
                on_look=self._look,
            )
        try:
            watch.start()
        except RuntimeError as exc:
            with self._lock:
                self._watch = None  # the next load tries again
            raise CapwasmError(
                f"there is no thread to watch over revocations: {exc}", code="revocation.stale"
            ) from None

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            self._closed = True
            watch, settler = self._watch, self._settler
        if self._health is not None:
            self._health.close()
        if self.strikes is not None:
            self.strikes.close()
        self._docket.close()
        if watch is not None:
            watch.close()
        if settler is not None and settler is not threading.current_thread():
            settler.join()

    def subscribe(self, hook: Callable[[Lifecycle], None]) -> Callable[[], None]:
        """Have a function told what becomes of plugins; what comes back ends that.

        It is called on the watching thread, one event at a time, soon after it happened, whichever
        process did it; so it is quick.  What it raises is recorded, and goes no further.

        Raises:
            RegistryError: what is installed can't be read.
        """
        if self._listed is None:
            self._listed = self._list()
        with self._lock:
            self._hooks = (*self._hooks, hook)
        self.start()

        def end() -> None:
            with self._lock:
                self._hooks = tuple(h for h in self._hooks if h is not hook)

        return end

    # -- loads ------------------------------------------------------------------------------------

    def admit(self, subject: Subject, grants: Grants | None = None) -> None:
        """Pass if a plugin may be loaded, with these grants.

        Raises:
            VerificationError: `verify.revoked`.
            RevocationError: `revocation.stale`, `revocation.state`.
            RegistryError: `strikes.held`; or what is kept of strikes can't be read or believed.
        """
        self._docket.check(subject.id)
        if self._guard is not None:
            self._guard.admit(subject)
            if grants is not None:
                self._guard.admit_grants(subject, grants)

    def enter(self, plugin: Plugin, subject: Subject, matter: Matter | None) -> None:
        """Know a plugin, before its code runs for the first time.

        Whoever loads it asks `admit` once more, between this and that: a feed that came into force
        before this is seen by that, and one that comes after sees the plugin.

        Raises:
            RegistryError: the registry can't be read, or can't be believed.
        """
        kills = self._kills_of(plugin.id)
        with self._lock:
            self._kills[plugin] = kills
            self._running[plugin] = subject
        if matter is not None:
            self.lapses.enter(plugin, matter)

    def try_out(self, record: VersionRecord) -> None:
        """Know which installed version is loaded: a new one that fails too often goes back."""
        if self._health is not None:
            self._health.watch(record)

    def leave(self, plugin: Plugin) -> None:
        """Forget a plugin that has ended."""
        with self._lock:
            self._running.pop(plugin, None)
            self._kills.pop(plugin, None)
        self.lapses.leave(plugin)

    # -- on the watching thread ---------------------------------------------------------------------

    def _enforce(self) -> None:
        """Stop what the feed in force denies; then bring the registry in line."""
        guard = self._guard
        assert guard is not None
        with self._lock:
            running = list(self._running.items())
        with contextlib.ExitStack() as each:  # what fails for one does not spare the next
            for plugin, subject in running:
                each.callback(self._enforce_on, guard, plugin, subject)
        with self._lock:
            if self._settler is None and not self._closed and isinstance(self._registry, Registry):
                self._settler = threading.Thread(
                    target=self._settle, name="capwasm-revocations", daemon=True
                )
                self._settler.start()

    def _settle(self) -> None:
        """Bring the registry in line; on a thread of its own, for there may be much installed."""
        guard, registry, watch = self._guard, self._registry, self._watch
        assert guard is not None
        assert watch is not None
        assert isinstance(registry, Registry)
        generation = -1

        def outdated() -> bool:
            return self._closed or guard.generation != generation

        while True:
            generation = guard.generation
            watch.attempt("registry", lambda: settle_once(registry, guard, outdated))
            with self._lock:
                if self._closed or not outdated():
                    self._settler = None  # the next feed starts another
                    return

    def _enforce_on(self, guard: Guard, plugin: Plugin, subject: Subject) -> None:
        why = guard.denied(subject)
        if why is not None:
            self._stop(plugin, why)
            return
        index = guard.index
        for name, grant in plugin.grants.by_capability.items() if index is not None else ():
            assert index is not None
            for granted in grant.allow:
                entry = index.clause(subject.id, name, granted.clause)
                if entry is not None and granted.lease.alive:
                    clause = granted.clause
                    plugin.revoke(
                        name,
                        f"revoked by feed {index.sequence}: {entry}",
                        where=lambda c, clause=clause: c == clause,  # type: ignore[misc]
                    )

    def _stop(
        self,
        plugin: Plugin,
        why: str,
        kind: LifecycleKind = LifecycleKind.REVOKED,
        code: str = "",
    ) -> None:
        if not plugin.alive:
            return
        try:
            plugin.evict(why)
        finally:
            event = Lifecycle(kind, plugin.id, plugin.version, why, running=True, code=code)
            self._publish(event)

    def _sent_back(self, plugin_id: str, version: str, why: str) -> None:
        """End what runs of a version that spent its error budget; on the thread of `Health`."""
        self._stop_version(plugin_id, version, f"sent back: {why}", LifecycleKind.SUSPENDED)

    def _struck_out(self, event: Lifecycle) -> None:
        """End what runs of a version that had too many strikes; on the thread of `Strikes`."""
        why = f"{event.kind}: {event.reason}"
        self._stop_version(event.plugin, event.version, why, event.kind)

    def _stop_version(self, plugin_id: str, version: str, why: str, kind: LifecycleKind) -> None:
        with self._lock:
            running = [p for p in self._running if (p.id, p.version) == (plugin_id, version)]
        with contextlib.ExitStack() as each:
            for plugin in running:
                each.callback(self._stop, plugin, why, kind)

    def _hear(self, event: Event) -> None:
        """Hear of every event; quick, and never raises."""
        if event.kind == "instance" and event.reason == "guest.backoff":
            plugin, _, version = event.plugin.partition("@")
            seconds = event.details.get("seconds")
            why = f"crashed {event.details.get('crashes')} times in a row; waits {seconds} s"
            self._told_later(
                Lifecycle(LifecycleKind.BACK_OFF, plugin, version, why, code=event.reason)
            )

    def _told_later(self, event: Lifecycle) -> None:
        """Have the subscribers told, on the watching thread."""
        if self._hooks:
            self._told.put(event)

    def _look(self) -> None:
        """See what happened since the last look, in this process and in others."""
        with contextlib.ExitStack() as each:
            each.callback(self._look_at_registry)
            each.callback(self._look_at_holds)
            each.callback(self._look_at_reviews)
            with contextlib.suppress(Empty):
                while True:
                    self._publish(self._told.get_nowait())

    def _look_at_holds(self) -> None:
        """See which plugins are held for their strikes, by whichever process."""
        stamp = self._docket.stamp()
        if stamp == self._docket_stamp:
            return
        was, now = self._held, self._docket.holds()
        with self._lock:
            running = [p for p in self._running if p.id in now]
        with contextlib.ExitStack() as each:
            for plugin in running:
                end = now[plugin.id]
                kind = LifecycleKind(end.kind)
                each.callback(self._stop, plugin, f"{kind}: {end.why}", kind)
            for end in now.values() if self._docket_stamp is not None else ():
                if end.plugin not in was:
                    kind, code = LifecycleKind(end.kind), "strikes.held"
                    held = Lifecycle(kind, end.plugin, end.version, end.why, code=code)
                    each.callback(self._publish, held)
            for end in was.values():
                if end.plugin not in now:
                    event = Lifecycle(LifecycleKind.RESUMED, end.plugin, end.version, "forgiven")
                    each.callback(self._publish, event)
        self._held, self._docket_stamp = now, stamp

    def _look_at_reviews(self) -> None:
        """See what runs although its review does not let it any more."""
        with contextlib.ExitStack() as each:
            for plugin, standing in self.lapses.look():
                code = "review.rejected" if standing.code == "review.rejected" else "review.lapsed"
                why = f"{code}: {'; '.join(fault.message for fault in standing.needs)}"
                each.callback(self._stop, plugin, why, LifecycleKind.SUSPENDED, code)

    def _look_at_registry(self) -> None:
        """See what changed in the registry, whoever changed it."""
        if self._registry is None:
            return
        stamp, before = self._registry.stamp(), self._stamp
        if stamp == before:
            return
        with contextlib.ExitStack() as each:  # the last that is entered comes first
            was = self._listed
            if was is not None:  # somebody wants to be told
                now = self._list()
                self._listed = now
                for listed in reversed((now or {}).values()):
                    if was.get(listed.id) != listed:
                        for event in between(was.get(listed.id), listed):
                            each.callback(self._publish, event)
            if before is not self:  # before the first load there is nothing to stop
                self._stop_ended(each)
                self._kill_asked(each)
        self._stamp = stamp

    def _list(self) -> dict[str, Listed] | None:
        if self._registry is None:
            return None
        return {p.id: p for p in self._registry.list(removed=True)}

    def _stop_ended(self, each: contextlib.ExitStack) -> None:
        assert self._registry is not None
        with self._lock:
            running = list(self._running)
        for plugin in running:
            known = self._registry.find(plugin.id)
            record = None if known is None else known.version(plugin.version)
            kind = None if record is None else _ENDS.get(record.state)
            if record is not None and kind is not None:
                each.callback(self._stop, plugin, f"{kind} here: {record.changed.why}", kind)

    def _kill_asked(self, each: contextlib.ExitStack) -> None:
        """End what runs of plugins that a person wants killed; they stay loaded."""
        assert self._registry is not None
        with self._lock:
            running = list(self._kills.items())
        for plugin, before in running:
            kills = self._kills_of(plugin.id)
            if kills > before:
                found = self._registry.find(plugin.id)
                assert found is not None
                who, why = found.changed.who, found.changed.why
                each.callback(self._kill, plugin, f"killed by {who}{why and f': {why}'}", kills)

    def _kill(self, plugin: Plugin, why: str, kills: int) -> None:
        try:
            plugin.kill(why)
        finally:
            with self._lock:
                if plugin in self._kills:
                    self._kills[plugin] = kills
            event = Lifecycle(LifecycleKind.KILLED, plugin.id, plugin.version, why, running=True)
            self._publish(event)

    def _kills_of(self, plugin_id: str) -> int:
        """How often somebody had it killed, ever."""
        if self._registry is None:
            return 0
        try:
            steps = self._registry.history(plugin_id)
        except RegistryError as exc:
            if exc.code != "registry.unknown":
                raise
            return 0
        return sum(step.action == "kill" for step in steps)

    def _publish(self, event: Lifecycle) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as exc:  # noqa: BLE001  a subscriber's fault is his own
                self._recorder.record(
                    Event(
                        "revocation",
                        FAILED,
                        plugin=f"{event.plugin}@{event.version}",
                        action="subscriber",
                        target=event.kind,
                        reason=type(exc).__name__,
                    )
                )
