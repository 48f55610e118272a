"""SKELETON of the published signatures; the bodies follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from ...handles import Handle

# All operations raise FsError (a CapError with .errno/.word/.reason), CapError("closed"), or a
# CapwasmError that ends the call (deadline, audit).  Nothing else leaves them: no OSError.
#
# Preopens for wasi:filesystem:   state = ctx.opened["fs"]            # FsState
#                                 state.roots: Mapping[str, Dir]      # guest path -> root, grant order
#   A guest that drops its descriptor must not close the root, so hand out `root.reopen()`.
#
# Paths given to Dir are relative (`a/b`); `.` components, repeated and trailing slashes are taken
# as POSIX takes them (a trailing slash demands a directory).  Absolute or `..`: EPERM.  Empty:
# ENOENT.  NUL: EINVAL.  Too long: ENAMETOOLONG.  Any symbolic link on the way or at the end: ELOOP
# (stat and remove and rename see the link itself).  readlink-at, symlink-at and link-at have no
# method here: answer `not-permitted`.

MAX_TRANSFER = 1024 * 1024  # bytes of one read or write; more raises E2BIG: clamp reads yourself
MAX_FILE_SIZE = 2**40


class Access(StrEnum):  # lives in model.py
    READ = "read"
    READ_WRITE = "read-write"


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Stat:
    kind: Kind
    size: int  # bytes; 0 for all but regular files
    links: int
    accessed_ns: int  # since 1970, never negative
    modified_ns: int
    changed_ns: int
    hash: tuple[int, int]  # metadata hash (lower, upper); equal means the same object


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    kind: Kind


class DirStream(Handle):
    """The entries of a directory in the order of the disk, without `.` and `..`."""

    def next(self) -> Entry | None: ...


class Node(Handle):
    """What `Dir` and `File` share."""

    def stat(self) -> Stat: ...
    def same_object(self, other: Node) -> bool: ...
    def set_times(self, accessed_ns: int | None, modified_ns: int | None) -> None: ...
    def sync(self) -> None: ...
    def datasync(self) -> None: ...


class Dir(Node):
    access: Access

    def reopen(self) -> Dir: ...
    def open_at(
        self,
        path: str,
        *,
        read: bool = False,
        write: bool = False,
        append: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
        directory: bool = False,
    ) -> File | Dir: ...
    def open_file(
        self,
        path: str,
        *,
        read: bool = False,
        write: bool = False,
        append: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> File: ...  # EISDIR for a directory
    def open_dir(self, path: str, access: Access | None = None) -> Dir: ...  # access only narrows
    def stat_at(self, path: str) -> Stat: ...
    def set_times_at(
        self, path: str, accessed_ns: int | None, modified_ns: int | None
    ) -> None: ...
    def entries(self) -> DirStream: ...
    def page(self, after: str | None, limit: int = 1000) -> list[tuple[str, Stat]]: ...
    def mkdir(self, path: str) -> None: ...
    def remove_file(self, path: str) -> None: ...
    def remove_dir(self, path: str) -> None: ...
    def rename(self, path: str, to: Dir, to_path: str) -> None: ...


class File(Node):
    readable: bool
    writable: bool
    appends: bool

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None: ...  # all of it; appends if opened to append
    def append(self, data: bytes) -> None: ...
    def size(self) -> int: ...
    def set_size(self, size: int) -> None: ...
