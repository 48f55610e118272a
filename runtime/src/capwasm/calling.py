"""How a call gets to run: its turn, its thread, and the switch by which others end it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from .call import CallRecord, continued, has_room, running_calls
from .threads import Workers

__all__ = ["Ticket", "Turns", "go_on", "run_where_it_fits"]

T = TypeVar("T")


class Turns:
    """So many at a time, first come, first served.  Who waits in asyncio takes no thread for it."""

    def __init__(self, count: int) -> None:
        """All are free."""
        self._free = count
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def take(self, seconds: float) -> bool:
        """Wait at most so long for a turn; whether it came."""
        turn = self._queue()
        if turn is None:
            return True
        try:
            turn.result(_bounded(seconds))
        except TimeoutError:
            return self._give_up(turn)
        except BaseException:
            self._give_up(turn)
            raise
        return True

    async def take_async(self, seconds: float) -> bool:
        """`take`, for asyncio."""
        turn = self._queue()
        if turn is None:
            return True
        try:
            import asyncio  # slow to import, and only for who uses it

            await asyncio.wait_for(asyncio.wrap_future(turn), _bounded(seconds))
        except TimeoutError:
            return self._give_up(turn)
        except BaseException:
            self._give_up(turn)
            raise
        return True

    def give_back(self) -> None:
        """End a turn: it is the next one's."""
        with self._lock:
            turn = self._next()
            if turn is None:
                self._free += 1
        if turn is not None:
            turn.set_result(None)

    def let_all_go(self) -> None:
        """Give everyone who waits a turn, over the limit: all there is left for them is an error."""
        while True:
            with self._lock:
                turn = self._next()
            if turn is None:
                return
            turn.set_result(None)

    def _queue(self) -> Future[None] | None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            turn: Future[None] = Future()
            self._waiting.append(turn)
            return turn

    def _next(self) -> Future[None] | None:
        while self._waiting:
            turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                return turn
        return None

    def _give_up(self, turn: Future[None]) -> bool:
        if not turn.cancel():
            # It came in this very moment.
            self.give_back()
        return False


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


def run_where_it_fits(workers: Workers, ticket: Ticket, work: Callable[[], T]) -> T:
    """Run what enters a guest: here, or on a thread of our own.

    Not on the main thread: Python runs signal handlers there, between any two bytecodes, so also in
    the callback that a guest is waiting for; an exception there is undefined behaviour of the
    engine's C API.  And not where the stack has no room for a guest.

    Raises:
        BaseException: what `work` raises, and what a signal's handler raises while it runs
            elsewhere; then `ticket` ends it first.
    """
    if threading.current_thread() is not threading.main_thread() and has_room():
        return work()
    future: Future[T] | None = None
    try:
        future = workers.submit(go_on, running_calls(), work)
        return future.result()
    except BaseException as exc:
        if future is None or not future.done():
            ticket.interrupt(f"{type(exc).__name__} in the core")
        if future is not None:
            with contextlib.suppress(Exception):
                future.result()
        raise


def go_on(calls: tuple[CallRecord, ...], work: Callable[[], T]) -> T:
    """Run `work` on this thread on behalf of one that runs `calls` and waits."""
    with continued(calls):
        return work()
