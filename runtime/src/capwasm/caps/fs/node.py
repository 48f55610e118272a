"""What files and directories have in common: a descriptor, a lease, a lock and an audit trail."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from capwasm.call import CallRecord, current_call
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.handles import Handle, Lease

from .beneath import Resolve, identity
from .faults import FsError, refuse
from .quota import FileId, Ledger, Quota

__all__ = ["MAX_FILE_SIZE", "MAX_TRANSFER", "Kind", "Mount", "Node", "Stat"]

MAX_TRANSFER: Final = 1024 * 1024
"""Bytes of one read or write: the guest never chooses how much the host allocates."""

MAX_FILE_SIZE: Final = 2**40
"""Bytes of one file, also where there is no quota: no sparse exabytes for backups to meet (FS-22)."""

MAX_TIME_NS: Final = 2**63 - 1  # in the year 2262

# What an operation costs the guest beside its bytes, in fuel: about its time in the host.
OPERATION_FUEL: Final = 1_000
ENTRY_FUEL: Final = 200

# Inode numbers tell of the host's disk; hashed with a key that dies with the process they don't.
_KEY: Final = os.urandom(32)


class Kind(StrEnum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"

    @classmethod
    def of(cls, mode: int) -> Kind:
        """The kind that `st_mode` tells."""
        if stat.S_ISREG(mode):
            return cls.FILE
        if stat.S_ISDIR(mode):
            return cls.DIRECTORY
        return cls.LINK if stat.S_ISLNK(mode) else cls.OTHER


@dataclass(frozen=True, slots=True)
class Stat:
    """What a guest may know of a file.

    Attributes:
        size: bytes; 0 for all but regular files.
        links: names that it has.
        accessed_ns: since 1970-01-01T00:00:00Z; never negative (FS-25).
        hash: two unsigned 64-bit numbers; equal within this process means the same file.
    """

    kind: Kind
    size: int
    links: int
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    hash: tuple[int, int]

    @classmethod
    def of(cls, info: os.stat_result) -> Self:
        """From what the system says."""
        data = f"{info.st_dev}:{info.st_ino}".encode()
        digest = hashlib.blake2b(data, digest_size=16, key=_KEY).digest()
        return cls(
            kind=Kind.of(info.st_mode),
            size=info.st_size if stat.S_ISREG(info.st_mode) else 0,
            links=info.st_nlink,
            accessed_ns=max(0, info.st_atime_ns),
            modified_ns=max(0, info.st_mtime_ns),
            changed_ns=max(0, info.st_ctime_ns),
            hash=(int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")),
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """One granted directory, as all handles beneath it see it.  Holds no power.

    Attributes:
        path: where the guest sees it.
        real: where it was when it was opened; only `check_inside` and people read it.
        resolve: how names beneath it are opened.
        quota: what this grant lets the directory hold.
        ledger: what it holds.
        record: takes an event of kind `fs`.
    """

    path: str
    real: str
    resolve: Resolve
    quota: Quota
    ledger: Ledger
    record: Callable[..., None]

    def target(self, path: str) -> str:
        """A path as the audit log shows it: as the guest sees it, short and printable."""
        return shown(f"{self.path}/{path}" if path else self.path)

    def allowed(self, action: str, path: str, **details: Any) -> None:
        """Record an operation that is about to be done.

        Raises:
            AuditError: it could not be recorded, so it must not be done.
        """
        self.record(ALLOWED, action=action, target=self.target(path), details=details)

    def refused(self, action: str, path: str, error: FsError) -> None:
        """Record what was refused or failed; a file that isn't there is neither."""
        if error.word in ("denied", "quota"):
            verdict = DENIED
        elif error.word == "unavailable":
            verdict = FAILED
        else:
            return
        self.record(verdict, action=action, target=self.target(path), reason=error.reason)


