"""The names in a directory, a bounded number at a time (FS-24)."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from capwasm.handles import Lease

from .node import ENTRY_FUEL, Kind, Mount, Node, Stat

__all__ = ["PAGE", "DirStream", "Entry", "page"]

PAGE: Final = 1000
"""Entries at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory."""

    name: str
    kind: Kind


def page(
    fd: int, after: str | None, limit: int, check: Callable[[int], None]
) -> list[tuple[str, Stat]]:
    """The first `limit` entries whose names come after `after`, sorted by code points.

    All names are looked at, `limit` are held.  A name that is not UTF-8 can't be said to a guest
    and is left out.

    Args:
        fd: descriptor of the directory, of this call's own.
        after: a name, or None for the start.
        limit: entries.
        check: called with the number of names looked at since the last time; raises to stop.

    Raises:
        OSError: it can't be read.
    """
    with os.scandir(fd) as entries:
        wanted = (
            (name, entry)
            for name, entry in _counted(entries, check)
            if after is None or name > after
        )
        found = []
        for name, entry in heapq.nsmallest(limit, wanted, key=lambda pair: pair[0]):
            try:
                found.append((name, Stat.of(entry.stat(follow_symlinks=False))))
            except FileNotFoundError:  # removed since
                continue
        return found


def _counted(
    entries: Iterator[os.DirEntry[str]], check: Callable[[int], None]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    seen = 0
    for entry in entries:
        seen += 1
        if seen == PAGE:
            check(seen)
            seen = 0
        name = _text(entry)
        if name is not None:
            yield name, entry
    check(seen)


def _text(entry: os.DirEntry[str]) -> str | None:
    try:
        return os.fsencode(entry.name).decode()
    except UnicodeDecodeError:
        return None


class DirStream(Node):
    """The entries of a directory one by one, in the order of the disk, without `.` and `..`."""

    __slots__ = ("_entries",)

    def __init__(self, mount: Mount, lease: Lease, fd: int, path: str) -> None:
        """Take over `fd`, which no one else reads from."""
        super().__init__(mount, lease, fd, path)
        self._entries = os.scandir(fd)

    def next(self) -> Entry | None:
        """The next entry, or None at the end.

        Raises:
            FsError: the device failed.
        """
        with self._operation("list", fuel=ENTRY_FUEL):
            for entry in self._entries:
                name = _text(entry)
                if name is not None:
                    return Entry(name, _kind(entry))
            return None

    def _close(self) -> None:
        self._entries.close()
        super()._close()

    def _can_write(self) -> bool:
        return False


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.OTHER
