"""How much a directory tree holds, kept exact while plugins change it.  Pure: counts, no files.

One `Ledger` stands for one directory of the host, shared by every mount of it in the process,
whichever plugin or instance mounts it.  Its lock is held over a whole change (look, reserve, act,
settle), so that sizes can't move between the look and the act and the count is exact to the byte.
Reads take no lock.

An unlinked file that is still open keeps its bytes on the disk, so its name gives nothing back
until the last handle closes: otherwise a plugin could fill the disk with files that have no name.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self
from weakref import WeakValueDictionary

from .faults import refuse

__all__ = ["MAX_NAMES", "Ledger", "LedgerBook", "Quota"]

FileId = tuple[int, int]

# Without a word on files, a quota of bytes still bounds empty ones: a name costs the disk too.
BYTES_PER_NAME: Final = 1024
LEAST_NAMES: Final = 1000

MAX_NAMES: Final = 250_000
"""Names up to which a tree is counted, about a second's work: no quota lets it hold more."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one grant lets its directory hold; None is no bound."""

    bytes: int | None = None
    files: int | None = None

    @classmethod
    def of(cls, quota_bytes: int | None, quota_files: int | None) -> Self:
        """The quota of a clause: a bound on bytes alone also bounds names, one a KiB.

        Never at more than `MAX_NAMES`: a guest that made them could not be mounted again.
        """
        if quota_files is None and quota_bytes is not None:
            quota_files = max(LEAST_NAMES, quota_bytes // BYTES_PER_NAME)
        return cls(quota_bytes, None if quota_files is None else min(quota_files, MAX_NAMES))

    @property
    def bounded(self) -> bool:
        """Whether there is anything to count for."""
        return self.bytes is not None or self.files is not None


class Ledger:
    """What one directory tree holds.  Every method but `held` needs the lock held.

    Attributes:
        bytes: sum of the sizes of regular files, holes included.
        files: names below the root, of every kind.
        counted: whether the two are true; they are from the first mount that has a quota.
    """

    __slots__ = ("__weakref__", "_lock", "_open", "bytes", "counted", "files")

    def __init__(self) -> None:
        """Begin uncounted."""
        self._lock = threading.RLock()
        self._open: dict[FileId, set[int]] = {}
        self.bytes = 0
        self.files = 0
        self.counted = False

    @contextmanager
    def held(self, timeout: float = -1) -> Iterator[None]:
        """Hold the lock for one change.

        Args:
            timeout: seconds to wait for it, or -1 for as long as it takes.

        Raises:
            FsError: another change took longer (ETIMEDOUT).
        """
        if not self._lock.acquire(timeout=timeout):
            refuse(errno.ETIMEDOUT, "busy")
        try:
            yield
        finally:
            self._lock.release()

    def count(self, scan: Callable[[], tuple[int, int]]) -> None:
        """Begin to count with what `scan` finds, bytes and files, unless it was done."""
        if not self.counted:
            self.bytes, self.files = scan()
            self.counted = True

    def reserve(self, quota: Quota, *, bytes: int = 0, files: int = 0) -> None:  # noqa: A002  the unit
        """Take up room before a change that needs it.

        Raises:
            FsError: it would go over the quota (EDQUOT); nothing was taken.
        """
        if bytes > 0 and quota.bytes is not None and self.bytes + bytes > quota.bytes:
            refuse(errno.EDQUOT, "quota")
        if files > 0 and quota.files is not None and self.files + files > quota.files:
            refuse(errno.EDQUOT, "quota-files")
        self.settle(bytes=bytes, files=files)

    def settle(self, *, bytes: int = 0, files: int = 0) -> None:  # noqa: A002  the unit
        """Add to the counts, or take off.

        The host may have changed the tree behind our back, so a count stops at zero.
        """
        self.bytes = max(0, self.bytes + bytes)
        self.files = max(0, self.files + files)

    def unlinked(self, file: FileId, size: int, links: int) -> None:
        """One name of `file` is gone; give back what that freed.

        Args:
            file: device and inode.
            size: its bytes; 0 for all but regular files.
            links: its names before.  Others may lie anywhere, so its bytes stay counted.
        """
        if links > 1:
            self.settle(files=-1)
        elif file not in self._open:
            self.settle(bytes=-size, files=-1)

    def opened(self, file: FileId, fd: int) -> None:
        """A handle holds `file`."""
        self._open.setdefault(file, set()).add(fd)

    def closing(self, file: FileId, fd: int, size: int, links: int) -> None:
        """A handle lets go of `file`; the last to do so gives back a file that has no name."""
        holders = self._open.get(file, set())
        holders.discard(fd)
        if not holders:
            self._open.pop(file, None)
            if links == 0:
                self.settle(bytes=-size, files=-1)

    def holders(self) -> list[int]:
        """One descriptor of each open file."""
        return [next(iter(fds)) for fds in self._open.values()]


class LedgerBook:
    """The ledgers of a process, by the identity of the directory.

    A ledger lives as long as a handle that uses it; the next mount counts anew.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._ledgers: WeakValueDictionary[Hashable, Ledger] = WeakValueDictionary()

    def of(self, root: Hashable) -> Ledger:
        """The one ledger of that directory."""
        with self._lock:
            ledger = self._ledgers.get(root)
            if ledger is None:
                ledger = self._ledgers[root] = Ledger()
            return ledger
