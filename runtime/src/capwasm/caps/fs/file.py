"""A regular file that is open."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from capwasm.call import CallRecord
from capwasm.handles import Lease

from .faults import refuse
from .node import MAX_FILE_SIZE, MAX_TRANSFER, Mount, Node, file_id

__all__ = ["File"]


class File(Node):
    """A regular file; closing it gives back what only it kept on the disk.

    Attributes:
        readable: whether it was opened to read.
        writable: whether it was opened to write.
        appends: whether every write goes to the end.
    """

    __slots__ = ("appends", "readable", "writable")

    def __init__(
        self,
        mount: Mount,
        lease: Lease,
        fd: int,
        path: str,
        *,
        readable: bool,
        writable: bool,
        appends: bool,
    ) -> None:
        """Take over `fd`.  The caller holds the ledger, from before the file was opened."""
        super().__init__(mount, lease, fd, path)
        self.readable = readable
        self.writable = writable
        self.appends = appends
        mount.ledger.opened(file_id(os.fstat(fd)), fd)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; empty at the end.

        Raises:
            FsError: not open for reading (EBADF), more than `MAX_TRANSFER` (E2BIG), a negative
                number (EINVAL), or the device failed.
        """
        with self._operation("read") as call:
            if not self.readable:
                refuse(errno.EBADF, "not-open-for-reading")
            if offset < 0 or length < 0:
                refuse(errno.EINVAL, "negative")
            if length > MAX_TRANSFER:
                refuse(errno.E2BIG, "too-large")
            if offset >= 2**63 - length:  # past what the system can name, so past the end
                return b""
            data = os.pread(self._fd, length, offset)
            call.charge_host_work(len(data))
            return data

    def write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, or at the end if it was opened to append.

        Raises:
            FsError: not open for writing (EBADF), more than `MAX_TRANSFER` (E2BIG), over the quota
                (EDQUOT) or the size of any file (EFBIG): nothing was written.  The device failed
                or is full: a part may have been.
        """
        self._write(None if self.appends else offset, data)

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end, as `write` does."""
        self._write(None, data)

    def _write(self, offset: int | None, data: bytes) -> None:
        with self._operation("write", fuel=min(len(data), MAX_TRANSFER)) as call:
            if not self.writable:
                refuse(errno.EBADF, "not-open-for-writing")
            if len(data) > MAX_TRANSFER:
                refuse(errno.E2BIG, "too-large")
            if offset is not None and offset < 0:
                refuse(errno.EINVAL, "negative")
            if not data:
                return
            with self._resizing(call, None if offset is None else offset + len(data), len(data)):
                end = os.fstat(self._fd).st_size
                start = end if offset is None else offset
                view = memoryview(data)
                while view:
                    done = os.pwrite(self._fd, view, start)
                    start, view = start + done, view[done:]

    def read_only(self) -> int:
        """A descriptor of the same file, for reading alone, to hand to another process.

        It can't be taken back: whoever hands it on ends that process when the lease does.  The caller
        closes its own.

        Raises:
            FsError: not open for reading (EBADF).
            AuditError: it can't be recorded, and so is not made.
        """
        with self._operation("descriptor"):
            if not self.readable:
                refuse(errno.EBADF, "not-open-for-reading")
            self.mount.allowed("descriptor", self._path)
            return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def size(self) -> int:
        """Bytes."""
        return self.stat().size

    def set_size(self, size: int) -> None:
        """Cut or extend it; what is new reads as zeros.

        Raises:
            FsError: not open for writing (EBADF), over the quota (EDQUOT), a size that no file may
                have (EFBIG, EINVAL), or the device failed.
        """
        with self._operation("set-size") as call:
            if not self.writable:
                refuse(errno.EBADF, "not-open-for-writing")
            if size < 0:
                refuse(errno.EINVAL, "negative")
            with self._resizing(call, size):
                os.ftruncate(self._fd, size)

    @contextmanager
    def _resizing(self, call: CallRecord, end: int | None, more: int = 0) -> Iterator[None]:
        """Reserve for a change that may make the file `end` bytes long; settle what it became.

        Args:
            call: who waits for the lock.
            end: bytes, or None for `more` than now.
            more: bytes.
        """
        with self._changing(call) as ledger:
            before = os.fstat(self._fd).st_size
            after = before + more if end is None else end
            if after > MAX_FILE_SIZE:
                refuse(errno.EFBIG, "file-too-large")
            grows = max(0, after - before)
            ledger.reserve(self.mount.quota, bytes=grows)
            try:
                yield
            finally:
                # Also after a failure or a short write: the file's own size is the truth.
                ledger.settle(bytes=os.fstat(self._fd).st_size - before - grows)

    def _can_write(self) -> bool:
        return self.writable

    def _close(self) -> None:
        with self.mount.ledger.held():
            info = os.fstat(self._fd)
            self.mount.ledger.closing(file_id(info), self._fd, info.st_size, info.st_nlink)
            super()._close()
