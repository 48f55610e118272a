"""The newest accepted feed, kept so that nothing older is ever accepted again.

Two files: `accepted`, the feed under a seal, and `head`, its number, digest and the latest time
that was seen.  Each is written whole or not at all and synced.  A change writes `accepted` first and
`head` last, so after a kill the head is behind by one feed at most; a head that is ahead means that
somebody put an older feed back (PER-08).  A lock of the kernel's lets one process change them at a
time.  The seal is an HMAC under `key` (0600), as the registry's rows have (SIG-23).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from capwasm._files import read_file, why, write_file
from capwasm._lock import held
from capwasm.errors import RegistryError, RevocationError
from capwasm.registry.seal import Sealer

from .feed import MAX_FEED_BYTES, Feed, parse

__all__ = ["Keeper", "Kept"]

_MAX_HEAD: Final = 512
_HEAD: Final = re.compile(rb"(0|[1-9][0-9]{0,15}) ([0-9a-f]{64}) ([0-9]{1,12}) ([0-9a-f]{64})\n")
_TOP: Final = re.compile(rb"([1-9][0-9]{0,15}) ([0-9a-f]{64}) ([0-9]{1,12}) ([0-9a-f]{64})\n")
_NONE: Final = "0" * 64

Stamp: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept.

    Attributes:
        feed: as it was accepted; its signatures were true then.
        accepted: when.
        latest: the latest time that was seen; no true clock can be before it.
    """

    feed: Feed
    accepted: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class _Found:
    sequence: int
    digest: str
    accepted: datetime
    latest: datetime
    data: bytes