class Node(Handle):
    """An open file or directory.

    Its lock keeps the descriptor open while an operation uses it: eviction closes handles from
    another thread, and a number that was closed may by then be another file's.
    """

    __slots__ = ("_fd", "_lock", "_path", "mount")

    def __init__(self, mount: Mount, lease: Lease, fd: int, path: str) -> None:
        """Take over `fd`, which was opened at `path` below the mount."""
        super().__init__(lease)
        self.mount = mount
        self._fd = fd
        self._path = path
        self._lock = threading.RLock()

    def stat(self) -> Stat:
        """What is known of it."""
        with self._operation("stat"):
            return Stat.of(os.fstat(self._fd))

    def same_object(self, other: Node) -> bool:
        """Whether both are one file."""
        return self.stat().hash == other.stat().hash

    def set_times(self, accessed_ns: int | None, modified_ns: int | None) -> None:
        """Set the times, in nanoseconds since 1970; None leaves one as it is.

        Raises:
            FsError: not open for writing, or a time that no file can have (EINVAL).
        """
        with self._operation("set-times"):
            self._may_write()
            self.mount.allowed("set-times", self._path)
            set_times(self._fd, accessed_ns, modified_ns)

    def sync(self) -> None:
        """Return once bytes and metadata are on the device; nothing to do for a reader."""
        self._sync(os.fsync)

    def datasync(self) -> None:
        """Return once the bytes are on the device; nothing to do for a reader."""
        self._sync(os.fdatasync)

    def _sync(self, flush: Callable[[int], None]) -> None:
        with self._operation("sync"):
            if self._can_write():
                flush(self._fd)

    def in_use(self) -> AbstractContextManager[object]:
        """Hold the descriptor open over a block that uses several handles."""
        return self._lock

    def release(self) -> None:
        """Close the descriptor, after the operation that uses it."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        os.close(self._fd)

    def _can_write(self) -> bool:
        raise NotImplementedError

    def _may_write(self) -> None:
        if not self._can_write():
            refuse(errno.EPERM, "read-only")

    @contextmanager
    def _operation(
        self, action: str, path: str | None = None, *, fuel: int = 0
    ) -> Iterator[CallRecord]:
        """Every operation runs within: who may, at whose cost, and what becomes of an error.

        Args:
            action: for the audit log.
            path: below this directory; None for the node itself.
            fuel: what the operation costs beside the fixed price.

        Raises:
            FsError: whatever the system refused, in the guest's words.
            CapError: `closed`.
            GuestError: the call must end.
            AuditError: the refusal could not be recorded.
        """
        with self._lock:
            self.check()
            call = current_call()
            call.check()
            call.charge_host_work(OPERATION_FUEL + fuel)
            try:
                yield call
            except FsError as exc:
                error = exc
            except OSError as exc:
                error = FsError.of(exc)
            else:
                return
            self.mount.refused(action, self._below(path), error)
        raise error

    def _below(self, path: str | None) -> str:
        """A path below this node, as seen from the mount."""
        if path is None:
            return self._path
        return f"{self._path}/{path}" if self._path else path

    @contextmanager
    def _changing(self, call: CallRecord) -> Iterator[Ledger]:
        """Hold the ledger over a change, waiting no longer than the call may."""
        with self.mount.ledger.held(call.remaining()):
            yield self.mount.ledger


def set_times(fd: int, accessed_ns: int | None, modified_ns: int | None) -> None:
    """Set the times of an open file; None leaves one as it is.

    Raises:
        FsError: a time that no file can have (EINVAL; FS-25).
        OSError: as futimens(3).
    """
    info = os.fstat(fd)
    times = (
        info.st_atime_ns if accessed_ns is None else accessed_ns,
        info.st_mtime_ns if modified_ns is None else modified_ns,
    )
    given = [t for t in (accessed_ns, modified_ns) if t is not None]
    if any(not 0 <= t <= MAX_TIME_NS for t in given):
        refuse(errno.EINVAL, "time")
    os.utime(fd, ns=times)


def paid_by(call: CallRecord) -> Callable[[int], None]:
    """Has the call pay for each name that is looked at, and end where it must."""

    def check(seen: int) -> None:
        call.charge_host_work(seen * ENTRY_FUEL)
        call.check()

    return check


def shown(path: str) -> str:
    """A guest path as the audit log shows it: short, and with nothing that acts on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in path[:512])


def file_id(info: os.stat_result) -> FileId:
    """What a ledger calls a file."""
    return identity(info)
