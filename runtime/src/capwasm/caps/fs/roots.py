"""From granted clauses to open directories: the one place where a host path turns into power."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capwasm.call import call_under_way
from capwasm.capability import GrantedClause

from .beneath import Lineage, Resolve, identity, lineage, open_root
from .faults import FsError
from .handle import Dir
from .model import Access, FsClause
from .node import Mount, paid_by
from .quota import MAX_NAMES, Ledger, LedgerBook, Quota
from .scan import count

__all__ = ["Barred", "Root", "Unusable", "open_mount"]


class Unusable(Exception):
    """A directory can't be granted; the text is for the operator."""


class Barred(Exception):
    """A deny rule speaks of the directory."""


@dataclass(frozen=True, slots=True)
class Root:
    """An open mount, and where it lies."""

    dir: Dir
    lineage: Lineage


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
        where = _lineage(real)
        if where.above[0] != identity(os.fstat(fd)):
            raise Unusable(f"{real} was moved while it was opened")
        for path in protected:
            if where.overlaps(_lineage(path)):
                raise Unusable(f"{real} overlaps {path}, which is the runtime's own")
        if any(where.overlaps(_lineage(path)) for path in denied):
            raise Barred
        quota = Quota.of(clause.quota_bytes, clause.quota_files)
        ledger = book.of(identity(os.fstat(fd)))
        if quota.bounded and clause.access is Access.READ_WRITE:
            _begin_to_count(ledger, fd, real, resolve)
    except BaseException:
        os.close(fd)
        raise
    mount = Mount(clause.mount, real, resolve, quota, ledger, record)
    return Root(Dir(mount, granted.lease, fd, "", clause.access), where)


def _begin_to_count(ledger: Ledger, fd: int, real: str, resolve: Resolve) -> None:
    # An instance mounts at its first use, within a call; at a load there is none yet.
    call = call_under_way()
    check = paid_by(call) if call is not None else lambda _seen: None

    def scan() -> tuple[int, int]:
        size, names = count(fd, resolve, check)
        for holder in ledger.holders():
            info = os.fstat(holder)
            if info.st_nlink == 0:  # open, and without a name for the scan to find
                size, names = size + info.st_size, names + 1
        return size, names

    try:
        with ledger.held(-1 if call is None else call.remaining()):
            ledger.count(scan)
    except FsError as exc:
        if exc.errno == errno.EOVERFLOW:
            raise Unusable(
                f"{real} holds more than {MAX_NAMES} names: a quota can't be kept on it"
            ) from None
        raise Unusable(f"{real} can't be counted: {exc.detail}") from None
    except OSError as exc:
        raise Unusable(f"{real} can't be counted: {exc.strerror}") from None


def _lineage(path: str) -> Lineage:
    try:
        return lineage(path)
    except OSError as exc:
        raise Unusable(
            f"it can't be told whether {path} is apart from it: {exc.strerror}"
        ) from None
