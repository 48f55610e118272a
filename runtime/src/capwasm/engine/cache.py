"""Compiled code, kept between processes: only what this machine's key wrote is ever used.

The engine runs what it is given without a further look, so an entry is its bytes and then a tag over
them and over the entry's name (AES-GCM with nothing to hide, under a key of this entry alone).  The
bytes are copied into sealed memory first and checked there (see `sealed.py`).  What is torn, damaged,
another's, or another entry's under this name fails the check, is removed and made anew (SIG-22,
PER-04).

Entries are not synced to the disk: what a power cut leaves of one fails the check too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import os
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .sealed import Sealed, copy

__all__ = ["CodeCache", "Entry", "entries", "prune"]

SUFFIXES = (".cwasm", ".types")
_NONCE_BYTES = 12
_TAIL_BYTES = _NONCE_BYTES + 16
# What a killed process left half-written is swept after this long.
_STALE_SECONDS = 3600
_POLL_SECONDS = 0.02
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a cache; `used` is when it was last read or written, in seconds since 1970."""

    name: str
    size: int
    used: float


class CodeCache:
    """The cache in one directory.  Safe from many threads and processes."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        """Use that directory, which is made with mode 0700 if it isn't there.

        Args:
            directory: of this user's own.
            limit_bytes: when an entry is added, those that were not used for the longest time go
                until the rest fits; an entry that is larger by itself is not kept.

        Raises:
            OSError: it is another user's, a link, or can't be used.
        """
        _make_private(directory)
        self._dir, self._limit = directory, limit_bytes
        self._key = _machine_key(directory)

    def find(self, name: str, limit_bytes: int) -> Sealed | None:
        """The entry of that name, sealed and then checked; None if there is none that is good."""
        path = self._dir / name
        try:
            fd = os.open(path, _READ)
        except OSError:
            return None
        try:
            found = self._open(fd, name, limit_bytes)
            with contextlib.suppress(OSError):
                os.utime(fd)
        except OSError:
            return None
        except (InvalidTag, ValueError):
            # Torn, damaged or foreign: never run.  Another process may have replaced it since; then
            # that one is made anew, which costs time only.
            self.drop(name)
            return None
        finally:
            os.close(fd)
        return found

    def _open(self, fd: int, name: str, limit_bytes: int) -> Sealed:
        info = os.fstat(fd)
        size = info.st_size - _TAIL_BYTES
        if not stat.S_ISREG(info.st_mode) or not 0 < size <= limit_bytes:
            raise ValueError("not an entry")
        tail = os.pread(fd, _TAIL_BYTES, size)
        sealed = Sealed.copied(fd, size)
        try:
            with sealed.view() as view:
                self._cipher(name).decrypt(tail[:_NONCE_BYTES], tail[_NONCE_BYTES:], view)
        except BaseException:
            sealed.close()
            raise
        return sealed

    def keep(self, name: str, data: Sealed) -> None:
        """Add an entry, whole or not at all.  Where it can't be, that costs time, not safety."""
        if data.size + _TAIL_BYTES > self._limit:
            return
        nonce = secrets.token_bytes(_NONCE_BYTES)
        fresh = self._dir / f".new-{secrets.token_hex(8)}"
        try:
            with data.view() as view:
                tag = self._cipher(name).encrypt(nonce, b"", view)
            fd = os.open(fresh, _NEW, 0o600)
            try:
                copy(data.fd, fd, data.size)
                os.write(fd, nonce + tag)
            finally:
                os.close(fd)
            fresh.replace(self._dir / name)
            prune(self._dir, self._limit)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()

    def drop(self, name: str) -> None:
        """Remove an entry."""
        with contextlib.suppress(OSError):
            (self._dir / name).unlink()

    @contextlib.contextmanager
    def turn(self, name: str, patience: float, waiting: Callable[[float], None]) -> Iterator[None]:
        """Be the only one, of all threads and processes, who makes that entry.

        A process that dies gives its turn up.  One that hangs does not: after `patience` seconds it
        is no longer waited for, and the work is done twice.  Look again once it is your turn.

        Args:
            name: the entry's.
            patience: seconds.
            waiting: told again and again for how many seconds it has been waited.
        """
        fd = -1
        with contextlib.suppress(OSError):
            fd = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT | _READ, 0o600)
        if fd < 0:
            yield
            return
        try:
            began = time.monotonic()
            while not _lock(fd, name, fcntl.F_WRLCK):
                waited = time.monotonic() - began
                if waited > patience:
                    break
                waiting(waited)
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            # A fork may hold the file open for longer.
            _lock(fd, name, fcntl.F_UNLCK)
            os.close(fd)

    def _cipher(self, name: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, b"capwasm compiled code\0" + name.encode(), "sha256"))


def _lock(fd: int, name: str, kind: int) -> bool:
    """Lock, or unlock, the one byte of the lock file that stands for a name: no file is left over."""
    at = int.from_bytes(hmac.digest(b"", name.encode(), "sha256")[:7], "big")
    # Of the open file, not of the process: so threads wait for each other, too.
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as exc:
        # Without locks, as on some network file systems, the work may be done twice.
        return exc.errno not in {errno.EAGAIN, errno.EACCES}
    return True


def entries(directory: Path) -> list[Entry]:
    """The entries of the cache in that directory, whose last use is longest ago first.

    Raises:
        OSError: it can't be read.
    """
    found = []
    with _opened(directory) as fd, os.scandir(fd) as items:
        for item in items:
            if item.name.endswith(SUFFIXES):
                with contextlib.suppress(FileNotFoundError):
                    info = item.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(
                        info.st_mode
                    ):  # one could not be removed, and stop all others
                        found.append(Entry(item.name, info.st_size, info.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def prune(directory: Path, limit_bytes: int) -> list[Entry]:
    """Remove entries, the least recently used first, until the rest has at most so many bytes.

    Raises:
        OSError: the directory can't be read or written.
    """
    found = entries(directory)
    total = sum(entry.size for entry in found)
    gone = []
    with _opened(directory) as fd:
        for entry in found:
            if total <= limit_bytes:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=fd)
            total -= entry.size
            gone.append(entry)
    return gone


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _make_private(directory: Path) -> None:
    """A directory of this user's own that nobody else can enter, without what crashes left in it.

    Raises:
        OSError: it is another user's, a link, not a directory, or can't be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(directory) as fd:
        # Root could change the mode of anybody's; what is in it is theirs all the same.
        if os.fstat(fd).st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user")
        os.fchmod(fd, 0o700)
        with os.scandir(fd) as items:
            left = [item for item in items if item.name.startswith((".new-", ".key-"))]
        for item in left:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - item.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
                    os.unlink(item.name, dir_fd=fd)


def _machine_key(directory: Path) -> bytes:
    """The key of this cache: 32 random bytes in a file that only its owner can read.

    Whoever can read it can have this user run any code; so can whoever can write the user's files.

    Raises:
        OSError: it can't be had.
    """
    path = directory / "key"
    for _ in range(3):  # an unsafe one goes, a new one is made, and that is read
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            fresh = directory / f".key-{secrets.token_hex(8)}"
            with os.fdopen(os.open(fresh, _NEW, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            try:
                # A link fails where another process was first: the first key stays.
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink(missing_ok=True)
            continue
        try:
            status = os.fstat(fd)
            key = os.read(fd, 64) if stat.S_ISREG(status.st_mode) else b""
        finally:
            os.close(fd)
        if len(key) == 32 and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return key
        path.unlink(missing_ok=True)  # unsafe or damaged: a new key makes every old entry worthless
    raise OSError(errno.EACCES, "another process keeps putting an unsafe key there")
