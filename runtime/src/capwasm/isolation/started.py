"""What a start of a process gives: a handle to it, and word of how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from capwasm_shim.layers import Report

__all__ = ["Ended", "Once", "Started"]

T = TypeVar("T")

_LONG: Final = 3600.0


class Once(Generic[T]):
    """A value that comes once, from another thread.

    One lock of the interpreter's own and nothing around it: a signal's handler that raises while this
    is waited for leaves nothing taken.
    """

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        """Nothing yet."""
        self.value: T | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self, value: T) -> None:
        """Here it is; to be called once."""
        self.value = value
        self._lock.release()

    def wait(self, seconds: float) -> T | None:
        """The value, or None if it has not come by then."""
        if self.value is None and self._lock.acquire(timeout=min(max(0.0, seconds), _LONG)):
            self._lock.release()  # for the next who waits
        return self.value


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        how: "exited", "signalled", or "lost": it was killed because the fork server had ended.
        number: the exit status or the signal.
        cpu_ms: processor time of all its threads, in milliseconds.
        maxrss_kib: the most memory that it had at once, in KiB.
        starved: whether the kernel killed it for the memory that it took.
    """

    how: str
    number: int
    cpu_ms: int = 0
    maxrss_kib: int = 0
    starved: bool = False

    def __str__(self) -> str:
        """For an error's message."""
        if self.starved:
            return "it ran out of memory"
        if self.how == "exited":
            return f"it exited with status {self.number}"
        if self.how == "lost":
            return "it was killed, because the fork server has ended"
        try:
            name = signal.Signals(self.number).name
        except ValueError:
            name = f"signal {self.number}"
        return f"it was killed by {name}"


class Started:
    """A process in its sandbox.  It does not outlive this object: that is for `close` to see to.

    Attributes:
        pid: as this process sees it; it may be another's once this one has ended.
        pidfd: for `poll`, which says when it has ended.
        report: of its sandbox.
    """

    def __init__(self, pid: int, pidfd: int, report: Report, ended: Once[Ended]) -> None:
        """Own the descriptor."""
        self.pid = pid
        self.pidfd = pidfd
        self.report = report
        self._ended = ended
        self._owner = os.getpid()

    def kill(self) -> None:
        """Kill it and all of its pid namespace; nothing happens if it has ended."""
        if self.pidfd >= 0 and os.getpid() == self._owner:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def ended(self, seconds: float = 0.0) -> Ended | None:
        """How it ended, or None if that is not known within so many seconds."""
        return self._ended.wait(seconds)

    def peak_kib(self) -> int:
        """The most memory that it had at once, in KiB; 0 where that can't be told (proc(5), VmHWM)."""
        ended = self.ended()
        if ended is not None:
            return ended.maxrss_kib
        try:
            status = Path(f"/proc/{self.pid}/status").read_bytes()
        except OSError:
            return 0
        found = re.search(rb"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        # It may have ended meanwhile, and the number be another's.
        return int(found[1]) if found is not None and self.ended() is None else 0

    def close(self) -> None:
        """Kill it, and forget it."""
        try:
            self.kill()
        finally:
            pidfd, self.pidfd = self.pidfd, -1
            if pidfd >= 0:
                os.close(pidfd)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.close()
