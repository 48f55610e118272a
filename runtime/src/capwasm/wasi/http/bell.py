"""A ring that wakes a guest's thread out of a poll, for what comes from another thread of the host."""

from __future__ import annotations

import contextlib
import os
import threading

__all__ = ["Bell"]

_FLAGS = getattr(os, "EFD_CLOEXEC", 0) | getattr(os, "EFD_NONBLOCK", 0)


class Bell:
    """Rung by any thread, heard by one.  It costs a descriptor only once somebody waits for it."""

    __slots__ = ("_closed", "_fd", "_lock", "_rung")

    def __init__(self) -> None:
        """Silent."""
        self._lock = threading.Lock()
        self._fd = -1
        self._rung = self._closed = False

    def ring(self) -> None:
        """Wake who waits, or who will."""
        with self._lock:
            if not self._rung:
                self._rung = True
                self._sound()

    def hush(self) -> None:
        """Begin anew; to be called before looking at what it rings for, so that nothing is missed."""
        with self._lock:
            if self._rung:
                self._rung = False
                if self._fd >= 0:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._fd)

    def fileno(self) -> int | None:
        """What to poll for input; None where there can't be one, and the poll looks by itself."""
        with self._lock:
            if self._fd < 0 and not self._closed:
                try:
                    self._fd = os.eventfd(0, _FLAGS)
                except (OSError, AttributeError):
                    return None
                if self._rung:
                    self._sound()
            return None if self._fd < 0 else self._fd

    def close(self) -> None:
        """Give the descriptor back; nobody polls it any more."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _sound(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)
