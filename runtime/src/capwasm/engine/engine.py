"""One engine a runtime: stores with every limit set, and a clock that no guest can outrun.

The epoch clock is one thread that ticks every 10 ms.  At each tick a running guest calls back into
`store`, which asks the call's record whether it may go on; so a kill, an eviction and a deadline
all take effect within one tick, and Ctrl-C is seen in the middle of an endless loop (LIFE-13).
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - before `_register_atexit` below
import os
import threading
import time
import weakref
from typing import Protocol

from capwasm.call import CallRecord, call_under_way
from capwasm.errors import InstancesExceeded, InternalError
from capwasm.limits import Limits
from capwasm.threads import Here

from . import capi
from .pool import Capacity, Made, make_engine
from .store import Store
from .trampoline import guarded

__all__ = ["TICK_SECONDS", "PluginEngine", "Seat"]

TICK_SECONDS = 0.010
# A ticker that was held back this long by the GIL is late; this long, it is dead.
_TICKER_DEAD_SECONDS = 5.0


class Spare(Protocol):
    """Instances that nobody needs before the next call."""

    def drop(self) -> None:
        """Close them."""


class Seat:
    """A place among all instances, for one that is in no store of the engine.

    Nobody else has it: where a signal's handler raised before it was given to an instance, it goes.
    """

    __slots__ = ("_live", "_number")

    def __init__(self, live: dict[object, bool]) -> None:
        """Take it."""
        self._live = live
        self._number = object()
        live[self._number] = True

    def close(self) -> None:
        """Give it back; later calls do nothing."""
        if self._number in self._live:
            del self._live[self._number]

    @guarded
    def __del__(self) -> None:
        try:
            self.close()
        except BaseException:
            self.close()
            raise


class PluginEngine:
    """A wasmtime engine with its ticker.  Safe from many threads; not across a fork.

    Attributes:
        running: which call runs in which instance.  Who puts its record here with `setdefault`, one
            step that two threads can't both take, has the instance to itself until it takes the
            record away; so this is the instances' lock, and the list of all that is under way.
        shut: whether a guest must ask `check` before it starts.
    """

    def __init__(self, capacity: Capacity | None = None, made: Made | None = None) -> None:
        """Start the engine and its clock.

        Args:
            capacity: how many instances it holds; see there.
            made: with that capacity, if it was made before threads could be started.
        """
        self.capacity = capacity or Capacity()
        made = made or make_engine(self.capacity)
        self.wasm = made.wasm
        self.instances = made.instances
        self.why_not_pooled = made.why_not
        self._wasm_at = capi.address(self.wasm.ptr())
        self._live: dict[object, bool] = {}  # numbers of the stores that are open, and seats
        self._pid = os.getpid()
        self._stop = threading.Event()
        self.running: dict[object, CallRecord] = {}
        self.shut = False
        self._last_tick = time.monotonic()
        self._spares: weakref.WeakSet[Spare] = weakref.WeakSet()
        # Re-entrant, for a signal's handler may make a call.
        self._spares_lock = threading.RLock()
        self._ticker = threading.Thread(target=self._tick, name="capwasm-epoch", daemon=True)
        self._ticker.start()
        _ENGINES.add(self)
        # Again, to be the first: before the audit log is closed, which was there already.
        atexit.unregister(_interpreter_ends)
        atexit.register(_interpreter_ends)

    def _tick(self) -> None:
        increment = self.wasm.increment_epoch
        # After the end as well, until the last guest has seen it: a guest without a clock never
        # stops (LIFE-11).
        try:
            while not self._stop.wait(TICK_SECONDS) or self.running:
                increment()
                self._last_tick = time.monotonic()
                if self._stop.is_set():
                    time.sleep(TICK_SECONDS)
        finally:
            self.shut = True

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one that the engine was made in."""
        return os.getpid() != self._pid

    def check(self, here: Here | None = None) -> None:
        """Pass if a guest that is started now, on that thread, can also be stopped (LIFE-10, LIFE-11).

        To be asked when the call is in `running` already: who closes sees it there, or it sees here
        that it is closed.

        Raises:
            RuntimeError: the engine was closed, this process is a fork of the one it was made in, or
                the interpreter is exiting and the thread is one of ours.
            InternalError: the clock has stopped.
        """
        if self._stop.is_set():
            raise RuntimeError("the runtime is closed")
        if self.is_forked:
            raise RuntimeError(
                "this runtime was made before a fork; make a new one in the child "
                "(multiprocessing: use the 'spawn' start method)"
            )
        late = time.monotonic() - self._last_tick
        if late > _TICKER_DEAD_SECONDS and not self._ticker.is_alive():
            raise InternalError("the epoch clock has stopped; no guest may run")
        if here is not None and here.worker and _leaving.is_set():
            raise RuntimeError("the interpreter is exiting")

    def interrupt(self, reason: str, *, workers_only: bool = False) -> None:
        """Ask every call under way to end."""
        for record in list(self.running.values()):
            if not workers_only or (record.here is not None and record.here.worker):
                record.interrupt(reason)

    @property
    def live(self) -> int:
        """How many instances there are now."""
        return len(self._live)

    def lend(self, spare: Spare) -> None:
        """Have `spare` dropped when there is no room; kept no longer than others keep it."""
        with self._spares_lock:
            self._spares.add(spare)

    def new_store(self, limits: Limits, *, laned: bool = False) -> Store:
        """A store in which every limit is set.

        Args:
            limits: of the plugin.
            laned: whether it is for a component with the lane; see `Store`.

        Raises:
            InstancesExceeded: the runtime holds as many instances as it may.
        """
        self._make_room()
        return Store(self.wasm, self._wasm_at, limits, self._live, laned=laned)

    def seat(self) -> Seat:
        """A place for an instance that runs in another process.

        Raises:
            InstancesExceeded: as `new_store`.
        """
        self._make_room()
        return Seat(self._live)

    def _make_room(self) -> None:
        if len(self._live) >= self.instances:
            with self._spares_lock:
                spares = list(self._spares)
            for spare in spares:
                spare.drop()
        if len(self._live) >= self.instances:
            raise InstancesExceeded(
                f"the runtime holds {self.instances} instances, as many as it may"
                " (Capacity.instances)"
            )

    def close(self, seconds: float = 1.0) -> None:
        """Take no more calls, interrupt those under way, and wait so long for them to end.

        The clock stops when the last has ended.  Called from within a call, it does not wait.
        """
        self.shut = True
        self._stop.set()
        if self.is_forked:
            return
        self.interrupt("the runtime is closed")
        if call_under_way() is None:
            self._ticker.join(seconds)


# -- the end of the process: no guest holds it up, and none is torn down in the middle ------------

_ENGINES: weakref.WeakSet[PluginEngine] = weakref.WeakSet()
_leaving = threading.Event()


def _main_thread_ends() -> None:
    # Python now waits for the threads of pools.  Nobody is left to take what they would return.
    _leaving.set()
    for engine in list(_ENGINES):
        engine.interrupt("the interpreter is exiting", workers_only=True)


def _forked() -> None:
    for engine in list(_ENGINES):
        engine.shut = True  # for `check` to say why
        # None of its stores is closed here: a thread that is not here may have held a lock of theirs.
        engine._live.clear()  # noqa: SLF001


def _interpreter_ends() -> None:
    # What runs now runs on daemon threads, which Python ends wherever they are: not in a guest.
    for engine in list(_ENGINES):
        engine.close()


# What is registered first runs last: this must come after the pools' own, which waits for them.
# (`atexit` would be too late for it: that runs when all the waiting is over.)
threading._register_atexit(_main_thread_ends)  # type: ignore[attr-defined]  # noqa: SLF001
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