class Keeper:
    """Keeps the newest accepted feed in one directory.  For many threads and processes."""

    def __init__(self, directory: Path) -> None:
        """Use that directory; nothing is read or made yet."""
        self.directory = directory
        self._accepted = directory / "accepted"
        self._head = directory / "head"
        self._key = directory / "key"
        self._settled = directory / "settled"

    def stamp(self) -> Stamp | None:
        """Changes whenever a feed is accepted; None where nothing is kept.  Cheap.

        Raises:
            RevocationError: `revocation.state`.
        """
        try:
            info = os.lstat(self._accepted)
        except FileNotFoundError:
            return None
        except OSError as exc:
            _broken(why(exc), self._accepted)
        return info.st_ino, info.st_mtime_ns, info.st_size

    def load(self) -> Kept | None:
        """What is kept, or None if no feed was ever accepted.

        Raises:
            RevocationError: `revocation.state`: it is not what this keeper wrote, or older.
        """
        try:
            found = self._look()
        except RevocationError:
            # It may have been read while another process was between the two files.
            with self._lock():
                found = self._look()
        if found is None:
            return None
        return Kept(parse(found.data), found.accepted, max(found.latest, found.accepted))

    def accept(self, feed: Feed, now: datetime) -> Stamp | None:
        """Keep a verified feed from now on; its stamp if it is a new one.

        That it is new and signed shows that the clock is right, so what was noted of later times is
        forgotten.

        Raises:
            RevocationError: `revocation.rollback`, `revocation.conflict`; `revocation.state`: it
                can't be written, or what is kept can't be believed.
        """
        with self._lock():
            sealer = self._sealer(make=True)
            kept = self._look()
            if kept is not None and feed.sequence <= kept.sequence:
                if feed.sequence < kept.sequence:
                    raise RevocationError(
                        f"it is number {feed.sequence}; {kept.sequence} was accepted before",
                        code="revocation.rollback",
                    )
                if feed.digest != kept.digest:
                    raise RevocationError(
                        f"another feed of number {feed.sequence} was accepted before",
                        code="revocation.conflict",
                    )
                return None
            self._sweep()
            if kept is None and not os.path.lexists(self._head):
                self._write_head(sealer, 0, _NONE, now)
            row = (feed.sequence, feed.digest, _seconds(now))
            seal = sealer.seal("accepted", (*row, _sha256(feed.data))).hex()
            top = f"{row[0]} {row[1]} {row[2]} {seal}\n".encode()
            self._write(self._accepted, top + feed.data)
            self._write_head(sealer, feed.sequence, feed.digest, now)
            return self.stamp()

    def note_time(self, now: datetime) -> None:
        """Remember that it was that late, if that is later than what is known.

        Raises:
            RevocationError: `revocation.state`.
        """
        with self._lock():
            kept = self._look()
            if kept is not None and now > kept.latest:
                self._write_head(self._sealer(), kept.sequence, kept.digest, now)

    def is_settled(self, digest: str) -> bool:
        """Whether the registry was brought in line with the feed of that digest."""
        try:
            return self._read(self._settled, _MAX_HEAD) == digest.encode()
        except RevocationError:
            return False

    def note_settled(self, digest: str) -> None:
        """Remember that it was, so that it is not gone through again at each start.

        Raises:
            RevocationError: `revocation.state`.
        """
        self._write(self._settled, digest.encode())

    # -- inside -----------------------------------------------------------------------------------

    def _look(self) -> _Found | None:
        """What is kept, under its seals; it is not parsed."""
        head = self._read_head()
        if not os.path.lexists(self._accepted):
            if head is not None and head[0]:
                _broken(f"feed {head[0]} was accepted, and is gone", self._accepted)
            return None
        if head is None:
            _broken("it is gone, and there is a feed", self._head)
        data = self._read(self._accepted, MAX_FEED_BYTES + _MAX_HEAD)
        top, newline, rest = data.partition(b"\n")
        match = _TOP.fullmatch(top + newline)
        if match is None:
            _broken("it is malformed", self._accepted)
        row = int(match[1]), match[2].decode(), int(match[3])
        seal = bytes.fromhex(match[4].decode())
        if not self._sealer().is_true(seal, "accepted", (*row, _sha256(rest))):
            _broken("its seal is not true", self._accepted)
        sequence, digest, latest = head
        if row[0] < sequence or (row[0] == sequence and row[1] != digest):
            _broken(f"feed {sequence} was accepted, and this is an older copy", self._accepted)
        return _Found(row[0], row[1], _when(row[2]), _when(latest), rest)

    def _read_head(self) -> tuple[int, str, int] | None:
        if not os.path.lexists(self._head):
            return None
        match = _HEAD.fullmatch(self._read(self._head, _MAX_HEAD))
        if match is None:
            _broken("it is malformed", self._head)
        row = int(match[1]), match[2].decode(), int(match[3])
        if not self._sealer().is_true(bytes.fromhex(match[4].decode()), "head", row):
            _broken("its seal is not true", self._head)
        return row

    def _write_head(self, sealer: Sealer, sequence: int, digest: str, latest: datetime) -> None:
        row = (sequence, digest, _seconds(latest))
        seal = sealer.seal("head", row).hex()
        self._write(self._head, f"{row[0]} {row[1]} {row[2]} {seal}\n".encode())

    def _sealer(self, *, make: bool = False) -> Sealer:
        # A key is made for a keeper that is yet to keep anything, never for one that lost its own.
        make = make and not (os.path.lexists(self._head) or os.path.lexists(self._accepted))
        try:
            return (Sealer.make if make else Sealer.load)(self._key)
        except RegistryError as exc:
            _broken(exc.message, self._key)

    def _sweep(self) -> None:
        """Remove what killed writers left; under the lock, so nobody is writing."""
        try:
            for left in self.directory.glob(".*.tmp"):
                left.unlink()
        except OSError as exc:
            _broken(why(exc), self.directory)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with held(self.directory, RevocationError, code="revocation.state"):
                yield
        except OSError as exc:
            _broken(why(exc), self.directory)

    @staticmethod
    def _read(path: Path, limit: int) -> bytes:
        return read_file(
            path,
            limit,
            RevocationError,
            code="revocation.state",
            follow=False,
            refuse_mode=0o022,
            refuse_owner=True,
        )

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        write_file(path, data, RevocationError, code="revocation.state", mode=0o600)


def _seconds(when: datetime) -> int:
    return int(when.timestamp())


def _when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _broken(message: str, path: Path) -> NoReturn:
    raise RevocationError(message, code="revocation.state", context=ascii(str(path))[1:-1])
