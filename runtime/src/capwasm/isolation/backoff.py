"""When a plugin's process may start again after it has crashed several times in a row."""

from __future__ import annotations

import threading
import time
from typing import Final

from capwasm.errors import GuestError

__all__ = ["Backoff"]

_FREE: Final = 2
"""Crashes in a row after which it starts again at once."""
_UNIT_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 30.0


class Backoff:
    """One plugin's.  Safe from threads.

    From the third crash in a row on, the next start has to wait 0.1·2ⁿ seconds, and no more than 30.
    Nobody is made to wait: a start before that is refused, and says when one would be taken.
    """

    def __init__(self, plugin: str) -> None:
        """Nothing has crashed yet."""
        self._plugin = plugin
        self._crashes = 0
        self._until = 0.0
        # Re-entrant, for a signal's handler may make a call.
        self._lock = threading.RLock()

    @property
    def crashes(self) -> int:
        """How many there were since the last call that went well."""
        return self._crashes

    def check(self) -> None:
        """Pass if a process may start.

        Raises:
            GuestError: `guest.backoff`: it has crashed too often, and must wait.
        """
        left = self._until - time.monotonic()
        if left > 0:
            raise GuestError(
                f"its process has crashed {self._crashes} times in a row;"
                f" it starts again in {left:.1f} seconds",
                code="guest.backoff",
                context=self._plugin,
            )

    def crashed(self) -> None:
        """A process has died, or had to be killed."""
        with self._lock:
            self._crashes += 1
            if self._crashes > _FREE:
                wait = min(_UNIT_SECONDS * 2 ** min(self._crashes, 16), _MOST_SECONDS)
                self._until = time.monotonic() + wait

    def went_well(self) -> None:
        """A call has returned as it should."""
        if self._crashes:
            with self._lock:
                self._crashes, self._until = 0, 0.0
