"""Capsules by the digest of their bytes: `sha256/ab/<digest>.capsule`, read-only, whole or not there.

A capsule takes its name when all its bytes are on the disk, and its directory's entry is made
durable after that (PER-01, PER-07).  Whatever is handed out was hashed again just before, so what
was truncated or flipped since is noticed (PER-03).  The store decides nothing: which capsule may
run is said by the registry, and proven by its signatures.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capwasm._files import read_file, sync_directory, why, write_file
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.errors import RegistryError

__all__ = ["Store", "StoreReport"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_STALE_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What hashing everything again found.

    Attributes:
        sound: digests of the capsules that are what they were.   size: their bytes.
        quarantined: names of files that are not what they should be, and were moved aside.
    """

    sound: frozenset[str]
    size: int
    quarantined: tuple[str, ...]


class Store:
    """A directory of capsules.  Safe to use from several processes."""

    def __init__(self, root: Path) -> None:
        """Keep capsules below `root`, which is made when the first is put."""
        self.root = root
        self._files = root / "sha256"
        self._aside = root / "quarantine"

    def path(self, digest: str) -> Path:
        """Where the capsule of that digest is, or would be."""
        if not _DIGEST.fullmatch(digest):
            raise RegistryError(f"no digest: {digest[:80]!a}", code="registry.bundle")
        return self._files / digest[:2] / f"{digest}.capsule"

    def put(self, data: bytes) -> str:
        """Keep a capsule; on return it is on the disk.  One that is there already is checked.

        Returns:
            Its digest, SHA-256 in hex.

        Raises:
            RegistryError: `registry.unusable`: it can't be written, and nothing of it stays;
                `registry.permissions`: others may write the store.
        """
        digest = hashlib.sha256(data).hexdigest()
        target = self.path(digest)
        if self.has(digest):
            with contextlib.suppress(RegistryError):  # damaged: it is replaced
                self.get(digest)
                return digest
        for directory in (self.root, self._files, target.parent):
            self._make(directory)
        write_file(target, data, RegistryError, code="registry.unusable", mode=0o400)
        return digest

    def get(self, digest: str) -> bytes:
        """The capsule of that digest.

        Raises:
            RegistryError: `registry.bundle`: it is not there, or its bytes are others;
                `registry.permissions`: others may write it.
        """
        path = self.path(digest)
        data = read_file(
            path,
            MAX_CAPSULE_BYTES,
            RegistryError,
            code="registry.bundle",
            follow=False,
            refuse_mode=0o022,
            refuse_owner=True,
            mode_code="registry.permissions",
        )
        if hashlib.sha256(data).hexdigest() != digest:
            raise RegistryError(
                "its bytes are no longer those that were stored",
                code="registry.bundle",
                context=str(path),
            )
        return data

    def has(self, digest: str) -> bool:
        """Whether there is a file of that name; `get` tells whether it is sound."""
        return os.path.lexists(self.path(digest))

    def verify(self) -> StoreReport:
        """Hash every capsule again, and move aside what is not what its name says.

        Raises:
            RegistryError: `registry.unusable`: the store can't be read.
        """
        sound, size, bad = set(), 0, []
        for path in self._all():
            try:
                if path != self.path(path.stem):
                    raise RegistryError("it stands in another's place", code="registry.bundle")
                size += len(self.get(path.stem))
                sound.add(path.stem)
            except RegistryError:
                if not os.path.lexists(path):  # a collector was faster
                    continue
                bad.append(path.name)
                self._set_aside(path)
        return StoreReport(frozenset(sound), size, tuple(sorted(bad)))

    def collect(self, wanted: Container[str]) -> tuple[int, int]:
        """Remove every capsule that nobody refers to, and what killed writers left.

        Args:
            wanted: digests that are referred to.  The caller sees to it that none is added
                meanwhile.

        Returns:
            How many capsules went, and their bytes.

        Raises:
            RegistryError: `registry.unusable`: the store can't be read or written.
        """
        count = size = 0
        try:
            for path in list(self._all()):
                if path.stem not in wanted:
                    with contextlib.suppress(FileNotFoundError):
                        size += path.lstat().st_size
                        path.unlink()
                        count += 1
            for left in self._files.glob("*/.*.tmp") if self._files.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                        left.unlink()
        except OSError as exc:
            raise self._broken(exc) from exc
        return count, size

    # -- inside -----------------------------------------------------------------------------------

    def _all(self) -> Iterator[Path]:
        try:
            folders = sorted(self._files.iterdir()) if self._files.is_dir() else []
            for folder in folders:
                if folder.is_dir() and not folder.is_symlink():
                    yield from sorted(p for p in folder.iterdir() if p.suffix == ".capsule")
        except OSError as exc:
            raise self._broken(exc) from exc

    def _make(self, directory: Path) -> None:
        try:
            info = directory.lstat() if os.path.lexists(directory) else None
            if info is None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_directory(directory.parent)
                info = directory.lstat()
        except OSError as exc:
            raise self._broken(exc) from exc
        if not stat.S_ISDIR(info.st_mode):
            raise RegistryError("it is no directory", context=ascii(str(directory))[1:-1])
        if info.st_uid not in {0, os.geteuid()} or info.st_mode & 0o022:
            raise RegistryError(
                "it is another user's, or others may write it",
                code="registry.permissions",
                context=ascii(str(directory))[1:-1],
            )

    def _set_aside(self, path: Path) -> None:
        self._make(self._aside)
        try:
            path.rename(self._aside / f"{path.name}.{secrets.token_hex(4)}")
            sync_directory(path.parent)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: OSError) -> RegistryError:
        return RegistryError(
            f"the store can't be used: {why(exc)}", context=ascii(str(self.root))[1:-1]
        )
