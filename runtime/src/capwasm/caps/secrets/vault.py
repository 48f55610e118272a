"""The default vault: one encrypted file, in the format of `vaultdoc`.

A change writes a new file and takes the name, under a lock that other processes share: a reader
sees the old vault or the new one.  Each `get` reads the file, so a rotation or revocation by any
process holds from the next use on.

What the seal can't tell is an older copy of the whole file.  A running process remembers the
highest serial number that it saw and refuses a lower one; a process that starts anew has nothing to
compare with (see docs/adr/0009-secrets.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Final, NoReturn, Self

from capwasm._files import read_file, write_file
from capwasm.errors import CapabilityError

from .model import MAX_NAME, NAME
from .sealed import SecretBytes
from .vaultdoc import (
    Damaged,
    Document,
    Entry,
    check_seal,
    open_entry,
    parse,
    seal,
    seal_entry,
)
from .vaultkey import DerivedKeys, VaultKey

__all__ = ["Vault"]

MAX_SECRET: Final = 64 * 1024
MAX_ENTRIES: Final = 1_000
MAX_FILE: Final = 8 * 1024 * 1024
LOCK_SECONDS: Final = 10.0
_REASON: Final = re.compile(r"[ -~]{1,200}")


class Vault:
    """A vault in one encrypted file.  `Vault.create` and `Vault.open` make one."""

    def __init__(self, path: Path, key: VaultKey) -> None:
        """Use `create` or `open`."""
        self._path = path
        self._key = key
        self._keys: DerivedKeys | None = None
        self._serial = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Vault({str(self._path)!r})"

    @classmethod
    def create(cls, path: str | PathLike[str], key: VaultKey) -> Self:
        """Make an empty vault, mode 0600, in a directory that is made 0700 if it is not there.

        Raises:
            CapabilityError: `capability.vault`: there is one, or the place is not fit for one.
        """
        vault = cls(_real(path), key)
        try:
            vault._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            vault._fail(f"its directory can't be made: {exc.strerror}")
        vault._check_directory()
        with vault._locked():
            document = _empty(key, serial=1)
            vault._write(document, vault._keys_for(document), overwrite=False)
        return vault

    @classmethod
    def open(cls, path: str | PathLike[str], key: VaultKey) -> Self:
        """Open a vault; its place, its seal and the key are checked.

        Raises:
            CapabilityError: `capability.vault`: not there, not private, changed by another hand,
                or locked with another key.
        """
        vault = cls(_real(path), key)
        vault._check_directory()
        vault._read()
        return vault

    # -- what it holds -------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names of all secrets that are not revoked, sorted.

        Raises:
            CapabilityError: `capability.vault`.
        """
        document, _ = self._read()
        return sorted(name for name, entry in document.entries.items() if not entry.revoked)

    def revoked(self) -> dict[str, str]:
        """The names of the revoked ones, sorted, with the reasons.

        Raises:
            CapabilityError: `capability.vault`.
        """
        document, _ = self._read()
        return {n: entry.revoked for n, entry in sorted(document.entries.items()) if entry.revoked}

    def get(self, name: str) -> SecretBytes:
        """The value of that name, as it is in the file now.

        Raises:
            CapabilityError: `capability.no-secret`, `capability.secret-revoked` or
                `capability.vault`.
        """
        document, keys = self._read()
        entry = self._entry(document, name)
        if entry.revoked:
            self._fail(f"{name} was revoked: {entry.revoked}", "capability.secret-revoked")
        return self._opened(name, entry, keys)

    # -- changes -------------------------------------------------------------------------------

    def set(self, name: str, value: bytes) -> None:
        """Store a value, in place of an older or revoked one.

        Raises:
            CapabilityError: `capability.vault`: not a name, empty, larger than 64 KiB, or the
                vault can't be written.
        """
        if len(name) > MAX_NAME or not re.fullmatch(NAME.removesuffix("$"), name):
            self._fail("not a name: a-z, 0-9, and . _ - between them, such as acme-token")
        if not 0 < len(value) <= MAX_SECRET:
            self._fail(f"a secret has 1 to {MAX_SECRET} bytes")
        self._change(lambda old, keys: {**old.entries, name: seal_entry(name, value, keys)})

    def delete(self, name: str) -> None:
        """Forget a name altogether.

        Raises:
            CapabilityError: `capability.no-secret` or `capability.vault`.
        """

        def change(old: Document, _keys: DerivedKeys) -> dict[str, Entry]:
            self._entry(old, name)
            return {k: v for k, v in old.entries.items() if k != name}

        self._change(change)

    def revoke(self, name: str, reason: str) -> None:
        """Destroy a value and remember why, until a new one is set.

        Args:
            name: of the secret.
            reason: at most 200 characters of visible ASCII.

        Raises:
            CapabilityError: `capability.no-secret` or `capability.vault`.
        """
        if not _REASON.fullmatch(reason):
            self._fail("a reason has 1 to 200 characters of visible ASCII")

        def change(old: Document, _keys: DerivedKeys) -> dict[str, Entry]:
            self._entry(old, name)
            return {**old.entries, name: Entry(box="", revoked=reason)}

        self._change(change)

    def rotate_key(self, key: VaultKey) -> None:
        """Encrypt everything anew under another key, and use that from now on.

        A process that opened the vault with the old key can't read it any more.

        Raises:
            CapabilityError: `capability.vault`; then nothing has changed.
        """
        with self._locked():
            old, old_keys = self._read()
            document = _empty(key, serial=old.serial + 1)
            new_keys = key.derive(document.salt)
            entries = {}
            for name, entry in old.entries.items():
                if entry.revoked:
                    entries[name] = entry
                    continue
                with self._opened(name, entry, old_keys) as value:
                    entries[name] = seal_entry(name, value.expose(), new_keys)
            self._write(document.model_copy(update={"entries": entries}), new_keys)
            with self._lock:
                self._key, self._keys, self._serial = key, new_keys, document.serial

    def _change(self, change: Callable[[Document, DerivedKeys], dict[str, Entry]]) -> None:
        with self._locked():
            old, keys = self._read()
            entries = change(old, keys)
            if len(entries) > MAX_ENTRIES:
                self._fail(f"a vault holds at most {MAX_ENTRIES} secrets")
            changed = {"entries": entries, "serial": old.serial + 1}
            self._write(old.model_copy(update=changed), keys)

    def _entry(self, document: Document, name: str) -> Entry:
        entry = document.entries.get(name)
        if entry is None:
            self._fail(f"no secret {name!a}", "capability.no-secret")
        return entry

    def _opened(self, name: str, entry: Entry, keys: DerivedKeys) -> SecretBytes:
        try:
            return open_entry(name, entry, keys)
        except Damaged as exc:
            self._fail(str(exc))

    # -- the file ------------------------------------------------------------------------------

    def _keys_for(self, document: Document) -> DerivedKeys:
        """The keys for that document's salt; derived again only when the salt is another."""
        with self._lock:
            if self._keys is None or self._keys.salt != document.salt:
                self._keys = self._key.derive(document.salt)
            return self._keys

    def _read(self) -> tuple[Document, DerivedKeys]:
        """The document, once its seal was checked, and its keys."""
        lowest = self._serial  # before the file is read: another thread may raise it meanwhile
        data = read_file(
            self._path,
            MAX_FILE,
            CapabilityError,
            code="capability.vault",
            follow=False,
            refuse_mode=0o077,
            refuse_owner=True,
        )
        try:
            document = parse(data)
            if document.kdf != self._key.kdf:
                what = "a passphrase" if document.kdf == "scrypt" else "a key file"
                self._fail(f"this vault is locked with {what}")
            keys = self._keys_for(document)
            check_seal(data, keys)
        except Damaged as exc:
            self._fail(str(exc))
        if document.serial < lowest:
            self._fail(f"an older copy was put back: serial {document.serial}, seen {lowest}")
        with self._lock:
            self._serial = max(self._serial, document.serial)
        return document, keys

    def _write(self, document: Document, keys: DerivedKeys, *, overwrite: bool = True) -> None:
        data = seal(document, keys)
        if len(data) > MAX_FILE:
            self._fail(f"the vault would be larger than {MAX_FILE} bytes")
        write_file(
            self._path,
            data,
            CapabilityError,
            code="capability.vault",
            mode=0o600,
            overwrite=overwrite,
        )

    def _check_directory(self) -> None:
        """Refuse a directory in which another user could put a vault of theirs in place."""
        parent = self._path.parent
        try:
            info = parent.stat()
        except OSError as exc:
            self._fail(f"its directory can't be read: {exc.strerror}")
        if info.st_mode & 0o022 or info.st_uid not in {0, os.geteuid()}:
            self._fail(
                f"others can write to its directory (mode {stat.S_IMODE(info.st_mode):04o}, uid"
                f" {info.st_uid}); run: chmod 0700 {str(parent)!a}"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only writer, among threads and processes; sweep what a killed one left."""
        lock = self._path.with_name(f".{self._path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(lock, flags, 0o600)
        except OSError as exc:
            self._fail(f"its lock file can't be opened: {exc.strerror}")
        try:
            self._wait_for(fd)
            for left in self._path.parent.glob(f".{glob.escape(self._path.name[:64])}.*.tmp"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(fd)  # gives the lock back

    def _wait_for(self, fd: int) -> None:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= end:
                    self._fail("another process keeps it locked")
                time.sleep(0.01)
            else:
                return

    def _fail(self, message: str, code: str = "capability.vault") -> NoReturn:
        raise CapabilityError(message, code=code, context=ascii(str(self._path))[1:-1])


def _empty(key: VaultKey, serial: int) -> Document:
    return Document(kdf=key.kdf, salt=os.urandom(32).hex(), serial=serial, entries={})


def _real(path: str | PathLike[str]) -> Path:
    """The place behind links, so that a change replaces the vault and not a link to it."""
    return Path(os.path.realpath(path))
