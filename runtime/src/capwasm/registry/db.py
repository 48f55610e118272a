"""The registry's database: one SQLite file, its tables, and transactions that are whole or nothing.

WAL mode with `synchronous=FULL`: what was committed is there after a power loss too.  A change
begins with `BEGIN IMMEDIATE`, so two processes never decide on the same state (PER-06).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from capwasm._sqlite import BUSY, FAULTS, ForeignFileError, Layout, connect
from capwasm.errors import RegistryError

__all__ = ["BUSY_SECONDS", "Connection", "Database"]

Connection = sqlite3.Connection

META: Final = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL,"
    " sequence INTEGER NOT NULL, root BLOB NOT NULL, seal BLOB NOT NULL) STRICT"
)
PLUGINS: Final = (
    "CREATE TABLE plugins (id TEXT PRIMARY KEY NOT NULL, serving TEXT, state TEXT, highest TEXT,"
    " owners TEXT NOT NULL, pinned TEXT, waiting TEXT, removed TEXT,"
    " who TEXT NOT NULL, at TEXT NOT NULL, why TEXT NOT NULL,"
    " parts BLOB NOT NULL, seal BLOB NOT NULL) STRICT, WITHOUT ROWID"
)
VERSIONS: Final = (
    "CREATE TABLE versions (plugin TEXT NOT NULL REFERENCES plugins (id), version TEXT NOT NULL,"
    " kind TEXT NOT NULL, state TEXT NOT NULL, bundle TEXT NOT NULL, size INTEGER NOT NULL,"
    " archive TEXT NOT NULL, code TEXT, manifest TEXT NOT NULL, signers TEXT NOT NULL,"
    " source TEXT NOT NULL, published TEXT, pending TEXT NOT NULL,"
    " installed_by TEXT NOT NULL, installed_at TEXT NOT NULL, installed_why TEXT NOT NULL,"
    " changed_by TEXT NOT NULL, changed_at TEXT NOT NULL, changed_why TEXT NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (plugin, version)) STRICT, WITHOUT ROWID"
)
PERMITS: Final = (
    "CREATE TABLE permits (plugin TEXT NOT NULL REFERENCES plugins (id), kind TEXT NOT NULL,"
    " subject TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL, why TEXT NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (plugin, kind, subject)) STRICT, WITHOUT ROWID"
)
STEPS: Final = (
    "CREATE TABLE steps (plugin TEXT NOT NULL REFERENCES plugins (id), number INTEGER NOT NULL,"
    " version TEXT NOT NULL, before TEXT, after TEXT, action TEXT NOT NULL, who TEXT NOT NULL,"
    " at TEXT NOT NULL, why TEXT NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (plugin, number))"
    " STRICT, WITHOUT ROWID"
)
REVIEWS: Final = (
    "CREATE TABLE reviews (plugin TEXT NOT NULL REFERENCES plugins (id), number INTEGER NOT NULL,"
    " kind TEXT NOT NULL, version TEXT NOT NULL, archive TEXT NOT NULL, digest TEXT NOT NULL,"
    " who TEXT NOT NULL, at TEXT NOT NULL, why TEXT NOT NULL, seal BLOB NOT NULL,"
    " envelope BLOB NOT NULL, PRIMARY KEY (plugin, number)) STRICT"
)
# "CWR1"
LAYOUT: Final = Layout(
    "a plugin registry", 0x43575231, ((META, PLUGINS, VERSIONS, PERMITS, STEPS), (REVIEWS,))
)
BUSY_SECONDS: Final = 10.0
MAX_TEXT: Final = 1 << 24  # a scan's report is the largest


class Database:
    """One file, opened when it is first needed.  For any thread, and after a fork as well."""

    def __init__(
        self,
        path: Path,
        fill: Callable[[Connection], object],
        layout: Layout = LAYOUT,
        synchronous: Literal["NORMAL", "FULL"] = "FULL",
    ) -> None:
        """Use the file at `path`.

        Args:
            path: in a directory of this user's own.
            fill: writes the first rows of a new one.
            layout: its tables.
            synchronous: FULL if what was committed must outlive a power loss.
        """
        self._path, self._fill, self._layout = path, fill, layout
        self._synchronous: Literal["NORMAL", "FULL"] = synchronous
        self._lock = threading.RLock()
        self._db: Connection | None = None
        self._pid = 0
        self._busy = False

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return os.path.lexists(self._path)

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A connection within a transaction: committed at the end, or as if it had never been.

        Raises:
            RegistryError: `registry.busy`, `registry.foreign`, `registry.permissions`, else
                `registry.unusable`: nothing was changed.
            RuntimeError: from within another transaction of this thread: an event's hook, say.
        """
        with self._lock:
            if self._busy:
                raise RuntimeError("the registry can't be used from within a change of its own")
            self._busy = True
            try:
                with self._faults():
                    db = self._connect()
                    db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                    try:
                        yield db
                        db.execute("COMMIT")
                    except BaseException:
                        with contextlib.suppress(sqlite3.Error):
                            db.rollback()
                        raise
            finally:
                self._busy = False

    def close(self) -> None:
        """Close the file; it is opened again if need be."""
        with self._lock:
            if self._db is not None and self._pid == os.getpid():
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            self._db = None

    def _connect(self) -> Connection:
        # A connection that was carried through fork() is neither used nor closed (LIFE-10).
        if self._db is not None and self._pid == os.getpid():
            return self._db
        self._check_owner()
        self._db = connect(
            self._path,
            self._layout,
            wait=BUSY_SECONDS,
            synchronous=self._synchronous,
            max_value=MAX_TEXT,
            fill=self._fill,
        )
        self._pid = os.getpid()
        return self._db

    def _check_owner(self) -> None:
        if not self.exists:
            return
        info = self._path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise ForeignFileError("it is not a regular file")
        if info.st_uid not in {0, os.geteuid()} or info.st_mode & 0o022:
            raise RegistryError(
                "it is another user's, or others may write it",
                code="registry.permissions",
                context=ascii(str(self._path))[1:-1],
            )

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever SQLite says, in our words; a connection that failed is not used again."""
        try:
            yield
        except FAULTS as exc:
            number = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            code, text = "registry.unusable", "can't be used"
            if number in BUSY:
                code, text = "registry.busy", f"busy for more than {BUSY_SECONDS:.0f} s"
            elif isinstance(exc, ForeignFileError | UnicodeDecodeError) or number in {
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
            }:
                code, text = "registry.foreign", "no registry of ours, or damaged"
            if number not in BUSY:
                self.close()
            raise RegistryError(
                f"{text}: {getattr(exc, 'strerror', None) or exc}",
                code=code,
                context=ascii(str(self._path))[1:-1],
            ) from exc
