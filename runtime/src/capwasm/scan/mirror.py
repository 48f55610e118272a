"""A mirror of the OSV database on this machine: zip files as the database gives them, or an index of them.

The database has a zip a ecosystem, `<ecosystem>/all.zip`, of one JSON file a record.  A mirror is such a
zip, a directory of them (of any depth, or unpacked), or the index that `capwasm osv import` makes, which is
asked by name and answers in milliseconds however large the database is.  Nothing is ever unpacked to disk,
and no name within a zip is used as a path.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from capwasm._sqlite import FAULTS, Layout, connect
from capwasm.errors import ScanError

from .advisory import packages_of
from .versions import GIT, Package

__all__ = ["INDEX", "Archive", "Index", "Mirror", "Row", "open_mirror"]

INDEX: Final = "osv.db"
MAX_RECORD: Final = 8 * 2**20
MAX_RECORDS: Final = 2_000_000
MAX_FILES: Final = 500_000
MAX_RATIO: Final = 200
"""Bytes that a zip may unpack to, for each of its own; JSON of advisories has about 10."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,127}")
_KEPT: Final = (
    "id", "aliases", "summary", "withdrawn", "modified", "severity", "database_specific",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What a record says of one package.

    Attributes:
        record: its words that do not depend on the package.   entry: its entry of `affected`.
    """

    record: Mapping[str, Any]
    entry: Mapping[str, Any]


class Mirror(Protocol):
    """Where advisories are found."""

    def find(self, packages: Iterable[Package]) -> Mapping[Package, list[Row]]:
        """All that is said of these packages.

        Raises:
            ScanError: `scan.mirror`: it can't be read.
        """

    @property
    def newest(self) -> Mapping[str, datetime]:
        """By ecosystem that it holds, when a record of it last changed; after `find`."""

    @property
    def odd(self) -> int:
        """How many of its records can't be read; after `find`."""


def open_mirror(path: Path) -> Mirror:
    """The mirror at that place.

    Raises:
        ScanError: `scan.mirror`: there is none.
    """
    if path.is_dir() and (path / INDEX).is_file():
        return Index(path / INDEX)
    if path.is_dir() or path.is_file():
        return Archive(path)
    raise ScanError("there is no mirror", code="scan.mirror", context=ascii(str(path))[1:-1])


@dataclass
class _Census:
    """What ecosystems one file is of."""

    shared: frozenset[str] | None = None
    newest: dict[str, datetime] = field(default_factory=dict)

    def count(self, ecosystems: frozenset[str], changed: datetime) -> None:
        """Count one record."""
        if ecosystems:
            self.shared = ecosystems if self.shared is None else self.shared & ecosystems
        for name in ecosystems:
            self.newest[name] = max(changed, self.newest.get(name, changed))

    def covered(self) -> dict[str, datetime]:
        """The ecosystems that it holds whole.

        The zip of one ecosystem has records that are about another as well, but of that one only
        these; in it, every record is about the one.
        """
        return {n: t for n, t in self.newest.items() if not self.shared or n in self.shared}


@dataclass
class Archive:
    """Zips, or directories of zips and of JSON files, read whole each time."""

    path: Path
    newest: dict[str, datetime] = field(default_factory=dict)
    odd: int = 0
    _seen: set[str] = field(default_factory=set)

    def find(self, packages: Iterable[Package]) -> Mapping[Package, list[Row]]:
        """See `Mirror`."""
        wanted = frozenset(packages)
        found: dict[Package, list[Row]] = {}
        for package, row in self.rows():
            if package in wanted:
                found.setdefault(package, []).append(row)
        return found

    def rows(self) -> Iterator[tuple[Package, Row]]:
        """All that it holds, each record once.

        Raises:
            ScanError: `scan.mirror`: a file can't be read, or unpacks to more than any real one.
        """
        counts: dict[Path, _Census] = {}
        with _told(self.path):
            for number, (file, data) in enumerate(_texts(self.path)):
                if number >= MAX_RECORDS:
                    raise ValueError(f"more than {MAX_RECORDS} records")
                yield from self._rows_of(data, counts.setdefault(file, _Census()))
        for census in counts.values():
            for name, when in census.covered().items():
                self.newest[name] = max(when, self.newest.get(name, when))

    def _rows_of(self, data: bytes, census: _Census) -> Iterator[tuple[Package, Row]]:
        try:
            record = json.loads(data)
            if not isinstance(record, dict) or not _ID.fullmatch(str(record.get("id"))):
                raise ValueError("no record")
            changed = datetime.fromisoformat(str(record.get("modified")))
        except (ValueError, RecursionError):
            self.odd += 1
            return
        rows = list(packages_of(record))
        named = frozenset(package.ecosystem for package, _ in rows)
        changed = changed if changed.tzinfo else changed.replace(tzinfo=UTC)
        census.count(named - {GIT} or named, changed)
        if record["id"] in self._seen:
            return
        self._seen.add(record["id"])
        kept = {word: record[word] for word in _KEPT if word in record}
        yield from ((package, Row(kept, entry)) for package, entry in rows)


def _texts(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Every record of a zip, or of all zips and JSON files below a directory, and what it lies in.

    Links are not followed.
    """
    if path.is_file():
        yield from ((path, data) for data in _of_zip(path))
        return
    todo, seen = [path], 0
    while todo:
        place = todo.pop()
        for entry in sorted(place.iterdir()):
            seen += 1
            if seen > MAX_FILES:
                raise ValueError(f"more than {MAX_FILES} files: make an index of it")
            if entry.is_symlink():
                continue
            if entry.is_dir():
                todo.append(entry)
            elif entry.suffix == ".zip":
                yield from ((entry, data) for data in _of_zip(entry))
            elif entry.suffix == ".json":
                yield place, _of_file(entry)


def _of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_RECORD)


def _of_zip(path: Path) -> Iterator[bytes]:
    left = path.stat().st_size * MAX_RATIO + MAX_RECORD
    with zipfile.ZipFile(path) as packed:
        for info in packed.infolist():
            if not info.filename.endswith(".json"):
                continue
            with packed.open(info) as file:
                data = file.read(MAX_RECORD + 1)
            left -= len(data)
            if len(data) > MAX_RECORD or left < 0:
                raise ValueError("it unpacks to more than any database does")
            yield data


_ECOSYSTEMS: Final = (
    "CREATE TABLE ecosystems (name TEXT PRIMARY KEY NOT NULL, newest TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID"
)
_ADVISORIES: Final = (
    "CREATE TABLE advisories (ecosystem TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL,"
    " entry TEXT NOT NULL) STRICT"
)
_BY_NAME: Final = "CREATE INDEX by_name ON advisories (ecosystem, name)"
# "CWO1"
_LAYOUT: Final = Layout(
    "an index of advisories", 0x43574F31, ((_ECOSYSTEMS, _ADVISORIES, _BY_NAME),)
)


@dataclass
class Index:
    """An SQLite file of this runtime's own making."""

    path: Path
    newest: dict[str, datetime] = field(default_factory=dict)
    odd: int = 0

    def find(self, packages: Iterable[Package]) -> Mapping[Package, list[Row]]:
        """See `Mirror`."""
        found: dict[Package, list[Row]] = {}
        with _told(self.path), closing(self._open()) as db:
            for name, newest in db.execute("SELECT name, newest FROM ecosystems"):
                self.newest[name] = datetime.fromisoformat(newest)
            for package in frozenset(packages):
                rows = db.execute(
                    "SELECT record, entry FROM advisories WHERE ecosystem = ? AND name = ?", package
                )
                found[package] = [Row(json.loads(r), json.loads(e)) for r, e in rows]
        return found

    def fill(self, sources: Iterable[Path], tell: Callable[[int], object] = lambda _n: None) -> int:
        """Make it anew of these sources, all or nothing; how many rows there are.

        Args:
            sources: zips, or directories of them: all that it is to hold.
            tell: told the number of rows now and then.

        Raises:
            ScanError: `scan.mirror`: a source can't be read, or holds no record; or this can't be
                written.
        """
        count = 0
        with _told(self.path), closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM advisories")
            db.execute("DELETE FROM ecosystems")
            for source in sources:
                archive = Archive(source)
                for package, row in archive.rows():
                    db.execute(
                        "INSERT INTO advisories VALUES (?, ?, ?, ?)",
                        (*package, json.dumps(row.record), json.dumps(row.entry)),
                    )
                    count += 1
                    if count % 1000 == 0:
                        tell(count)
                if not archive.newest:
                    raise ValueError(f"there is no record of the OSV database in {source.name!a}")
                self.odd += archive.odd
                for name, newest in archive.newest.items():
                    self.newest[name] = max(newest, self.newest.get(name, newest))
            db.executemany(
                "INSERT INTO ecosystems VALUES (?, ?)",
                [(name, newest.isoformat()) for name, newest in self.newest.items()],
            )
            db.execute("COMMIT")
        return count

    def _open(self) -> Any:
        return connect(
            self.path,
            _LAYOUT,
            wait=10.0,
            synchronous="NORMAL",
            max_value=MAX_RECORD,
            fill=lambda _db: None,
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What reading a mirror can raise, as one error."""
    try:
        yield
    except (*FAULTS, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError,
            RuntimeError, EOFError) as exc:  # fmt: skip
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ScanError(
            f"the mirror can't be used: {why}", code="scan.mirror", context=ascii(str(path))[1:-1]
        ) from None
