"""What shows that a row of the registry is the one that capwasm wrote (SIG-23).

Each row carries an HMAC under `registry.key` over its table, its primary key and every other
column.  So it can't be changed, nor stand in another row's or table's place.  That it can't be
replaced by what it was before, or be left out, is shown by the rows above it: a plugin's row covers
the seals of all that belong to it, and the one row of `meta` covers the ids and seals of all plugins
and counts the changes.  How far it has counted stands in a file of its own, `registry.head`, so an
older copy of the whole database is noticed as well (PER-08).

Whoever can read the key can write what he likes; it is for a database that got into other hands,
not for an intruder who already acts as this user.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from capwasm._files import read_file, write_file
from capwasm.errors import RegistryError

__all__ = ["Head", "Sealer"]

KEY_BYTES: Final = 32
MAX_HEAD: Final = 512
# The database's name, its count, and the seal over both.
_HEAD: Final = re.compile(rb"([0-9a-f]{32}) (0|[1-9][0-9]{0,17}) ([0-9a-f]{64})\n")


class Sealer:
    """Seals rows, and tells whether a seal is true."""

    __slots__ = ("_mac",)

    def __init__(self, key: bytes) -> None:
        """Use this key."""
        self._mac = hmac.new(key, digestmod="sha256")  # a copy of it is quicker than a new one

    @classmethod
    def load(cls, path: Path) -> Sealer:
        """The key of that file.

        Raises:
            RegistryError: `registry.key`: it is missing or malformed; `registry.permissions`:
                others may read it, or it is another user's.
        """
        key = read_file(
            path,
            KEY_BYTES,
            RegistryError,
            code="registry.key",
            follow=False,
            refuse_mode=0o077,
            refuse_owner=True,
            mode_code="registry.permissions",
        )
        if len(key) != KEY_BYTES:
            raise RegistryError(
                f"it has {len(key)} bytes, not {KEY_BYTES}", code="registry.key", context=str(path)
            )
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> Sealer:
        """The key of that file, which is made (0600, whole or not at all) if it is not there.

        Raises:
            RegistryError: as `load`; `registry.unusable` when it can't be written.
        """
        if not os.path.lexists(path):
            try:
                write_file(
                    path,
                    secrets.token_bytes(KEY_BYTES),
                    RegistryError,
                    code="registry.unusable",
                    mode=0o600,
                    overwrite=False,
                )
            except RegistryError:
                if not os.path.lexists(path):  # else another process was first: its key is the key
                    raise
        return cls.load(path)

    def seal(self, table: str, row: Sequence[Any], *before: bytes) -> bytes:
        """The seal of a row.

        Args:
            table: its table.
            row: all its columns but the seal: text, whole numbers, bytes and None.
            before: seals that it covers besides.
        """
        # `ascii` of such a tuple has one reading only, and the same in every version of Python.
        mac = self._mac.copy()
        mac.update(ascii((table, tuple(row), *before)).encode())
        return mac.digest()

    def is_true(self, seal: object, table: str, row: Sequence[Any], *before: bytes) -> bool:
        """Whether that is the row's seal."""
        return isinstance(seal, bytes) and hmac.compare_digest(seal, self.seal(table, row, *before))

    @staticmethod
    def root(rows: Sequence[tuple[str, bytes]]) -> bytes:
        """One digest for many rows: the primary key and the seal of each, in order.

        The keys count too: a row under another key would be as good as gone for whoever asks for
        it, and nobody would look at its seal.
        """
        whole = sha256(b"".join([seal for _, seal in rows]))
        whole.update(ascii([key for key, _ in rows]).encode())
        return whole.digest()


class Head:
    """`registry.head`: how far the registry had counted when it was last changed.

    It is written by whoever holds the database's write lock, once the change is on the disk.  So
    it is never ahead of the database, and behind it by one change at most, after a kill.
    """

    def __init__(self, path: Path, sealer: Sealer) -> None:
        """Use that file."""
        self._path, self._sealer = path, sealer

    def read(self) -> tuple[str, int] | None:
        """The database's name and its count; None where there is no such file.

        Raises:
            RegistryError: it can't be read, is another user's, or its seal is not true.
        """
        if not os.path.lexists(self._path):
            return None
        data = read_file(
            self._path,
            MAX_HEAD,
            RegistryError,
            code="registry.unusable",
            too_large="registry.tampered",
            follow=False,
            refuse_mode=0o022,
            refuse_owner=True,
            mode_code="registry.permissions",
        )
        match = _HEAD.fullmatch(data)
        if match is not None:
            name, sequence = match[1].decode(), int(match[2])
            if self._sealer.is_true(bytes.fromhex(match[3].decode()), "head", (name, sequence)):
                return name, sequence
        raise RegistryError("the seal of registry.head is not true", code="registry.tampered")

    def write(self, name: str, sequence: int) -> None:
        """Note how far it has counted.

        Raises:
            RegistryError: it can't be written.
        """
        seal = self._sealer.seal("head", (name, sequence)).hex()
        write_file(
            self._path,
            f"{name} {sequence} {seal}\n".encode(),
            RegistryError,
            code="registry.unusable",
            mode=0o600,
        )
