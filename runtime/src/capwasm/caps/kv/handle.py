"""The store of one plugin, a SQLite file.  The only file here that touches the disk.

A store is shared by the instances, threads and processes that run the plugin.  Each change is one
transaction, quota included.  The file is in WAL mode with `synchronous=NORMAL`: a killed process
loses nothing that it was told is stored; after a power loss the last changes may be missing, but
none is there in part.

The file is checked before it is used: one that is not exactly ours, or of another owner, is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from capwasm._sqlite import BUSY, FAULTS, ForeignFileError, Layout, connect
from capwasm.call import CallRecord, current_call
from capwasm.errors import CapError

from .model import MAX_VALUE

__all__ = ["KvStore"]

T = TypeVar("T")
Fits = Callable[[int, int], bool]

MIN_SQLITE: Final = (3, 37)  # STRICT tables
META: Final = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), owner TEXT NOT NULL,"
    " bytes INTEGER NOT NULL, keys INTEGER NOT NULL) STRICT"
)
ENTRIES: Final = (
    "CREATE TABLE entries"
    " (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, expires INTEGER) STRICT"
)
EXPIRES: Final = "CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL"
# "CWV1"
LAYOUT: Final = Layout("a key-value store", 0x43575631, ((META, ENTRIES, EXPIRES),))
SIZE: Final = "length(CAST(key AS BLOB)) + length(value)"
# A waiting call looks this often whether it was cancelled.
SLICE: Final = 0.02
PAGE: Final = 1_000
FOREVER: Final = 2**63 - 1


class KvStore:
    """One plugin's keys and values.

    The file is opened at the first operation, so an instance that never uses it costs nothing.
    Every operation raises `CapError("unavailable")` when the file can't be used in the time that
    the call has left, and what `admit` raises, which is asked once the store is locked: whatever
    was revoked while the operation waited does not begin.
    """

    def __init__(self, path: Path, owner: str, now: Callable[[], float] = time.time) -> None:
        """Use the file at `path` for the plugin `owner`.

        Args:
            path: in a directory that no guest can write to.
            owner: the plugin's id; a file of another plugin is refused.
            now: seconds since 1970, by which entries expire.
        """
        self._path = path
        self._owner = owner
        self._now = now
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._pid = 0
        self._until = 0.0
        self._call: CallRecord | None = None

    # -- operations ----------------------------------------------------------------------------

    def get(self, key: str, admit: Callable[[], None]) -> bytes | None:
        """The value of `key`, or None."""
        return self._run(lambda db: self._value(db, key), admit, write=False)

    def put(
        self, key: str, value: bytes, ttl_ms: int | None, fits: Fits, admit: Callable[[], None]
    ) -> None:
        """Store `value`, for `ttl_ms` milliseconds if given.

        Raises:
            CapError: `quota`, when the store would grow to a size that `fits` refuses.
        """
        self._run(lambda db: self._put(db, key, value, self._expiry(ttl_ms), fits), admit)

    def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes, fits: Fits, admit: Callable[[], None]
    ) -> bool:
        """Store `value`, without an expiry, if the value is `expected`; say whether it was.

        Raises:
            CapError: `quota`, as `put`.
        """

        def work(db: sqlite3.Connection) -> bool:
            if self._value(db, key) != expected:
                return False
            self._put(db, key, value, None, fits)
            return True

        return self._run(work, admit)

    def increment(self, key: str, delta: int, fits: Fits, admit: Callable[[], None]) -> int:
        """Add to the decimal number at `key`, which keeps its expiry; return the sum.

        Raises:
            CapError: `invalid`, when the value is not a whole number or the sum not of 64 bits;
                `quota`, as `put`.
        """

        def work(db: sqlite3.Connection) -> int:
            total = _number(self._value(db, key)) + delta
            if not -(2**63) <= total < 2**63:
                raise CapError("invalid", "the sum does not fit 64 bits")
            row = db.execute("SELECT expires FROM entries WHERE key = ?", (key,)).fetchone()
            expires = row[0] if row and (row[0] is None or row[0] > self._ms()) else None
            self._put(db, key, b"%d" % total, expires, fits)
            return total

        return self._run(work, admit)

    def delete(self, key: str, admit: Callable[[], None]) -> bool:
        """Remove `key`; say whether it was there."""

        def work(db: sqlite3.Connection) -> bool:
            self._purge(db)
            return self._remove(db, "key = ?", key) > 0

        return self._run(work, admit)

    def keys(self, prefix: str, after: str, admit: Callable[[], None]) -> list[str]:
        """Keys that begin with `prefix`, by code point, after `after`; at most 1,000."""

        def work(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "SELECT key FROM entries WHERE key >= ? AND key > ?"
                " AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?",
                (prefix, after, self._ms(), PAGE),
            )
            # In this order, all that begin with a prefix stand together.
            return [key for (key,) in rows if key.startswith(prefix)]

        return self._run(work, admit, write=False)

    def close(self) -> None:
        """Close the file.  The store opens it again if it is used again."""
        with self._lock:
            self._disconnect()

    # -- within a transaction --------------------------------------------------------------------

    def _ms(self) -> int:
        return int(self._now() * 1000)

    def _expiry(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else min(self._ms() + ttl_ms, FOREVER)

    def _value(self, db: sqlite3.Connection, key: str) -> bytes | None:
        row = db.execute(
            "SELECT value FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)",
            (key, self._ms()),
        ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):  # a damaged page
            raise sqlite3.DatabaseError("a value is not a blob")
        return row[0]

    def _put(
        self, db: sqlite3.Connection, key: str, value: bytes, expires: int | None, fits: Fits
    ) -> None:
        self._purge(db)
        size, count = _account(db)
        self._remove(db, "key = ?", key)
        base_size, base_count = _account(db)
        new_size, new_count = base_size + len(key.encode()) + len(value), base_count + 1
        # A store over a quota that was lowered may shrink, and nothing else.
        if (new_size > size or new_count > count) and not fits(new_size, new_count):
            raise CapError("quota", f"{new_size} bytes under {new_count} keys")
        db.execute("INSERT INTO entries VALUES (?, ?, ?)", (key, value, expires))
        db.execute("UPDATE meta SET bytes = ?, keys = ?", (new_size, new_count))

    def _purge(self, db: sqlite3.Connection) -> None:
        self._remove(db, "expires <= ?", self._ms())

    def _remove(self, db: sqlite3.Connection, where: str, value: str | int) -> int:
        """Delete entries and take them off the account; how many there were."""
        count, size = db.execute(
            f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM entries WHERE {where}",  # noqa: S608  constants
            (value,),
        ).fetchone()
        if count:
            db.execute(f"DELETE FROM entries WHERE {where}", (value,))  # noqa: S608  constants
            db.execute("UPDATE meta SET bytes = bytes - ?, keys = keys - ?", (size, count))
        return int(count)

    # -- the transaction -------------------------------------------------------------------------

    def _run(
        self,
        work: Callable[[sqlite3.Connection], T],
        admit: Callable[[], None],
        *,
        write: bool = True,
    ) -> T:
        """Do `work` in one transaction, within the time that the current call has left."""
        call = current_call()
        until = time.monotonic() + call.remaining()
        if not self._lock.acquire(timeout=call.remaining()):
            call.check()
            raise CapError("unavailable", "the store is busy")
        try:
            self._call, self._until = call, until
            while True:
                call.check()
                try:
                    return self._attempt(work, admit, write=write)
                except FAULTS as exc:
                    busy = getattr(exc, "sqlite_errorcode", 0) & 0xFF in BUSY
                    if not busy:
                        self._disconnect()  # whatever it was, the next operation begins afresh
                    if not busy or time.monotonic() >= until:
                        call.check()
                        raise CapError("unavailable", _why(exc)) from None
                    time.sleep(0.001)
        finally:
            self._call = None
            self._lock.release()

    def _attempt(
        self, work: Callable[[sqlite3.Connection], T], admit: Callable[[], None], *, write: bool
    ) -> T:
        db = self._connect()
        db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            admit()
            done = work(db)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.rollback()
            raise
        return done

    def _stop(self) -> bool:
        """Asked by SQLite while it works: whether the call's time is over."""
        call = self._call
        return call is None or call.cancelled is not None or time.monotonic() >= self._until

    # -- the file --------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self._db is not None and self._pid == os.getpid():
            return self._db
        # A connection that was carried through fork() is neither used nor closed (LIFE-10).
        db = connect(
            self._path,
            LAYOUT,
            wait=SLICE,
            synchronous="NORMAL",
            max_value=MAX_VALUE * 2,
            fill=lambda new: new.execute("INSERT INTO meta VALUES (1, ?, 0, 0)", (self._owner,)),
            watch=self._stop,
        )
        try:
            self._check_owner(db)
        except BaseException:
            db.close()
            raise
        self._db, self._pid = db, os.getpid()
        return db

    def _disconnect(self) -> None:
        if self._db is not None and self._pid == os.getpid():
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None

    def _check_owner(self, db: sqlite3.Connection) -> None:
        if db.execute("SELECT owner FROM meta").fetchall() != [(self._owner,)]:
            raise ForeignFileError("the store belongs to another plugin")


def _account(db: sqlite3.Connection) -> tuple[int, int]:
    row = db.execute("SELECT bytes, keys FROM meta").fetchone()
    if row is None or not all(isinstance(n, int) for n in row):  # a damaged page
        raise sqlite3.DatabaseError("the account is gone")
    return row[0], row[1]


def _number(value: bytes | None) -> int:
    """The whole number that a value is, in the one spelling that `increment` writes."""
    if value is None:
        return 0
    digits = value.removeprefix(b"-")
    if len(value) <= 20 and digits.isdigit() and b"%d" % int(value) == value:
        return int(value)
    raise CapError("invalid", "the value is not a whole number")


def _why(exc: Exception) -> str:
    """The reason, for the audit log; SQLite's texts hold no value."""
    return f"{getattr(exc, 'sqlite_errorname', type(exc).__name__)}: {exc}"
