"""SQLite files of our own: made private, checked before they are used, and never half made.

A file with another header, a newer version or any table, trigger or view that is not exactly ours
is refused untouched, so nothing that was planted in it runs (PER-05).  What a file should hold is
not compared with a text but with what our own migrations make of an empty database.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from ._files import write_file
from .errors import CapwasmError

__all__ = ["BUSY", "FAULTS", "ForeignFileError", "Layout", "connect"]

FAULTS: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What using a file can raise; the last over a damaged one whose error text is not UTF-8."""
BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class ForeignFileError(sqlite3.DatabaseError):
    """The file is not one of ours, or not of a version that we know."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of file holds.

    Attributes:
        what: for messages: `a key-value store`.
        application_id: in the file's header.
        migrations: statements that lead from each version to the next, version 0 being an empty
            file; only ever added to.
    """

    what: str
    application_id: int
    migrations: tuple[tuple[str, ...], ...]


def connect(
    path: Path,
    layout: Layout,
    *,
    wait: float,
    synchronous: Literal["NORMAL", "FULL"],
    max_value: int,
    fill: Callable[[sqlite3.Connection], object],
    watch: Callable[[], bool] | None = None,
) -> sqlite3.Connection:
    """Open the file, which is made (0600) and brought to the newest version if need be.

    Args:
        path: in a directory that no guest can write to.
        layout: what it must hold.
        wait: seconds that a statement waits for another process.
        synchronous: FULL if what was committed must outlive a power loss.
        max_value: bytes of the largest text or blob.
        fill: writes the first rows of a new file, in the transaction that makes its tables.
        watch: asked now and then whether to stop what is under way.

    Raises:
        ForeignFileError: it is not exactly ours.
        sqlite3.Error, OSError: it can't be used.
    """
    _prepare(path)
    db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        if watch is not None:
            db.set_progress_handler(watch, 10_000)
        _configure(db, max_value)
        db.execute(f"PRAGMA synchronous = {synchronous}")
        _migrate(db, layout, fill)
        # Only now: a file that is not ours is left as it was.
        db.execute("PRAGMA journal_mode = WAL").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _prepare(path: Path) -> None:
    """Make the file if it is not there.

    A file that is there is not opened here: closing it would drop the locks that SQLite holds on
    it for other connections of this process.
    """
    if not os.path.lexists(path):
        try:
            write_file(
                path, b"", CapwasmError, code="artifact.unreadable", mode=0o600, overwrite=False
            )
        except CapwasmError as exc:
            if not os.path.lexists(path):  # else another process was faster
                raise OSError(exc.message) from None
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise OSError("it is not a regular file")


def _configure(db: sqlite3.Connection, max_value: int) -> None:
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_value)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    defensive = getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE", None)
    if defensive is not None and hasattr(db, "setconfig"):  # Python 3.12
        db.setconfig(defensive, True)  # noqa: FBT003  the library's own signature
    for setting in (
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "mmap_size = 0",
        "foreign_keys = ON",
        "journal_size_limit = 1048576",
    ):
        db.execute(f"PRAGMA {setting}")


def _migrate(
    db: sqlite3.Connection, layout: Layout, fill: Callable[[sqlite3.Connection], object]
) -> None:
    newest = len(layout.migrations)
    if 0 <= _pragma(db, "user_version") < newest:
        db.execute("BEGIN IMMEDIATE")
        begin = _pragma(db, "user_version")  # another process may have been faster
        ours = _pragma(db, "application_id") == layout.application_id if begin else not _schema(db)
        if ours:  # else it is foreign, and stays as it is
            for number in range(begin, newest):
                for statement in layout.migrations[number]:
                    db.execute(statement)
            if not begin:
                fill(db)
                db.execute(f"PRAGMA application_id = {layout.application_id}")
            db.execute(f"PRAGMA user_version = {newest}")
        db.execute("COMMIT")
    if _pragma(db, "application_id") != layout.application_id:
        raise ForeignFileError(f"the file is not {layout.what}")
    if _pragma(db, "user_version") != newest:
        raise ForeignFileError(f"{layout.what} of a version that this runtime doesn't know")
    if _schema(db) != _expected(layout):
        raise ForeignFileError(f"the tables of {layout.what} are not as they were made")


@cache
def _expected(layout: Layout) -> frozenset[str]:
    db = sqlite3.connect(":memory:")
    try:
        for statement in (s for migration in layout.migrations for s in migration):
            db.execute(statement)
        return _schema(db)
    finally:
        db.close()


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _schema(db: sqlite3.Connection) -> frozenset[str]:
    rows = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return frozenset(sql for (sql,) in rows)
