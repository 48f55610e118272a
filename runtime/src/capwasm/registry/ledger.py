"""The rows of the registry, read and written under their seals.  No other has SQL of it.

A `Ledger` lives for one transaction.  What it returns was checked: the row's own seal, the seals of
all that belongs to the plugin, the one digest over all plugins, and the count in `registry.head`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from capwasm.errors import RegistryError

from .db import Connection
from .model import (
    Listed,
    Mark,
    Permit,
    PermitKind,
    PluginRecord,
    ReviewRow,
    State,
    Step,
    VersionRecord,
    order,
)
from .seal import Sealer

if TYPE_CHECKING:
    from capwasm.capsule.identity import Kind

__all__ = ["Ledger"]

Row = tuple[Any, ...]
_STATES: Final[dict[str | None, State | None]] = {None: None, **{s.value: s for s in State}}


class Ledger:
    """The tables, within one transaction."""

    def __init__(self, db: Connection, sealer: Sealer) -> None:
        """Check what the whole stands on.

        Args:
            db: within a transaction.
            sealer: whose seals count.

        Raises:
            RegistryError: `registry.tampered`.
        """
        self._db, self._sealer = db, sealer
        row = db.execute("SELECT name, sequence, root, seal FROM meta").fetchone()
        if row is None or not sealer.is_true(row[3], "meta", row[:3]):
            self._tampered("meta")
        self.name: str = row[0]
        self.sequence: int = row[1]
        self._root = row[2]
        self._whole = False

    def check_age(self, head: tuple[str, int] | None) -> None:
        """Pass if the database is as new as `registry.head` tells, which was read before it.

        Raises:
            RegistryError: `registry.rolled-back`.
        """
        if head is None:
            if self.sequence:
                self._rolled_back("registry.head, which tells how far it has counted, is gone")
        elif head[0] != self.name:
            self._rolled_back("registry.head is that of another registry")
        elif head[1] > self.sequence:
            self._rolled_back(
                f"it counts {self.sequence} changes; registry.head tells of {head[1]}"
            )

    @staticmethod
    def begin(db: Connection, sealer: Sealer, name: str) -> None:
        """Write the first row of a new database."""
        row = (name, 0, Sealer.root([]))
        db.execute("INSERT INTO meta VALUES (1, ?, ?, ?, ?)", (*row, sealer.seal("meta", row)))

    # -- reading ----------------------------------------------------------------------------------

    def plugins(self) -> list[Listed]:
        """All plugins and tombstones, by id."""
        rows = self._db.execute("SELECT * FROM plugins ORDER BY id").fetchall()
        is_true = self._sealer.is_true
        for row in rows:
            if not is_true(row[-1], "plugins", row[:-1]):
                self._tampered(f"plugins: {row[0]}")
        self._check_root([(row[0], row[-1]) for row in rows])
        return [Listed._make(row[:-2]) for row in rows]

    def plugin(self, plugin_id: str) -> PluginRecord | None:
        """One plugin with all that belongs to it, or None if nobody has seen it."""
        self._check_root()
        row = self._db.execute("SELECT * FROM plugins WHERE id = ?", (plugin_id,)).fetchone()
        if row is None:
            return None
        if not self._sealer.is_true(row[-1], "plugins", row[:-1]):
            self._tampered(f"plugins: {plugin_id}")
        versions = self._rows("versions", plugin_id)
        permits = self._rows("permits", plugin_id)
        if self._parts(plugin_id, versions, permits) != row[-2]:
            self._tampered(f"what belongs to {plugin_id}")
        return replace(
            _plugin(row),
            versions=tuple(sorted(map(_version, versions), key=order)),
            permits=tuple(map(_permit, permits)),
            reviews=self.reviews(plugin_id),
        )

    def reviews(self, plugin_id: str, *, whole: bool = False) -> tuple[ReviewRow, ...]:
        """All that was said of a plugin, oldest first; call `plugin` as well, which shows its end.

        Args:
            plugin_id: the plugin.
            whole: with the envelopes of scans that newer ones replaced, which nobody needs.
        """
        newest = (
            "SELECT max(number) FROM reviews WHERE plugin = ?1 AND kind = 'scan' GROUP BY archive"
        )
        rows = self._db.execute(
            "SELECT plugin, number, kind, version, archive, digest, who, at, why, seal, CASE WHEN ?2"  # noqa: S608  a constant
            f" OR kind <> 'scan' OR number IN ({newest}) THEN envelope END"
            " FROM reviews WHERE plugin = ?1 ORDER BY number",
            (plugin_id, whole),
        )
        found, before = [], b""
        for number, (*row, seal, envelope) in enumerate(rows, start=1):
            if row[1] != number or not self._sealer.is_true(seal, "reviews", row, before):
                self._tampered(f"reviews: {plugin_id} {number}")
            if envelope is not None and hashlib.sha256(envelope).hexdigest() != row[5]:
                self._tampered(f"reviews: {plugin_id} {number}: its record")
            before = seal
            found.append(_review(row, envelope))
        return tuple(found)

    def steps(self, plugin_id: str) -> tuple[Step, ...]:
        """The history of a plugin, oldest first; call `plugin` as well, which shows its end."""
        found, before = [], b""
        rows = self._db.execute(
            "SELECT * FROM steps WHERE plugin = ? ORDER BY number", (plugin_id,)
        )
        for number, row in enumerate(rows, start=1):
            if row[1] != number or not self._sealer.is_true(row[-1], "steps", row[:-1], before):
                self._tampered(f"steps: {plugin_id} {number}")
            before = row[-1]
            found.append(_step(row))
        return tuple(found)

    def bundles(self) -> dict[str, list[str]]:
        """The digests that versions refer to, and which versions those are."""
        found: dict[str, list[str]] = {}
        for plugin, version, bundle in self._db.execute(
            "SELECT plugin, version, bundle FROM versions"
        ):
            found.setdefault(bundle, []).append(f"{plugin}@{version}")
        return found

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with the file's pages."""
        rows = self._db.execute("PRAGMA quick_check(20)")
        return [f"registry.db: {text}" for (text,) in rows if text != "ok"]

    # -- writing ----------------------------------------------------------------------------------

    def save(self, plugin: PluginRecord, steps: Sequence[Step]) -> None:
        """Write a plugin's new state, and how it came to it."""
        self._check_root()
        # The others refer to the plugin's row, which comes last, for its seal covers theirs.
        self._db.execute("PRAGMA defer_foreign_keys = ON")
        versions = self._replace("versions", plugin.id, map(_version_row, plugin.versions))
        permits = self._replace("permits", plugin.id, map(_permit_row, plugin.permits))
        self._add_reviews(plugin)
        number, before = self._last("steps", plugin.id)
        for step in steps:
            number += 1
            row = _step_row(replace(step, number=number))
            before = self._sealer.seal("steps", row, before)
            self._insert("steps", (*row, before))
        whole = (*_plugin_row(plugin), self._parts(plugin.id, versions, permits))
        self._db.execute("DELETE FROM plugins WHERE id = ?", (plugin.id,))
        self._insert("plugins", (*whole, self._sealer.seal("plugins", whole)))
        self.sequence += 1
        meta = (self.name, self.sequence, Sealer.root(self._seals()))
        self._db.execute(
            "UPDATE meta SET name = ?, sequence = ?, root = ?, seal = ?",
            (*meta, self._sealer.seal("meta", meta)),
        )
        self._root = meta[2]

    # -- inside -----------------------------------------------------------------------------------

    def _rows(self, table: str, plugin_id: str) -> list[Row]:
        query = f"SELECT * FROM {table} WHERE plugin = ? ORDER BY 1, 2, 3"  # noqa: S608  a constant
        rows = self._db.execute(query, (plugin_id,)).fetchall()
        for row in rows:
            if not self._sealer.is_true(row[-1], table, row[:-1]):
                self._tampered(f"{table}: {plugin_id} {row[1]}")
        return rows

    def _replace(self, table: str, plugin_id: str, rows: Any) -> list[Row]:
        sealed = [(*row, self._sealer.seal(table, row)) for row in rows]
        self._db.execute(f"DELETE FROM {table} WHERE plugin = ?", (plugin_id,))  # noqa: S608  a constant
        for row in sealed:
            self._insert(table, row)
        return self._rows(table, plugin_id)

    def _insert(self, table: str, row: Row) -> None:
        marks = ",".join("?" * len(row))
        self._db.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608  a constant

    def _add_reviews(self, plugin: PluginRecord) -> None:
        """Enter the records that have no number yet; those that have one never change."""
        number, before = self._last("reviews", plugin.id)
        for review in plugin.reviews:
            if review.number:
                continue
            number += 1
            row = _review_row(replace(review, number=number))
            before = self._sealer.seal("reviews", row, before)
            self._insert("reviews", (*row, before, review.envelope))

    def _last(self, table: str, plugin_id: str) -> tuple[int, bytes]:
        row = self._db.execute(
            f"SELECT number, seal FROM {table} WHERE plugin = ? ORDER BY number DESC LIMIT 1",  # noqa: S608  a constant
            (plugin_id,),
        ).fetchone()
        return (0, b"") if row is None else (row[0], row[1])

    def _parts(self, plugin_id: str, versions: list[Row], permits: list[Row]) -> bytes:
        """One seal for all that belongs to a plugin: none can be left out or put back."""
        number, last = self._last("steps", plugin_id)
        counts: Row = (plugin_id, len(versions), len(permits), number)
        seals = [*(r[-1] for r in (*versions, *permits)), last]
        reviews, newest = self._last("reviews", plugin_id)
        # Plugins without reviews are sealed as they were before there were any.  That hides none:
        # each comes with a step, whose seal this covers.
        if reviews:
            counts, seals = (*counts, reviews), [*seals, newest]
        return self._sealer.seal("parts", counts, *seals)

    def _seals(self) -> list[tuple[str, bytes]]:
        return self._db.execute("SELECT id, seal FROM plugins ORDER BY id").fetchall()

    def _check_root(self, rows: list[tuple[str, bytes]] | None = None) -> None:
        if self._whole:
            return
        if Sealer.root(self._seals() if rows is None else rows) != self._root:
            self._tampered("a plugin's row is gone, or is an older one")
        self._whole = True

    def _tampered(self, what: str) -> NoReturn:
        raise RegistryError(
            f"the registry was changed by hand: {what}.  Nothing of it is believed; put back a "
            "copy of the whole directory, or move it away and install again",
            code="registry.tampered",
        )

    def _rolled_back(self, why: str) -> NoReturn:
        raise RegistryError(
            f"the registry is an older copy: {why}.  Put back a copy of the whole directory",
            code="registry.rolled-back",
        )


