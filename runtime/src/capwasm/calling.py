"""How a call gets to run: its turn, its thread, and the switch by which others end it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from .call import CallRecord, call_under_way, continued
from .threads import Workers

__all__ = ["Ticket", "Turns", "go_on", "run_elsewhere"]

T = TypeVar("T")


class _Place:
    """In the queue.  `gone` when nobody waits for it any more.

    A bare lock is waited for, not a future: the lock within one can stay taken for ever, if a signal's
    handler raises where it is being taken.
    """

    __slots__ = ("_bell", "_tell", "gone")

    def __init__(self, tell: Callable[[], object] | None = None) -> None:
        """Wait for a turn; `tell` is called when it comes, from any thread."""
        self.gone = False
        self._tell = tell
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self, seconds: float) -> None:
        """Until it has come, or for so long."""
        self._bell.acquire(timeout=seconds)

    def come(self) -> None:
        """It has come."""
        self._bell.release()
        if self._tell is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._tell()


class Turns:
    """So many at a time, first come, first served.  Who waits in asyncio takes no thread for it.

    A turn is held by name, not counted: so to take one and to give it back is one step each, and
    neither a signal in between nor one that comes twice makes a turn appear or go missing.

    Attributes:
        holders: who has a turn.  Who holds one ends it with `del holders[holder]` and then, if
            somebody is `waiting`, `hand_on`.
        waiting: who comes next.
    """

    def __init__(self, count: int) -> None:
        """All are free."""
        self.holders: dict[object, bool] = {}
        self.waiting: deque[_Place] = deque()
        self._count = count
        # Re-entrant: a signal's handler may make a call.
        self._lock = threading.RLock()

    def take_now(self, holder: object) -> bool:
        """Take a turn if one is free and nobody waits; whether it was."""
        self.holders[holder] = True
        if len(self.holders) <= self._count and not self.waiting:
            return True
        del self.holders[holder]
        self.hand_on()  # who looked meanwhile has counted this one in
        return False

    def take(self, holder: object, seconds: float) -> bool:
        """Wait at most so long for a turn; whether it came."""
        place = _Place()
        try:
            self._queue(place)
            place.wait(_bounded(seconds))
            return self._become(place, holder)
        finally:
            place.gone = True
            if place in self.holders:
                del self.holders[place]
            self.hand_on()

    async def take_async(self, holder: object, seconds: float) -> bool:
        """`take`, for asyncio."""
        import asyncio  # slow to import, and only for who uses it

        loop, came = asyncio.get_running_loop(), asyncio.Event()
        place = _Place(lambda: loop.call_soon_threadsafe(came.set))
        try:
            self._queue(place)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), _bounded(seconds))
            return self._become(place, holder)
        finally:
            place.gone = True
            if place in self.holders:
                del self.holders[place]
            self.hand_on()

    def give_back(self, holder: object) -> None:
        """End a turn: it is the next one's."""
        self.holders.pop(holder, None)
        self.hand_on()

    def hand_on(self) -> None:
        """Give free turns to who waits."""
        given = []
        with self._lock:
            while self.waiting and (self.waiting[0].gone or len(self.holders) < self._count):
                place = self.waiting[0]
                if not place.gone:
                    self.holders[place] = True
                    given.append(place)
                if place.gone and place in self.holders:  # since that very moment
                    del self.holders[place]
                del self.waiting[0]
        for place in given:
            place.come()

    def let_all_go(self) -> None:
        """Give everyone who waits a turn, over the limit: all there is left for them is an error."""
        with self._lock:
            self._count += len(self.waiting)
        self.hand_on()

    def _queue(self, place: _Place) -> None:
        with self._lock:
            self.waiting.append(place)
        self.hand_on()

    def _become(self, place: _Place, holder: object) -> bool:
        """Hold by that name what came to `place`, if it came."""
        if place not in self.holders:
            return False
        # One too many for a moment, never one too few; then `place` is given back.
        self.holders[holder] = True
        return True


def _bounded(seconds: float) -> float:
    return max(0.0, min(seconds, threading.TIMEOUT_MAX))


class Ticket:
    """Lets the caller's side interrupt a call that another thread runs, also before it begins."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._lock = threading.Lock()
        self._record: CallRecord | None = None
        self._reason: str | None = None

    def bind(self, record: CallRecord) -> None:
        """This is what runs now."""
        with self._lock:
            self._record = record
            if self._reason is not None:
                record.interrupt(self._reason)

    def interrupt(self, reason: str) -> None:
        """End what runs, and whatever would run next."""
        with self._lock:
            self._reason = reason
            if self._record is not None:
                self._record.interrupt(reason)


def run_elsewhere(workers: Workers, work: Callable[[Ticket], T]) -> T:
    """Run what enters a guest on a thread of our own: there is no room for it on this one's stack.

    Raises:
        BaseException: what `work` raises, and what a signal's handler raises while it runs
            elsewhere; then its ticket ends it first.
    """
    ticket = Ticket()
    future: Future[T] | None = None
    try:
        under_way = call_under_way()
        future = workers.submit(copy_context().run, go_on, under_way, lambda: work(ticket))
        return future.result()
    except BaseException as exc:
        if future is None or not future.done():
            ticket.interrupt(f"{type(exc).__name__} in the core")
        if future is not None:
            with contextlib.suppress(Exception):
                future.result()
        raise


def go_on(call: CallRecord | None, work: Callable[[], T]) -> T:
    """Run `work` on this thread on behalf of one that runs `call` and waits."""
    with continued(call):
        return work()
