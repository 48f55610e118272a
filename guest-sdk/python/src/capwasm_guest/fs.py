"""Files beneath the granted directories, with the words of the host: `[[fs]]` in plugin.toml.

with fs.open("/data/report.txt", "write") as report:
    report.write(b"done")
print([(m.path, m.quota) for m in fs.mounts()])

`open()`, `os` and `pathlib` reach the same files.  This module tells more: which directories there
are and how full, and why not, as a word.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, cast

from ._bindings import EnumMember, FileInfo, FileResource, FsImport, guard, load
from .errors import from_wit

if TYPE_CHECKING:
    from typing_extensions import Buffer  # which collections.abc has since Python 3.12

__all__ = [
    "File",
    "Info",
    "Mount",
    "list",
    "make_directory",
    "mounts",
    "open",
    "remove",
    "rename",
    "stat",
]

_files = cast("FsImport", load("capwasm_fs", "capwasm_guest.fs"))

Mode = Literal["read", "write", "append", "update", "create"]
Access = Literal["read", "read-write"]
Kind = Literal["file", "directory", "link", "other"]
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Mount:
    """One granted directory.

    Attributes:
        path: where the plugin sees it, such as `/data`.
        access: `read` or `read-write`.
        quota: bytes that may be stored there; None: no bound but the disk.
        used: bytes stored there now.
    """

    path: str
    access: Access
    quota: int | None
    used: int


@dataclass(frozen=True)
class Info:
    """What is known of a file or directory.

    Attributes:
        name: within its directory.
        kind: `file`, `directory`, `link` or `other`.
        size: in bytes; 0 for all but regular files.
        modified: when it was last changed.
    """

    name: str
    kind: Kind
    size: int
    modified: datetime


class File(io.RawIOBase):
    """An open file, unbuffered.  A context manager that closes it; `io.BufferedReader` takes it."""

    def __init__(self, resource: FileResource, path: str, mode: Mode) -> None:
        """Made by `open`."""
        super().__init__()
        self._resource: FileResource | None = resource
        self._at = 0
        self.name, self.mode = path, mode

    def readable(self) -> bool:
        """Whether it was opened to read."""
        return self.mode in ("read", "update")

    def writable(self) -> bool:
        """Whether it was opened to write."""
        return self.mode != "read"

    def seekable(self) -> bool:
        """True: every read and write says where."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """The next bytes, into `buffer`; how many, 0 at the end.

        Raises:
            CapabilityError: the grant was revoked, or the device failed.
        """
        view = memoryview(buffer).cast("B")
        with from_wit(f"fs.read {self.name}"):
            data = self._open().read(self._at, min(len(view), _PIECE))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: Buffer) -> int:
        """Write all of `data`, a piece of 1 MiB after the other; how many bytes those are.

        Raises:
            Quota: it does not fit into the mount; the pieces before are written.
            CapabilityError: as `readinto`.
        """
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            piece = bytes(view[start : start + _PIECE])
            with from_wit(f"fs.write {self.name}"):
                self._open().write(self._at, piece)
            self._at += len(piece)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next read or write begins; the new place.

        Raises:
            ValueError: it would be before the start.
            CapabilityError: as `readinto`, from the end.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        at = offset + (self.size() if base is None else base)
        if at < 0:
            raise ValueError("before the start of the file")
        self._at = at
        return at

    def tell(self) -> int:
        """Where the next read or write begins."""
        return self._at

    def size(self) -> int:
        """Its size in bytes.

        Raises:
            CapabilityError: as `readinto`.
        """
        with from_wit(f"fs.size {self.name}"):
            return self._open().size()

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend it to `size`, or to where it stands; the new size.

        Raises:
            CapabilityError: as `write`.
        """
        wanted = self._at if size is None else size
        with from_wit(f"fs.truncate {self.name}"):
            self._open().set_size(wanted)
        return wanted

    def sync(self) -> None:
        """Return once the bytes are on the device.

        Raises:
            CapabilityError: as `readinto`.
        """
        with from_wit(f"fs.sync {self.name}"):
            self._open().sync()

    def close(self) -> None:
        """Close it.  Called again, does nothing."""
        if self._resource is not None:
            self._resource.__exit__(None, None, None)
            self._resource = None
        super().close()

    def _open(self) -> FileResource:
        if self._resource is None:
            raise ValueError(f"{self.name} is closed")
        return self._resource


def mounts() -> tuple[Mount, ...]:
    """The granted directories, in the order of the manifest."""
    guard("fs")
    return tuple(
        Mount(m.path, cast("Access", _word(m.access)), m.quota_bytes, m.used_bytes)
        for m in _files.mounts()
    )


def open(path: str, mode: Mode = "read") -> File:  # noqa: A001
    """Open a regular file, by its absolute path in the plugin.

    Args:
        path: such as `/data/report.txt`.
        mode: `read`; `write` (made, or emptied); `append` (made if need be); `update` (to read and
            write what is there); `create` (made, and not there before).

    Raises:
        Denied: outside the mounts, or more than the mount allows.
        NotFound, Invalid, Quota, CapabilityError: see `errors`; `.word` is `exists`,
            `is-directory` or `not-directory` where none of them fits.
        ValueError: there is no such mode.
    """
    guard("fs")
    found = getattr(_files.Mode, mode.upper(), None)
    if found is None:
        raise ValueError(f"mode is read, write, append, update or create, not {mode!r}")
    with from_wit(f"fs.open {path}"):
        return File(_files.open(path, found), path, mode)


def stat(path: str) -> Info:
    """What is known of `path`; a last symbolic link is not followed.

    Raises:
        CapabilityError: as `open`; so does every function here.
    """
    guard("fs")
    with from_wit(f"fs.stat {path}"):
        return _info(_files.stat(path))


def list(path: str) -> Iterator[Info]:  # noqa: A001
    """The entries of a directory, sorted by name."""
    guard("fs")
    after: str | None = None
    while True:
        with from_wit(f"fs.list {path}"):
            page = _files.list(path, after)
        if not page:
            return
        yield from map(_info, page)
        after = page[-1].name


def make_directory(path: str) -> None:
    """Make a directory, in one that is there."""
    guard("fs")
    with from_wit(f"fs.make_directory {path}"):
        _files.make_directory(path)


def remove(path: str) -> None:
    """Remove a file, a link or an empty directory."""
    guard("fs")
    with from_wit(f"fs.remove {path}"):
        _files.remove(path)


def rename(old: str, new: str) -> None:
    """Rename within one mount, replacing a file that is there."""
    guard("fs")
    with from_wit(f"fs.rename {old}"):
        _files.rename(old, new)


def _info(made: FileInfo) -> Info:
    kind = cast("Kind", _word(made.kind))
    return Info(made.name, kind, made.size, datetime.fromtimestamp(made.modified_ns / 1e9, UTC))


def _word(member: EnumMember) -> str:
    return member.name.lower().replace("_", "-")
