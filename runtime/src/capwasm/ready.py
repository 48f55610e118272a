"""Instances made ahead: started, and never entered, for plugins that get a fresh one each call.

A plugin that brings a language's runtime along takes a millisecond to start; this is done while the
call before runs.  Each such instance is as fresh as one that is made for the call: started alone, under
the limits of a call, with what its own start was given.  What may have changed since then is why it
may not be used: it waited too long (its start may have read the clock), or a grant was revoked (its
start may have used it).  `drop` is called for the latter, and for all that stops a plugin.

It pays only where starting takes long: handing the work to another thread costs some 20 µs itself.
And it is left off where instances or memory are short; where there is no room at all, those that wait
make it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .engine.engine import PluginEngine
from .instance import Instance

__all__ = ["Ready"]

WORTH_SECONDS = 0.000_500
"""What a start must take for one to be made ahead."""

FRESH_SECONDS = 10.0
"""How long one may have waited."""

# The share of the engine's instances, and of the machine's memory, that must be left for others.
_FREE_SHARE = 0.5
_MEMORY_SHARE = 0.125
_CHANGED = "it was made before a change"


class Ready:
    """The instances that wait for one plugin's calls.  Safe from threads."""

    def __init__(
        self,
        engine: PluginEngine,
        make: Callable[[], Instance],
        let_go: Callable[[Instance, str], None],
        submit: Callable[[Callable[[], None]], object],
    ) -> None:
        """None yet.

        Args:
            engine: whose instances they are.
            make: starts one; may raise.
            let_go: closes one, for that reason.
            submit: has another thread run something.
        """
        self._engine = engine
        self._make = make
        self._let_go = let_go
        self._submit = submit
        self._most = engine.capacity.ready
        self._waiting: deque[tuple[float, Instance]] = deque()
        self._lock = threading.RLock()  # for a signal's handler may make a call
        self._generation = 0
        self._making = False
        self._slow = False
        engine.lend(self)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, instance: Instance, seconds: float) -> None:
        """Keep an instance whose start took so long, and make others ahead if that is long."""
        self._slow = seconds >= WORTH_SECONDS
        self._waiting.append((time.monotonic(), instance))

    def take(self, holder: object) -> Instance | None:
        """One that may be used, if there is one, for `holder`; and see that there will be another."""
        if not self._waiting and not self._slow:
            return None
        oldest = time.monotonic() - FRESH_SECONDS
        found, stale = None, []
        with self._lock:
            while self._waiting and found is None:
                began, instance = self._waiting[0]
                instance.holder = holder  # first, so that somebody always has it
                self._waiting.popleft()
                if began < oldest or not instance.alive:
                    stale.append(instance)
                else:
                    found = instance
            more = self._slow and not self._making and len(self._waiting) < self._most
            self._making = self._making or more
        for instance in stale:
            self._let_go(instance, "it waited too long")
        if more:
            self._order()
        return found

    def drop(self) -> None:
        """Let go of all, and of what is being made now."""
        with self._lock:
            self._generation += 1
            doomed = [instance for _, instance in self._waiting]
            for instance in doomed:
                instance.holder = _CHANGED
            self._waiting.clear()
        for instance in doomed:
            self._let_go(instance, _CHANGED)

    def _order(self) -> None:
        try:
            self._submit(self._fill)
        except RuntimeError:  # the workers are gone; so will be the plugin
            self._making = False

    def _fill(self) -> None:
        """Make as many as are wanted.  Never raises: nobody waits for it."""
        try:
            while self._room():
                with self._lock:
                    if len(self._waiting) >= self._most:
                        return
                    generation = self._generation
                began = time.monotonic()
                instance = self._make()
                with self._lock:
                    wanted = generation == self._generation and instance.alive
                    if wanted:
                        self._waiting.append((began, instance))
                if not wanted:
                    self._let_go(instance, _CHANGED)
                    return
                self._slow = time.monotonic() - began >= WORTH_SECONDS
        except Exception:  # noqa: BLE001  it is on record; the next call finds out for itself
            return
        finally:
            self._making = False

    def _room(self) -> bool:
        return (
            self._slow
            and self._engine.live < self._engine.instances * _FREE_SHARE
            and _memory_left() > _MEMORY_SHARE
        )


def _memory_left() -> float:
    """The share of the machine's memory that is available; all of it where it can't be told."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            words = dict(line.split(":") for line in file.read(1000).splitlines()[:3])
        return int(words["MemAvailable"].split()[0]) / int(words["MemTotal"].split()[0])
    except (OSError, KeyError, ValueError, IndexError, ZeroDivisionError):
        return 1.0
