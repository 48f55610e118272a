"""strikes.db: what plugins did, as points that grow old, and which of them are held for it.

Every process of a home adds to it, and each reads what all have added.  It outlives them, so a core
that is restarted forgets nothing.  Rows are sealed under `strikes.key`: points that nobody of us
wrote count for nothing, and a hold that nobody of us wrote is an error, since it can't be told
whether it says too much or too little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from capwasm._sqlite import Layout
from capwasm.errors import RegistryError
from capwasm.registry.db import Connection, Database
from capwasm.registry.seal import Sealer

__all__ = ["Docket", "End"]

_STRIKES: Final = (
    "CREATE TABLE strikes (plugin TEXT NOT NULL, at INTEGER NOT NULL, points INTEGER NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (plugin, at)) STRICT, WITHOUT ROWID"
)
_ENDS: Final = (
    "CREATE TABLE ends (plugin TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,"
    " kind TEXT NOT NULL, version TEXT NOT NULL, why TEXT NOT NULL, held INTEGER NOT NULL,"
    " seal BLOB NOT NULL, PRIMARY KEY (plugin, number)) STRICT, WITHOUT ROWID"
)
# "CWS1"
_LAYOUT: Final = Layout("a record of strikes", 0x43575331, ((_STRIKES, _ENDS),))
_SLOTS: Final = 60
"""Into how many pieces the time is cut for which a strike counts: one row each."""
_KEPT: Final = 100
_MOST: Final = 2**62


@dataclass(frozen=True, slots=True)
class End:
    """One time that a plugin was stopped for its strikes.

    Attributes:
        at: seconds since 1970.   kind: `suspended` or `evicted`.
        version: the version that ran.
        held: whether no load of the plugin is taken until a person forgives it; otherwise the
            registry knows what it is.
    """

    plugin: str
    number: int
    at: int
    kind: str
    version: str
    why: str
    held: bool


class Docket:
    """The strikes of one home directory.  For many processes; in each for any thread."""

    def __init__(self, root: Path) -> None:
        """Use those of `root`; nothing is read or made yet."""
        self._root = root
        self._db = Database(root / "strikes.db", lambda _db: None, _LAYOUT)
        self._sealer: Sealer | None = None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def stamp(self) -> object:
        """Differs once something was written, by whomever.  Cheap."""
        found = []
        for name in ("strikes.db", "strikes.db-wal"):
            try:
                info = (self._root / name).lstat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((info.st_ino, info.st_size, info.st_mtime_ns))
        return tuple(found)

    # -- points -----------------------------------------------------------------------------------

    def add(self, plugin: str, points: int, now: int, seconds: int) -> int:
        """Add points, and return what all have added within the last `seconds`.

        Raises:
            RegistryError: it can't be read or written.
        """
        slot = now - now % max(1, seconds // _SLOTS)
        with self._db.transaction(write=True) as db:
            old = self._read(db, plugin, now - seconds)
            db.execute("DELETE FROM strikes WHERE plugin = ? AND at <= ?", (plugin, now - seconds))
            row = (plugin, slot, min(old.get(slot, 0) + points, _MOST))
            db.execute(
                "INSERT OR REPLACE INTO strikes VALUES (?, ?, ?, ?)",
                (*row, self._key().seal("strikes", row)),
            )
        return sum(old.values()) + points

    def points(self, now: int, seconds: int) -> dict[str, int]:
        """What each plugin has within the last `seconds`.

        Raises:
            RegistryError: it can't be read.
        """
        if not self._db.exists:
            return {}
        with self._db.transaction(write=False) as db:
            rows = db.execute("SELECT DISTINCT plugin FROM strikes ORDER BY plugin").fetchall()
            found = {p: sum(self._read(db, p, now - seconds).values()) for (p,) in rows}
        return {plugin: points for plugin, points in found.items() if points}

    def _read(self, db: Connection, plugin: str, after: int) -> dict[int, int]:
        rows = db.execute("SELECT * FROM strikes WHERE plugin = ? AND at > ?", (plugin, after))
        is_true = self._key().is_true
        return {row[1]: row[2] for row in rows if is_true(row[-1], "strikes", row[:-1])}

    # -- ends -------------------------------------------------------------------------------------

    def end(self, plugin: str, version: str, kind: str, why: str, now: int, *, held: bool) -> bool:
        """Note that a plugin was stopped; its points begin anew.

        Returns:
            Whether that is news: a plugin that is held is not held again.

        Raises:
            RegistryError: it can't be read or written, or can't be believed.
        """
        with self._db.transaction(write=True) as db:
            before = self._ends(db, "plugin = ?", plugin)
            if held and any(e.held for e in before):
                return False
            number = before[-1].number + 1 if before else 1
            # An enum's member would be sealed as one, and read as its text.
            self._write(db, End(plugin, number, now, str(kind), version, why, held))
            db.execute("DELETE FROM strikes WHERE plugin = ?", (plugin,))
            db.execute(
                "DELETE FROM ends WHERE plugin = ? AND number <= ? AND held = 0",
                (plugin, number - _KEPT),
            )
        return True

    def ends(self, plugin: str | None = None) -> tuple[End, ...]:
        """Each time that a plugin, or any, was stopped, oldest first.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        if not self._db.exists:
            return ()
        with self._db.transaction(write=False) as db:
            return tuple(
                self._ends(db, "1") if plugin is None else self._ends(db, "plugin = ?", plugin)
            )

    def holds(self) -> dict[str, End]:
        """The plugins that are held, by id.  A load asks `check`, which looks at more.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        if not self._db.exists:
            return {}
        with self._db.transaction(write=False) as db:
            return {end.plugin: end for end in self._ends(db, "held = 1")}

    def check(self, plugin: str) -> None:
        """Pass if the plugin is not held.

        Raises:
            RegistryError: `strikes.held`; or it can't be read or believed.
        """
        for end in self.ends(plugin):
            if end.held:
                raise RegistryError(
                    f"it was {end.kind} for its strikes ({end.why}); once it may run again:"
                    f" capwasm strikes forgive {plugin} --reason TEXT",
                    code="strikes.held",
                    context=f"{plugin}@{end.version}",
                )

    def forgive(self, plugin: str) -> bool:
        """Hold a plugin no longer, and forget its points and suspensions; whether it had any.

        Raises:
            RegistryError: it can't be written.
        """
        if not self._db.exists:
            return False
        with self._db.transaction(write=True) as db:
            gone = [
                db.execute(f"DELETE FROM {table} WHERE plugin = ?", (plugin,)).rowcount  # noqa: S608  a constant
                for table in ("strikes", "ends")
            ]
        return any(gone)

    def _ends(self, db: Connection, where: str, *words: str) -> list[End]:
        query = f"SELECT * FROM ends WHERE {where} ORDER BY plugin, number"  # noqa: S608  a constant
        rows = db.execute(query, words).fetchall()
        for row in rows:
            if not self._key().is_true(row[-1], "ends", row[:-1]):
                self._tampered(row[0])
        return [
            End(plugin_id, number, at, kind, version, why, bool(held))
            for plugin_id, number, at, kind, version, why, held, _ in rows
        ]

    def _write(self, db: Connection, end: End) -> None:
        row = (end.plugin, end.number, end.at, end.kind, end.version, end.why, int(end.held))
        seal = self._key().seal("ends", row)
        db.execute("INSERT INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, seal))

    def _key(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer.make(self._root / "strikes.key")
        return self._sealer

    def _tampered(self, plugin: str) -> NoReturn:
        raise RegistryError(
            "strikes.db was changed by hand.  Nothing of it is believed; move strikes.* away to"
            " begin anew, which forgives every plugin",
            code="registry.tampered",
            context=ascii(plugin)[1:-1],
        )
