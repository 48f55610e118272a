"""How much a directory holds, counted by looking at all of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from .beneath import Identity, Resolve, identity
from .faults import refuse
from .opening import ENTER
from .quota import MAX_NAMES

__all__ = ["count"]

_AT_ONCE: Final = 1000

# A mount point, which no guest can enter; or the host removed or replaced it meanwhile.
_GONE: Final = (errno.EXDEV, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def count(
    root: int, resolve: Resolve, check: Callable[[int], None], limit: int = MAX_NAMES
) -> tuple[int, int]:
    """Bytes and names beneath a directory; a file with several names has its bytes counted once.

    A guest can nest directories deeper than descriptors or the stack would last, so this holds two
    descriptors, and goes back up by `..`, which must lead where it came from.

    Args:
        root: descriptor of the directory.
        resolve: how a guest would get at what is in it: what it can't reach isn't counted.
        check: called with the number of names counted since the last time; raises to stop.
        limit: names after which it gives up.

    Raises:
        FsError: more names than `limit` (EOVERFLOW), or the host moved a directory (EAGAIN).
        OSError: a directory can't be read.
    """
    here = resolve(root, (), ENTER)
    try:
        tally = _Tally(check, limit)
        path = [(identity(os.fstat(here)), tally.read(here))]
        while path:
            below = path[-1][1]
            if below:
                try:
                    there = resolve(here, (below.pop(),), ENTER)
                except OSError as exc:
                    if exc.errno in _GONE:
                        continue
                    raise
                os.close(here)
                here = there
                path.append((identity(os.fstat(here)), tally.read(here)))
                continue
            path.pop()
            if path:
                there = os.open("..", ENTER | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = there
                if identity(os.fstat(here)) != path[-1][0]:
                    refuse(errno.EAGAIN, "moved-while-counting")
    finally:
        os.close(here)
    return tally.bytes, tally.names


class _Tally:
    """What was counted so far."""

    __slots__ = ("_check", "_checked", "_limit", "_linked", "bytes", "names")

    def __init__(self, check: Callable[[int], None], limit: int) -> None:
        self._check = check
        self._checked = 0
        self._limit = limit
        self._linked: set[Identity] = set()
        self.bytes = 0
        self.names = 0

    def read(self, fd: int) -> list[bytes]:
        """Count one directory; return those below it."""
        below = []
        with os.scandir(fd) as entries:
            for entry in entries:
                self.names += 1
                if self.names - self._checked >= _AT_ONCE:
                    self._tell()
                if self.names > self._limit:
                    refuse(errno.EOVERFLOW, "too-many-to-count")
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(info.st_mode):
                    below.append(os.fsencode(entry.name))
                elif stat.S_ISREG(info.st_mode):
                    self.bytes += self._size(info)
        self._tell()
        return below

    def _tell(self) -> None:
        seen, self._checked = self.names - self._checked, self.names
        self._check(seen)

    def _size(self, info: os.stat_result) -> int:
        if info.st_nlink > 1:
            if identity(info) in self._linked:
                return 0
            self._linked.add(identity(info))
        return info.st_size
