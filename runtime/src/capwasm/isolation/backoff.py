"""When a plugin may start again that has crashed several times in a row."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from capwasm.errors import AuditError, GuestError
from capwasm.events import FAILED, Event, Recorder

__all__ = ["Backoff"]

_FREE: Final = 2
"""Crashes in a row after which it starts again at once."""
_UNIT_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 30.0
# Codes of starts that the host did not let go on.
_NOT_ITS_OWN: Final = frozenset({"guest.interrupted", "guest.closed", "guest.backoff"})


class Backoff:
    """One plugin's.  Safe from threads.

    From the third crash in a row on, the next start has to wait 0.1·2ⁿ seconds, and no more than 30.
    Nobody is made to wait: a start before that is refused, and says when one would be taken.
    """

    def __init__(self, plugin: str, recorder: Recorder) -> None:
        """Nothing has crashed yet.

        Args:
            plugin: `id@version`.
            recorder: takes an event of each wait.
        """
        self._plugin = plugin
        self._recorder = recorder
        self._crashes = 0
        self._until = 0.0
        # Re-entrant, for a signal's handler may make a call.
        self._lock = threading.RLock()

    @property
    def crashes(self) -> int:
        """How many there were since the last call that went well."""
        return self._crashes

    @property
    def waits(self) -> float:
        """Seconds until it may start again."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Pass if it may start.

        Raises:
            GuestError: `guest.backoff`: it has crashed too often, and must wait.
        """
        left = self.waits
        if left > 0:
            raise GuestError(
                f"it has crashed {self._crashes} times in a row;"
                f" it starts again in {left:.1f} seconds",
                code="guest.backoff",
                context=self._plugin,
            )

    def crashed(self) -> None:
        """A process has died, or had to be killed; or a start has failed."""
        with self._lock:
            self._crashes += 1
            crashes = self._crashes
            if crashes <= _FREE:
                return
            wait = min(_UNIT_SECONDS * 2 ** min(crashes, 16), _MOST_SECONDS)
            self._until = time.monotonic() + wait
        details = {"crashes": crashes, "seconds": wait}
        with contextlib.suppress(AuditError):  # the crash itself is on record
            self._recorder.record(
                Event(
                    "instance",
                    FAILED,
                    self._plugin,
                    "back-off",
                    reason="guest.backoff",
                    details=details,
                )
            )

    def __enter__(self) -> None:
        """Start it, within this."""
        if self._until:  # for each fresh instance comes by here
            self.check()

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """It has started, or not: that counts if it was the plugin's own doing."""
        if error is None:
            if self._crashes:
                self.went_well()
        elif isinstance(error, GuestError) and error.code not in _NOT_ITS_OWN:
            self.crashed()

    def went_well(self) -> None:
        """A call has returned as it should, or a start."""
        if self._crashes:
            with self._lock:
                self._crashes, self._until = 0, 0.0
