"""From granted clauses to open directories: the one place where a host path turns into power."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capwasm.capability import GrantedClause

from .beneath import Identity, Resolve, identity, lineage, open_root
from .faults import FsError
from .handle import Dir
from .model import Access, FsClause
from .node import Mount
from .quota import Ledger, LedgerBook, Quota
from .scan import MAX_COUNTED, count

__all__ = ["Barred", "Root", "Unusable", "nested", "open_mount"]


class Unusable(Exception):
    """A directory can't be granted; the text is for the operator."""


class Barred(Exception):
    """A deny rule speaks of the directory."""


@dataclass(frozen=True, slots=True)
class Root:
    """An open mount, and where it lies: itself, then each directory above it."""

    dir: Dir
    lineage: Sequence[Identity | None]


def open_mount(
    granted: GrantedClause[FsClause],
    *,
    record: Callable[..., None],
    book: LedgerBook,
    resolve: Resolve,
    protected: Sequence[str],
    denied: Sequence[str],
) -> Root:
    """Open the directory of a clause that names its mount and its path.

    Args:
        granted: the clause, and the lease that all handles beneath it will ask.
        record: takes events of kind `fs`.
        book: the ledgers of the process.
        resolve: how to open beneath it.
        protected: directories and files that no plugin may reach: the runtime's own (FS-21).
        denied: those that a deny rule names.

    Raises:
        Unusable: it is gone, is no directory, is a window on the kernel, overlaps a protected one,
            or holds too much to keep its quota.
        Barred: it overlaps a denied one.
    """
    clause = granted.clause
    assert clause.mount is not None
    assert clause.path is not None
    try:
        fd, real = open_root(clause.path, resolve)
    except ValueError as exc:
        raise Unusable(str(exc)) from None
    except OSError as exc:
        raise Unusable(f"{clause.path} can't be opened: {exc.strerror}") from None
    try:
        above = _lineage(real)
        if above[0] != identity(os.fstat(fd)):
            raise Unusable(f"{real} was moved while it was opened")
        for path in protected:
            if nested(above, _lineage(path)):
                raise Unusable(f"{real} overlaps {path}, which is the runtime's own")
        if any(nested(above, _lineage(path)) for path in denied):
            raise Barred
        quota = Quota.of(clause.quota_bytes, clause.quota_files)
        ledger = book.of(identity(os.fstat(fd)))
        if quota.bounded and clause.access is Access.READ_WRITE:
            _begin_to_count(ledger, fd, real, resolve)
    except BaseException:
        os.close(fd)
        raise
    mount = Mount(clause.mount, real, resolve, quota, ledger, record)
    return Root(Dir(mount, granted.lease, fd, "", clause.access), above)


def _begin_to_count(ledger: Ledger, fd: int, real: str, resolve: Resolve) -> None:
    def scan() -> tuple[int, int]:
        size, names = count(fd, resolve, lambda: None)
        for holder in ledger.holders():
            info = os.fstat(holder)
            if info.st_nlink == 0:  # open, and without a name for the scan to find
                size, names = size + info.st_size, names + 1
        return size, names

    try:
        with ledger.held():
            ledger.count(scan)
    except FsError as exc:
        if exc.errno == errno.EOVERFLOW:
            raise Unusable(
                f"{real} holds more than {MAX_COUNTED} names: a quota can't be kept on it"
            ) from None
        raise Unusable(f"{real} can't be counted: {exc.detail}") from None
    except OSError as exc:
        raise Unusable(f"{real} can't be counted: {exc.strerror}") from None


def _lineage(path: str) -> Sequence[Identity | None]:
    try:
        return lineage(path)
    except OSError as exc:
        raise Unusable(
            f"it can't be told whether {path} is apart from it: {exc.strerror}"
        ) from None


def nested(a: Sequence[Identity | None], b: Sequence[Identity | None]) -> bool:
    """Whether one directory is the other or holds it, under whichever names."""
    return (a[0] is not None and a[0] in b) or (b[0] is not None and b[0] in a)
