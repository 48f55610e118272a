"""The database, its key and its head, as one thing that is read or changed.

A reader sees one state of it, checked; a writer is alone, and what he does is committed whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from capwasm.errors import RegistryError

from .db import BUSY_SECONDS, Connection, Database
from .ledger import Ledger
from .model import Listed, PluginRecord, Step
from .seal import Head, Sealer

__all__ = ["Books", "known"]

_STALE_SECONDS: Final = 3600


class Books:
    """`registry.db`, `registry.key` and `registry.head` of one directory."""

    def __init__(self, root: Path) -> None:
        """Use those of `root`; nothing is read or made yet."""
        self._root = root
        self._sealed_by: Sealer | None = None
        self._db = Database(root / "registry.db", self._begin)

    @property
    def exist(self) -> bool:
        """Whether anything was ever kept here."""
        return self._db.exists

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def stamp(self) -> tuple[int, int] | None:
        """Differs once a change was noted in the head; None while there is none.

        Raises:
            RegistryError: it can't be read.
        """
        try:
            info = os.lstat(self._root / "registry.head")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise RegistryError(
                f"can't be read: {exc.strerror}", context=ascii(str(self._root))[1:-1]
            ) from exc
        return info.st_ino, info.st_mtime_ns

    # -- questions --------------------------------------------------------------------------------

    def list(self, *, removed: bool = False) -> tuple[Listed, ...]:
        """All plugins by id; tombstones too if `removed`.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        with self.reading() as ledger:
            found = ledger.plugins() if ledger is not None else []
        return tuple(p for p in found if removed or p.removed is None)

    def find(self, plugin_id: str) -> PluginRecord | None:
        """What is known of a plugin, also when it was removed; None if nobody has seen it.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        with self.reading() as ledger:
            return None if ledger is None else ledger.plugin(plugin_id)

    def show(self, plugin_id: str) -> PluginRecord:
        """What is known of a plugin, also when it was removed.

        Raises:
            RegistryError: `registry.unknown`; it can't be read, or can't be believed.
        """
        return known(self.find(plugin_id), plugin_id)

    def history(self, plugin_id: str) -> tuple[Step, ...]:
        """Every step of a plugin, oldest first, also when it was removed.

        Raises:
            RegistryError: `registry.unknown`; it can't be read, or can't be believed.
        """
        with self.reading() as ledger:
            known(None if ledger is None else ledger.plugin(plugin_id), plugin_id)
            assert ledger is not None
            return ledger.steps(plugin_id)

    # -- transactions -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Ledger | None]:
        """The ledger as it stands, or None where there is none.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        if not self.exist:
            self._check_gone()
            yield None
            return
        with self._begun(write=False) as ledger:
            yield ledger

    @contextlib.contextmanager
    def writing(self) -> Iterator[Ledger]:
        """The ledger, with nobody else writing; committed at the end, or as it was.

        Raises:
            RegistryError: it can't be read or written, or can't be believed.
        """
        self._check_gone()
        with self._begun(write=True) as ledger:
            yield ledger

    def note(self) -> None:
        """Note in the head that a change is on the disk.

        Under the write lock, so that the head never goes back.  If it can't be done now, the next
        change does it first.
        """
        with contextlib.suppress(RegistryError), self.writing():
            pass

    def sweep(self) -> None:
        """Remove what killed writers left beside the database.

        Raises:
            RegistryError: the directory can't be written.
        """
        try:
            for left in self._root.glob(".registry.*.tmp"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                        left.unlink()
        except OSError as exc:
            raise RegistryError(
                f"can't be cleaned: {exc.strerror}", context=ascii(str(self._root))[1:-1]
            ) from exc

    @contextlib.contextmanager
    def _begun(self, *, write: bool) -> Iterator[Ledger]:
        """A transaction whose first row was read, checked.

        While a file is made, or closed by the last who used it, SQLite says at once that it is
        busy, and does not wait; so this does.
        """
        until = time.monotonic() + BUSY_SECONDS
        sealer = self._sealer()  # before the file is made: no rows without a key
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    with contextlib.ExitStack() as attempt:
                        db = attempt.enter_context(self._db.transaction(write=write))
                        ledger = self._checked(db, sealer, write=write)
                        stack.push(attempt.pop_all())
                    break
                except RegistryError as exc:
                    if exc.code != "registry.busy" or time.monotonic() > until:
                        raise
                time.sleep(0.005)
            yield ledger

    def _checked(self, db: Connection, sealer: Sealer, *, write: bool) -> Ledger:
        head = Head(self._root / "registry.head", sealer)
        # The head is read before the database's first row: so it is never ahead of it.
        seen = head.read()
        ledger = Ledger(db, sealer)
        if seen is None and not write and ledger.sequence and head.read() is not None:
            seen = ledger.name, 0  # the very first change was made in between
        ledger.check_age(seen)
        # Before the first change, and when a kill came between a change and its note.
        if write and (seen is None or seen[1] < ledger.sequence):
            head.write(ledger.name, ledger.sequence)
        return ledger

    def _sealer(self) -> Sealer:
        if self._sealed_by is None:
            # A key is made for a registry that is yet to be made, never for one that lost its own.
            get = Sealer.load if self.exist else Sealer.make
            self._sealed_by = get(self._root / "registry.key")
        return self._sealed_by

    def _begin(self, db: Connection) -> None:
        Ledger.begin(db, self._sealer(), secrets.token_hex(16))

    def _check_gone(self) -> None:
        # In this order: whoever makes a registry makes its head last.
        if os.path.lexists(self._root / "registry.head") and not self.exist:
            raise RegistryError(
                "registry.db is gone, and registry.head tells that there was one.  Put back a copy"
                " of the whole directory; to begin anew, move registry.* and store/ away",
                code="registry.rolled-back",
                context=ascii(str(self._root))[1:-1],
            )


def known(plugin: PluginRecord | None, plugin_id: str) -> PluginRecord:
    """The record, if there is one.

    Raises:
        RegistryError: `registry.unknown`.
    """
    if plugin is None:
        raise RegistryError(
            "no such plugin is installed", code="registry.unknown", context=ascii(plugin_id)[1:-1]
        )
    return plugin
