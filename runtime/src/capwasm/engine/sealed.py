"""Bytes in memory that nobody can change any more: what is checked in them is what runs.

A file may be written by whoever may write it, at any moment, also while the engine has it mapped;
so code is never run from a file.  It is copied into an anonymous file in memory, which is sealed
against every further write and then checked; the engine maps those very pages (SIG-21).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

__all__ = ["Sealed", "copy", "memory_file"]

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_CHUNK = 1 << 20


def memory_file() -> int:
    """The descriptor of a new, empty file in memory that can be sealed; not inherited.

    Raises:
        OSError: the system has none.
    """
    return os.memfd_create("capwasm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class Sealed:
    """A file in memory that is sealed.  Closed by itself when nobody has it; its mappings stay.

    Attributes:
        fd: the descriptor, or -1 once it is closed.   size: in bytes.
    """

    def __init__(self, fd: int) -> None:
        """Seal the memory file `fd`, and own it from now on, also when that fails.

        Raises:
            OSError: it is no memory file, or somebody has it mapped for writing.
        """
        self.fd = fd
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            self.size = os.fstat(fd).st_size
            os.lseek(fd, 0, os.SEEK_SET)  # for a process that reads it as its input
        except BaseException:
            self.close()
            raise

    @classmethod
    def given(cls, fd: int) -> Self:
        """What another process has sealed, and handed over; the descriptor is owned from now on.

        Raises:
            OSError: it is not sealed against every change.
        """
        made = cls.__new__(cls)
        made.fd = fd
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            made.close()
            raise OSError(errno.EPERM, "it is not sealed")
        made.size = os.fstat(fd).st_size
        return made

    @classmethod
    def holding(cls, data: bytes | memoryview) -> Self:
        """A copy of these bytes.

        Raises:
            OSError: there is no room.
        """
        with _filling() as fd:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        return cls(fd)

    @classmethod
    def copied(cls, source: int, size: int) -> Self:
        """A copy of the first `size` bytes of an open file, in one pass within the kernel.

        Raises:
            OSError: it has fewer, can't be read, or there is no room.
        """
        with _filling() as fd:
            copy(source, fd, size)
        return cls(fd)

    @property
    def path(self) -> str:
        """A path that leads to it, within this process."""
        return f"/proc/self/fd/{self.fd}"

    @contextlib.contextmanager
    def view(self) -> Iterator[memoryview]:
        """Its bytes, mapped and not copied; there must be some.

        Raises:
            OSError: there is no room for it.
        """
        with (
            mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ) as mapped,
            memoryview(mapped) as view,
        ):
            yield view

    @property
    def closed(self) -> bool:
        """Whether the descriptor was given up."""
        return self.fd < 0

    def close(self) -> None:
        """Give the descriptor up; later calls do nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def copy(source: int, target: int, size: int) -> None:
    """Copy `size` bytes from the start of `source` to where `target` stands.

    Raises:
        OSError: there are fewer, or one of the two fails.
    """
    done = 0
    while done < size:
        try:
            count = os.sendfile(target, source, done, size - done)
        except OSError:
            # Some file systems have no such thing.  What is wrong with the file itself shows below.
            count = os.write(target, os.pread(source, min(_CHUNK, size - done), done))
        if not count:
            raise OSError(0, "the file is shorter than it was")
        done += count


@contextlib.contextmanager
def _filling() -> Iterator[int]:
    fd = memory_file()
    try:
        yield fd
    except BaseException:
        os.close(fd)
        raise