# -- rows and records, column by column -----------------------------------------------------------


def _plugin(row: Row) -> PluginRecord:
    id_, serving, state, highest, owners, pinned, waiting, removed, who, at, why, _, _ = row
    return PluginRecord(
        id_,
        serving,
        _STATES[state],
        highest,
        frozenset(owners.split()),
        pinned,
        waiting,
        removed,
        Mark(who, at, why),
    )


def _plugin_row(p: PluginRecord) -> Row:
    return (
        p.id,
        p.serving,
        None if p.state is None else p.state.value,
        p.highest,
        " ".join(sorted(p.owners)),
        p.pinned,
        p.waiting,
        p.removed,
        p.changed.who,
        p.changed.when,
        p.changed.why,
    )


def _version(row: Row) -> VersionRecord:
    from capwasm.capsule.verify import Signer

    plugin, version, kind, state, bundle, size, archive, code, manifest = row[:9]
    signers, source, published, pending = row[9:13]
    return VersionRecord(
        plugin,
        version,
        cast("Kind", kind),
        State(state),
        bundle,
        size,
        archive,
        code,
        manifest,
        tuple(
            Signer(name, key_id, frozenset(roles)) for name, key_id, roles in json.loads(signers)
        ),
        source,
        None if published is None else datetime.fromisoformat(published),
        tuple(json.loads(pending)),
        Mark(*row[13:16]),
        Mark(*row[16:19]),
    )


