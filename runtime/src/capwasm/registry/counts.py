"""health.db: how versions on trial did, counted by all processes that run them.

A file of its own, for it is written every second and nothing is lost with it: a power loss forgets
some calls.  Its rows are sealed like the registry's, so that nobody who lacks the key has a version
sent back; a row that is not ours counts as none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capwasm._sqlite import Layout

from .db import Connection, Database
from .seal import Sealer

__all__ = ["Count", "Counts"]

_TRIALS: Final = (
    "CREATE TABLE trials (plugin TEXT NOT NULL, version TEXT NOT NULL, since TEXT NOT NULL,"
    " calls INTEGER NOT NULL, failures INTEGER NOT NULL, over INTEGER NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (plugin, version)) STRICT, WITHOUT ROWID"
)
# "CWH1"
_LAYOUT: Final = Layout("a record of trials", 0x43574831, ((_TRIALS,),))
_KEPT: Final = 4
_MOST: Final = 2**62


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted of a version since it began to serve; `over` if that is settled."""

    calls: int
    failures: int
    over: bool


class Counts:
    """The trials of one home directory.  For one thread; many processes may have one each."""

    def __init__(self, root: Path) -> None:
        """Use those of `root`; nothing is read or made yet."""
        self._root = root
        self._db = Database(root / "health.db", lambda _db: None, _LAYOUT, "NORMAL")
        self._sealer: Sealer | None = None

    def add(
        self, plugin: str, version: str, since: str, calls: int, failures: int, *, over: bool
    ) -> Count:
        """Add what was counted here, and return what all have counted.

        Args:
            plugin: its id.
            version: which is on trial.
            since: from when on; what was counted of an earlier trial is forgotten.
            calls: how many more.
            failures: how many of these failed.
            over: whether the trial is over, however it went.

        Raises:
            RegistryError: it can't be read or written.
        """
        with self._db.transaction(write=True) as db:
            before = self._read(db, plugin, version, since)
            after = Count(
                min(before.calls + calls, _MOST),
                min(before.failures + failures, _MOST),
                before.over or over,
            )
            if after != before:
                self._write(db, plugin, version, since, after)
        return after

    def forget(self, plugin: str, version: str) -> None:
        """Forget a trial: another one begins anew.

        Raises:
            RegistryError: it can't be written.
        """
        with self._db.transaction(write=True) as db:
            db.execute("DELETE FROM trials WHERE plugin = ? AND version = ?", (plugin, version))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _read(self, db: Connection, plugin: str, version: str, since: str) -> Count:
        row = db.execute(
            "SELECT * FROM trials WHERE plugin = ? AND version = ?", (plugin, version)
        ).fetchone()
        if row is None or row[2] != since or not self._key().is_true(row[-1], "trials", row[:-1]):
            return Count(0, 0, over=False)
        return Count(row[3], row[4], bool(row[5]))

    def _write(self, db: Connection, plugin: str, version: str, since: str, count: Count) -> None:
        row = (plugin, version, since, count.calls, count.failures, int(count.over))
        seal = self._key().seal("trials", row)
        db.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, seal))
        db.execute(
            "DELETE FROM trials WHERE plugin = ? AND version NOT IN"
            " (SELECT version FROM trials WHERE plugin = ? ORDER BY since DESC LIMIT ?)",
            (plugin, plugin, _KEPT),
        )

    def _key(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer.load(self._root / "registry.key")
        return self._sealer