def _version_row(v: VersionRecord) -> Row:
    return (
        v.plugin,
        v.version,
        v.kind,
        v.state.value,
        v.bundle,
        v.size,
        v.archive,
        v.code,
        v.manifest,
        json.dumps([[s.name, s.key_id, sorted(s.roles)] for s in v.signers]),
        v.source,
        None if v.published is None else v.published.isoformat(),
        json.dumps(v.pending),
        v.installed.who,
        v.installed.when,
        v.installed.why,
        v.changed.who,
        v.changed.when,
        v.changed.why,
    )


def _permit(row: Row) -> Permit:
    plugin, kind, subject, *mark, _ = row
    return Permit(plugin, PermitKind(kind), subject, Mark(*mark))


def _permit_row(p: Permit) -> Row:
    return p.plugin, p.kind.value, p.subject, p.mark.who, p.mark.when, p.mark.why


def _step(row: Row) -> Step:
    plugin, number, version, before, after, action, *mark, _ = row
    return Step(plugin, number, version, _STATES[before], _STATES[after], action, Mark(*mark))


def _step_row(s: Step) -> Row:
    before, after = (None if x is None else x.value for x in (s.before, s.after))
    return (
        s.plugin,
        s.number,
        s.version,
        before,
        after,
        s.action,
        s.mark.who,
        s.mark.when,
        s.mark.why,
    )


def _review(row: Sequence[Any], envelope: bytes | None) -> ReviewRow:
    from capwasm.review.record import RecordKind

    plugin, number, kind, version, archive, digest, *mark = row
    return ReviewRow(
        plugin, number, RecordKind(kind), version, archive, digest, Mark(*mark), envelope
    )


def _review_row(r: ReviewRow) -> Row:
    return (
        r.plugin,
        r.number,
        r.kind.value,
        r.version,
        r.archive,
        r.digest,
        r.mark.who,
        r.mark.when,
        r.mark.why,
    )
